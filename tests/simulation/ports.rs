//! The services, in memory: what one invocation sees of the world.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ecom_settings_exporter::entry::{Pair, Stored};
use ecom_settings_exporter::ports::{
    ApiKeyError, ApiKeyService, BulkReply, KvError, KvStore, ListPage, Namespace, ScanColumns,
    Services, SettingsTable, TableError, TablePage, World,
};
use ecom_settings_exporter::record::{IndexRef, ItemKey};
use secrecy::SecretString;
use serde_dynamo::Item;
use tokio::sync::Notify;

use crate::checks;
use crate::faults::{Call, Failure, Fault};
use crate::model::Image;
use crate::state::{Held, State, index_of};

/// Items in a page of the table.
const PAGE: usize = 2;
/// Segments of a pass that hold items; the others are empty and answer at once.
const FULL_SEGMENTS: u32 = 3;

#[derive(Clone)]
pub struct Ports {
    pub state: Rc<RefCell<State>>,
    pub invocation: usize,
    /// Told when the invocation is to end at once.
    pub crash: Rc<Notify>,
    /// Told that an event happened.
    pub changed: Rc<Notify>,
    pub began: tokio::time::Instant,
}

impl Ports {
    /// Lets time pass and says what goes wrong; calls that never return end in here.
    async fn enter(&self, call: Call) -> Fault {
        let (latency, fault) = {
            let mut state = self.state.borrow_mut();
            let step = state.step;
            let answer = state.at_call(self.invocation, call);
            if state.step != step {
                self.changed.notify_waiters();
            }
            answer
        };
        tokio::time::sleep(latency).await;
        match fault {
            Fault::Crash { done: false } => self.crash().await,
            Fault::Hang { done: false } => pending().await,
            fault => fault,
        }
    }

    async fn crash(&self) -> ! {
        self.crash.notify_one();
        pending().await
    }

    /// Carries out a bulk request on the keys that the fault leaves it.
    async fn bulk(
        &self,
        namespace: Namespace,
        changes: Vec<(String, Option<Rc<Held>>)>,
    ) -> Result<BulkReply, KvError> {
        {
            let mut state = self.state.borrow_mut();
            checks::request(&mut state, self.invocation, namespace, &changes);
        }
        let fault = self.enter(Call::KvWrite).await;
        let done = |at: usize| match fault {
            Fault::None | Fault::Crash { .. } | Fault::Hang { .. } => true,
            Fault::Fail { done, .. } => done,
            Fault::Half { .. } => at % 2 == 0,
            Fault::Unsuccessful { all, done } => done || !(all || at % 2 == 0),
            Fault::Late => false,
        };
        let mut unsuccessful = Vec::new();
        let mut late = Vec::new();
        for (at, (key, held)) in changes.into_iter().enumerate() {
            if let Fault::Unsuccessful { all, .. } = fault
                && (all || at % 2 == 0)
            {
                unsuccessful.push(key.clone());
            }
            if done(at) {
                let mut state = self.state.borrow_mut();
                checks::effect(&mut state, self.invocation, namespace, &key, held.as_ref());
                state.set_held(namespace, &key, held);
            } else {
                late.push((namespace, key, held));
            }
        }
        match fault {
            Fault::Late => {
                self.state.borrow_mut().late.push(late);
                Err(failure(Failure::TooMuch))
            }
            Fault::Crash { .. } => self.crash().await,
            Fault::Hang { .. } => pending().await,
            Fault::Fail { why, .. } | Fault::Half { why } => Err(failure(why)),
            Fault::None | Fault::Unsuccessful { .. } => Ok(BulkReply { unsuccessful }),
        }
    }

    async fn table_call(&self) -> Result<(), TableError> {
        self.state.borrow_mut().invocations[self.invocation].table_calls += 1;
        match self.enter(Call::Table).await {
            Fault::None => Ok(()),
            _ => Err(TableError { reason: "throttled".to_owned() }),
        }
    }

    /// A page of the items that pass, after `after`.
    fn page(
        &self,
        after: Option<&ItemKey>,
        pass: impl Fn(&ItemKey) -> bool,
        render: impl Fn(&Image) -> Item,
    ) -> TablePage {
        let state = self.state.borrow();
        let limit = if state.shape.small { usize::MAX } else { PAGE };
        let mut page = TablePage::default();
        for (key, past) in &state.table {
            let Some(image) = past.last().and_then(Option::as_ref) else { continue };
            if after.is_some_and(|after| key <= after) || !pass(key) {
                continue;
            }
            if page.items.len() == limit {
                page.next = page.items.last().map(|(key, _)| key.clone());
                break;
            }
            page.items.push((key.clone(), render(image)));
        }
        page
    }
}

fn failure(why: Failure) -> KvError {
    let reason = format!("{why:?}");
    match why {
        Failure::Transient => KvError::Transient { reason, retry_after: None },
        Failure::RateLimited => {
            KvError::Transient { reason, retry_after: Some(Duration::from_secs(9)) }
        }
        Failure::TooMuch => KvError::TooMuch { reason },
        Failure::Refused => KvError::Refused { reason },
        Failure::Auth => KvError::AuthRejected { reason },
        Failure::NoToken => KvError::NoToken { reason },
    }
}

impl Services for Ports {
    type Kv = Self;
    type Keys = Self;
    type Table = Self;
    type World = Self;

    fn kv(&self) -> &Self {
        self
    }

    fn api_keys(&self) -> &Self {
        self
    }

    fn table(&self) -> &Self {
        self
    }

    fn world(&self) -> &Self {
        self
    }
}

impl World for Ports {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_183_203) + self.began.elapsed()
    }

    fn chance(&self) -> f64 {
        let mut state = self.state.borrow_mut();
        if state.shape.small { 0.0 } else { f64::from(state.choices.below(100)) / 100.0 }
    }
}

impl KvStore for Ports {
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError> {
        let changes = pairs.iter().map(|Pair { key, entry }| {
            let Stored { value, metadata_json } = entry.to_stored();
            (key.clone(), Some(Held::new(namespace, value, metadata_json)))
        });
        self.bulk(namespace, changes.collect()).await
    }

    async fn delete(&self, namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError> {
        self.bulk(namespace, keys.iter().map(|key| (key.clone(), None)).collect()).await
    }

    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, Stored>, KvError> {
        self.state.borrow_mut().invocations[self.invocation].kv_reads += 1;
        if let Fault::Fail { why, .. } = self.enter(Call::KvRead).await {
            return Err(failure(why));
        }
        let state = self.state.borrow();
        let found = keys.iter().filter_map(|key| {
            let held = state.held(namespace, key)?;
            let (value, metadata_json) = (held.value.clone(), held.metadata.clone());
            Some((key.clone(), Stored { value, metadata_json }))
        });
        Ok(found.collect())
    }

    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError> {
        if let Fault::Fail { why, .. } = self.enter(Call::KvRead).await {
            return Err(failure(why));
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        // The last reconcile of a history finds it at rest, and listings up to date.
        let stale = state.shape.late && !state.quiet;
        let mut page = ListPage::default();
        for ((found, key), past) in &state.kv {
            let old = stale && state.choices.below(8) == 1;
            let mut spans = past.spans().rev();
            let held = if old { spans.nth(1).or(past.spans().next()) } else { spans.next() };
            let Some((_, _, Some(held))) = held else { continue };
            let after = cursor.is_none_or(|cursor| key.as_str() > cursor);
            if *found != namespace || !after || !key.starts_with(prefix) {
                continue;
            }
            if page.keys.len() == PAGE {
                page.cursor = page.keys.last().map(|(key, _)| key.clone());
                break;
            }
            let metadata = held.metadata.as_deref();
            page.keys
                .push((key.clone(), metadata.and_then(|json| serde_json::from_str(json).ok())));
        }
        Ok(page)
    }
}

impl ApiKeyService for Ports {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ApiKeyError> {
        let owner = (cell.to_owned(), account.to_owned());
        self.state.borrow_mut().invocations[self.invocation].unanswered.insert(owner.clone());
        if let Fault::Fail { why, .. } = self.enter(Call::ApiKey).await {
            let reason = "out of order".to_owned();
            let retry = why != Failure::Refused;
            return Err(ApiKeyError::Unavailable { reason, retry, retry_after: None });
        }
        let mut state = self.state.borrow_mut();
        state.invocations[self.invocation].unanswered.remove(&owner);
        if state.keyless.contains(account) {
            return Err(ApiKeyError::NotFound);
        }
        let key = state.api_keys.get(account).and_then(|past| past.last().cloned());
        key.map(SecretString::from).ok_or(ApiKeyError::NotFound)
    }
}

impl SettingsTable for Ports {
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError> {
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.table_call().await?;
        let state = self.state.borrow();
        let found =
            keys.iter().filter_map(|key| Some((key.clone(), state.current(key)?.item.clone())));
        Ok(found.collect())
    }

    async fn query_configs(
        &self,
        index: &IndexRef,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        self.table_call().await?;
        let prefix = format!("INDEX#{}#QUERY#", index.index);
        let pass = |key: &ItemKey| key.pk == index.account && key.sk.starts_with(&prefix);
        Ok(self.page(after, pass, |image| image.item.clone()))
    }

    async fn scan(
        &self,
        columns: ScanColumns,
        segment: u32,
        segments: u32,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        let full = if self.state.borrow().shape.small { 1 } else { FULL_SEGMENTS.min(segments) };
        if segment >= full {
            return Ok(TablePage::default());
        }
        if segment == 0 && after.is_none() {
            self.state.borrow_mut().invocations[self.invocation].passes += 1;
        }
        self.table_call().await?;
        let pass = |key: &ItemKey| {
            let own = key.pk.bytes().chain(key.sk.bytes()).map(u32::from).sum::<u32>() % full;
            own == segment && (columns == ScanColumns::All || index_of(key).is_some())
        };
        Ok(self.page(after, pass, |image| match columns {
            ScanColumns::All => image.item.clone(),
            ScanColumns::Claims => image.claims.clone(),
        }))
    }

    async fn account(
        &self,
        account: &str,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        self.table_call().await?;
        let pass = |key: &ItemKey| key.pk == account && key.sk.starts_with("INDEX#");
        Ok(self.page(after, pass, |image| image.item.clone()))
    }
}
