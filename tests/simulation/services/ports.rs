//! What one invocation sees of the world. Each page of the table is read by itself, and only a scan of
//! whole items may miss the last seconds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::kv::{Metadata, Namespace, StoredValue};
use ecom_settings_exporter::ports::{
    ApiKeyError, ApiKeyService, Cause, Clock, KvError, ListPage, Part, ScanColumns, TableError,
    TablePage,
};
use secrecy::SecretString;
use tokio::sync::Notify;

use super::calls::AtCall;
use super::kv::{failure, stale_moment, tell};
use crate::checks;
use crate::memory::{Backend, Change, KvFault, Listing, Row, part_has, table_page};
use crate::world::{Call, Failure, Fault, Held, OTHER_CELL, State, Step, query_of};

/// When a request may land that its client gave up, in seconds: Cloudflare's own time-out is at 100.
const LANDS_AFTER: [u64; 5] = [0, 1, 10, 50, 100];

/// How far behind an eventually consistent read of the table may be.
const TABLE_LAG: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Ports {
    pub state: Rc<RefCell<State>>,
    pub invocation: usize,
    /// Told when the invocation is to end at once.
    pub crash: Rc<Notify>,
    /// Told that an event happened.
    pub changed: Rc<Notify>,
}

impl Ports {
    /// Lets time pass, and returns what goes wrong. A call that never returns ends here.
    pub async fn enter(&self, call: Call) -> (Fault, bool) {
        let AtCall { latency, fault, stale } = {
            let mut state = self.state.borrow_mut();
            let step = state.step;
            let at_call = state.at_call(self.invocation, call);
            if state.step != step {
                self.changed.notify_waiters();
            }
            at_call
        };
        tokio::time::sleep(latency).await;
        match fault {
            Fault::Crash { done: false } => self.crash().await,
            Fault::Hang { done: false } => pending().await,
            fault => (fault, stale),
        }
    }

    pub async fn crash(&self) -> ! {
        self.crash.notify_one();
        pending().await
    }

    async fn read_kv(&self) -> Result<bool, KvError> {
        match self.enter(Call::KvRead).await {
            (Fault::Fail { why, .. }, _) => Err(failure(why)),
            (_, stale) => Ok(stale),
        }
    }

    async fn read_table(&self) -> Result<(), TableError> {
        match self.enter(Call::Table).await {
            (Fault::None, _) => Ok(()),
            _ => Err(TableError {
                operation: "any",
                throttled: true,
                cause: Cause::new("throttled"),
            }),
        }
    }
}

impl Ports {
    /// Returns the step as of which the table responds.
    fn moment_of_the_table(&self, lags: bool) -> Step {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if lags && state.shape.stale_reads && state.choices.below(4) == 1 {
            state.step_at(state.now().saturating_sub(TABLE_LAG)).max(state.prepared)
        } else {
            state.step
        }
    }
}

impl Backend for Ports {
    type Held = Rc<Held>;

    fn held(namespace: Namespace, stored: &StoredValue) -> Rc<Held> {
        checks::metadata::check_schemas(namespace, stored);
        let metadata = stored.metadata.as_ref().map(|json| json.get().to_owned());
        Held::new(namespace, stored.value.clone(), metadata)
    }

    async fn write(&self, namespace: Namespace, changes: &[Change<Rc<Held>>]) -> Option<KvFault> {
        checks::request(&mut self.state.borrow_mut(), self.invocation, namespace, changes);
        let (fault, _) = self.enter(Call::KvWrite).await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if fault != Fault::None {
            let keys = changes.iter().map(|(key, _)| (namespace, key.clone()));
            if matches!(fault, Fault::Fail { why: Failure::RefusedContent, .. }) {
                state.invocations[self.invocation].refused.extend(keys.clone());
            }
            state.uncertain.extend(keys);
        }
        match fault {
            Fault::Straggles => {
                let after = Duration::from_secs(*state.choices.pick(&LANDS_AFTER));
                let changes = changes.iter().cloned();
                let straggler = changes.map(|(key, held)| (namespace, key, held)).collect();
                state.stragglers.push((state.now() + after, straggler));
            }
            // The request is done before the invocation is.
            Fault::Crash { .. } => self.crash.notify_one(),
            _ => {}
        }
        fault.of_kv()
    }

    fn change(&self, namespace: Namespace, key: String, held: Option<Rc<Held>>) {
        let mut state = self.state.borrow_mut();
        checks::effect(&mut state, self.invocation, namespace, &key, held.as_ref());
        state.set_held(namespace, &key, held);
    }

    async fn read(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError> {
        let stale = self.read_kv().await?;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let each = !state.shape.is_plain();
        let all: Vec<&String> = keys.iter().collect();
        let of_all = if stale && !each { stale_moment(state, namespace, &all) } else { None };
        let mut found = BTreeMap::new();
        for key in keys {
            let moment =
                if stale && each { stale_moment(state, namespace, &[key]) } else { of_all };
            let Some(held) = tell(state, self.invocation, namespace, key, moment) else {
                continue;
            };
            let value = held.value.clone();
            let metadata = held.metadata.clone();
            let metadata = metadata.and_then(|json| serde_json::from_str(&json).ok());
            found.insert(key.clone(), StoredValue { value, metadata });
        }
        Ok(found)
    }

    async fn list(&self, listing: Listing<'_>) -> Result<ListPage, KvError> {
        let stale = self.read_kv().await?;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let namespace = listing.namespace;
        let oldest = state.oldest_visible();
        let run = &mut state.invocations[self.invocation];
        run.seen.listed_from.entry(namespace).or_insert(oldest);
        let may_be_stale = stale && !state.shape.is_plain();
        let from = (namespace, listing.cursor.unwrap_or_default().to_owned());
        let keys = state.kv.range(from..).take_while(|((found, _), _)| *found == namespace);
        let keys: Vec<_> = keys.map(|((_, key), _)| (key.clone(), ())).collect();
        let most = state.shape.page;
        Ok(listing.page(keys, most, |key, ()| {
            let key = key.to_owned();
            let moment = if may_be_stale { stale_moment(state, namespace, &[&key]) } else { None };
            let held = tell(state, self.invocation, namespace, &key, moment)?;
            Some(held.metadata.as_deref().and_then(Metadata::parse))
        }))
    }

    async fn items(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError> {
        self.read_table().await?;
        let state = self.state.borrow();
        let environment = state.environment_of(self.invocation);
        let item = |key: &ItemKey| Some((key.clone(), environment.current(key)?.item.clone()));
        Ok(keys.iter().filter_map(item).collect())
    }

    async fn page(
        &self,
        mut part: Part<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        let (mut claims, mut lags) = (false, false);
        if let Part::Segment { columns, segment, segments } = &mut part {
            // In plain worlds the first segment holds everything.
            if self.state.borrow().shape.is_plain() {
                *segments = 1;
            }
            if segment >= segments {
                return Ok(TablePage::default());
            }
            claims = *columns == ScanColumns::Claims;
            lags = !claims;
        }
        self.read_table().await?;
        // A page that fails is asked for again in the same pass.
        if matches!(part, Part::Segment { segment: 0, .. }) && after.is_none() {
            let mut state = self.state.borrow_mut();
            let run = &mut state.invocations[self.invocation];
            run.passes += 1;
            run.put_back.clear();
        }
        let moment = self.moment_of_the_table(lags);
        let state = self.state.borrow();
        let table = state.environment_of(self.invocation).table.iter();
        let rows = table
            .filter_map(|(key, past)| Some((key, past.at(moment)?.as_ref()?)))
            .filter(|(key, _)| after < Some(*key) && part_has(part, key))
            .filter(|(key, _)| !claims || query_of(key).is_none())
            .map(|(key, image)| {
                let item = if claims { &image.claims } else { &image.item };
                Row { key: key.clone(), bytes: 1, item: Some(item.clone()) }
            });
        Ok(table_page(rows, state.shape.page))
    }
}

impl Clock for Ports {
    fn now(&self) -> SystemTime {
        let since_epoch = Duration::from_secs(crate::world::EPOCH);
        SystemTime::UNIX_EPOCH + since_epoch + self.state.borrow().now()
    }

    fn jitter(&self) -> f64 {
        let mut state = self.state.borrow_mut();
        if state.shape.is_plain() { 0.0 } else { f64::from(state.choices.below(100)) / 100.0 }
    }
}

impl ApiKeyService for Ports {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ApiKeyError> {
        let asked = (cell.to_owned(), account.to_owned());
        self.state.borrow_mut().invocations[self.invocation].without_api_key.insert(asked.clone());
        let (fault, _) = self.enter(Call::ApiKey).await;
        let mut state = self.state.borrow_mut();
        let dead = state.gateway_failure().filter(|_| cell == OTHER_CELL);
        if dead.is_some() {
            state.invocations[self.invocation].failed_services.insert("keys");
        }
        let failed = match fault {
            Fault::None => dead,
            Fault::Fail { why, .. } => Some(why),
            _ => Some(Failure::Transient),
        };
        let cause = || Cause::new("out of order");
        match failed {
            Some(Failure::Refused) => return Err(ApiKeyError::Refused(cause())),
            Some(Failure::NotFound) => return Err(ApiKeyError::NotFound),
            Some(_) => return Err(ApiKeyError::Silent(cause())),
            None => {}
        }
        let environment = state.environment_of(self.invocation);
        if environment.keyless.contains(account) {
            return Err(ApiKeyError::NotFound);
        }
        let key = environment.api_keys.get(account).and_then(|past| past.last().cloned());
        let key = key.ok_or(ApiKeyError::NotFound)?;
        state.invocations[self.invocation].without_api_key.remove(&asked);
        Ok(SecretString::from(key))
    }
}
