//! What one invocation sees of the world. Each page of the table is read by itself, and only a scan of
//! whole items may miss the last seconds.

mod calls;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::kv::{Namespace, StoredValue};
use ecom_settings_exporter::ports::{
    ApiKeyService, Clock, ErrorKind, ScanColumns, Service, ServiceError, TablePage, TablePart,
};
use secrecy::SecretString;
use tokio::sync::Notify;

use crate::checks;
use crate::memory::{Backend, Change, KvFault, KvRequest, Row, kv_error, part_has, table_page};
use crate::world::{Call, EPOCH, Fault, Held, KvKey, OTHER_CELL, State, Step};

/// When a request may land that its client gave up, in seconds: Cloudflare's own time-out is at 100.
const LANDS_AFTER: [u64; 5] = [0, 1, 10, 50, 100];

/// How far behind an eventually consistent read of the table may be.
const TABLE_LAG: Duration = Duration::from_secs(2);

pub struct Ports {
    pub state: Rc<RefCell<State>>,
    pub invocation: usize,
    /// Told when the invocation is to end at once.
    pub crash: Rc<Notify>,
    /// Told that an event happened.
    pub changed: Rc<Notify>,
}

fn key(namespace: Namespace, name: &str) -> KvKey {
    KvKey { namespace, name: name.to_owned() }
}

impl Ports {
    /// Lets time pass, and returns what goes wrong. A call of an invocation that dies before it ends here.
    async fn enter(&self, call: Call) -> Fault {
        let (latency, fault) = {
            let mut state = self.state.borrow_mut();
            let step = state.step;
            let at_call = state.at_call(self.invocation, call);
            if state.step != step {
                self.changed.notify_waiters();
            }
            at_call
        };
        tokio::time::sleep(latency).await;
        if matches!(fault, Fault::Crash { done: false }) {
            self.crash.notify_one();
            pending().await
        }
        fault
    }

    /// Makes a call that changes nothing.
    async fn read(&self, call: Call) -> Result<(), ServiceError> {
        match self.enter(call).await {
            Fault::Of(fault) => fault.end().await,
            _ => Ok(()),
        }
    }

    async fn read_table(&self) -> Result<(), ServiceError> {
        let failed = self.read(Call::Table).await;
        failed.map_err(|error| ServiceError { service: Service::Table, ..error })
    }

    /// Returns what KV tells about a key: what it holds, or held at a moment of the last minute.
    fn tell(&self, state: &mut State, key: &KvKey) -> Option<Rc<Held>> {
        let oldest = state.oldest_visible();
        let State { choices, shape, kv, quiet, .. } = state;
        let spans = kv.get(key).into_iter().flat_map(|past| past.spans().rev());
        let changes: Vec<Step> =
            spans.map(|(step, ..)| step).take_while(|step| *step > oldest).collect();
        let now = kv.get(key).and_then(|past| past.last().cloned()).flatten();
        let mut told = now.clone();
        let may_be_stale = !*quiet && shape.stale_reads > 0 && !changes.is_empty();
        if may_be_stale && choices.one_in(shape.stale_one_in) {
            shape.stale_reads -= 1;
            told = kv[key].at(choices.pick(&changes) - 1).cloned().flatten();
            state.count("stale reads", 1);
        }
        if told != now {
            state.note(|| {
                let told = told.as_ref().map(|held| &held.stored.value);
                format!(
                    "  [{}] gets a stale response about {}: {told:?}",
                    self.invocation, key.name
                )
            });
            let owner = |held: &Option<Rc<Held>>| held.as_ref().map(|held| held.owner.clone());
            // What is read to be nobody's, or another's, is left to a repair.
            state.needs_repair |= now.is_some() && owner(&told) != owner(&now);
        }
        state.invocations[self.invocation].see(key, oldest, told.clone());
        told
    }
}

impl Backend for Ports {
    async fn ask_kv(&self, namespace: Namespace, request: KvRequest<'_>) -> Option<KvFault> {
        let mut changes = Vec::new();
        if let KvRequest::Write(asked) = request {
            let held = |stored: &Option<StoredValue>| stored.clone().map(Held::new);
            let change = |(name, stored): &Change| (key(namespace, name), held(stored));
            changes.extend(asked.iter().map(change));
            checks::request(&mut self.state.borrow_mut(), self.invocation, &changes);
        }
        let call = if changes.is_empty() { Call::KvRead } else { Call::KvWrite };
        let fault = self.enter(call).await;
        let mut state = self.state.borrow_mut();
        if matches!(request, KvRequest::List) {
            let oldest = state.oldest_visible();
            let run = &mut state.invocations[self.invocation];
            run.listed_from.entry(namespace).or_insert(oldest);
        }
        match fault {
            Fault::None => None,
            Fault::Of(fault) => Some(fault),
            // The request is done before the invocation is.
            Fault::Crash { .. } => {
                self.crash.notify_one();
                Some(KvFault::IsDoneAndHangs)
            }
            Fault::Straggles => {
                let after = Duration::from_secs(*state.choices.pick(&LANDS_AFTER));
                let lands = state.now() + after;
                state.stragglers.push((lands, changes));
                Some(KvFault::Fails(kv_error(ErrorKind::TimedOut)))
            }
        }
    }

    fn change(&self, namespace: Namespace, (name, stored): Change) {
        let mut state = self.state.borrow_mut();
        let (key, held) = (key(namespace, &name), stored.map(Held::new));
        checks::effect(&mut state, self.invocation, &key, held.as_ref());
        state.set_held(&key, held);
    }

    fn held(&self, namespace: Namespace, name: &str) -> Option<StoredValue> {
        let held = self.tell(&mut self.state.borrow_mut(), &key(namespace, name));
        held.map(|held| held.stored.clone())
    }

    fn keys_from(&self, namespace: Namespace, first: &str, most: usize) -> Vec<String> {
        let state = self.state.borrow();
        let keys = state.kv.range(key(namespace, first)..).map(|(key, _)| key);
        let keys = keys.take_while(|key| key.namespace == namespace).take(most);
        keys.map(|key| key.name.clone()).collect()
    }

    fn page_keys(&self) -> usize {
        self.state.borrow().shape.page
    }

    async fn items(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, ServiceError> {
        self.read_table().await?;
        let state = self.state.borrow();
        let (_, environment) = state.run(self.invocation);
        let item = |key: &ItemKey| Some((key.clone(), environment.current(key)?.item.clone()));
        Ok(keys.iter().filter_map(item).collect())
    }

    async fn page(
        &self,
        mut part: TablePart<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, ServiceError> {
        let (mut claims, mut lags, mut is_first) = (false, false, false);
        if let TablePart::Segment { columns, segment, segments } = &mut part {
            // In small worlds the first segment holds everything.
            if self.state.borrow().shape.is_small() {
                *segments = 1;
            }
            if segment >= segments {
                return Ok(TablePage::default());
            }
            claims = *columns == ScanColumns::Claims;
            lags = !claims;
            is_first = *segment == 0 && after.is_none();
        }
        self.read_table().await?;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if is_first {
            state.invocations[self.invocation].put_back.clear();
        }
        lags &= !state.quiet && state.shape.stale_reads > 0;
        let moment = match lags && state.choices.below(4) == 1 {
            true => state.step_at(state.now().saturating_sub(TABLE_LAG)).max(state.prepared),
            false => state.step,
        };
        let (_, environment) = state.run(self.invocation);
        let table =
            environment.table.iter().filter(|(key, _)| after < Some(*key) && part_has(part, key));
        let rows = table
            .filter_map(|(key, past)| Some((key, past.at(moment)?.as_ref()?)))
            .filter(|(key, _)| !claims || key.item().is_some_and(|item| item.query.is_none()))
            .map(|(key, image)| {
                let item = if claims { &image.claims } else { &image.item };
                Row { key: key.clone(), bytes: 1, item: Some(item.clone()) }
            });
        Ok(table_page(rows, state.shape.page))
    }
}

impl Clock for Ports {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH) + self.state.borrow().now()
    }

    fn jitter(&self) -> f64 {
        let mut state = self.state.borrow_mut();
        if state.shape.is_small() { 0.0 } else { f64::from(state.choices.below(100)) / 100.0 }
    }
}

impl ApiKeyService for Ports {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ServiceError> {
        let asked = (cell.to_owned(), account.to_owned());
        self.state.borrow_mut().invocations[self.invocation].without_api_key.insert(asked.clone());
        let failed = self.read(Call::ApiKey).await;
        let mut state = self.state.borrow_mut();
        failed.map_err(|error| ServiceError { service: Service::ApiKeys, ..error })?;
        let fails = |kind| ServiceError::new(Service::ApiKeys, kind, "scripted");
        if let Some(dead) = state.dead_gateway().filter(|_| cell == OTHER_CELL) {
            // What a removal writes for an item is rejected then, and its record is exported.
            state.needs_repair |= dead == ErrorKind::NotFound;
            return Err(fails(dead));
        }
        let (_, environment) = state.run(self.invocation);
        let key = environment.api_keys.get(account).and_then(|past| past.last().cloned());
        let key = key.ok_or_else(|| fails(ErrorKind::NotFound))?;
        let run = &mut state.invocations[self.invocation];
        run.without_api_key.remove(&asked);
        run.with_api_key.insert(asked);
        Ok(SecretString::from(key))
    }
}
