//! The services in memory, as one invocation sees them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::ports::{
    ApiKeyError, ApiKeyService, Clock, QueryConfigs, Retry, ScanColumns, Services, SettingsTable,
    TableError, TablePage,
};
use secrecy::SecretString;
use tokio::sync::Notify;

use crate::faults::{Call, Failure, Fault};
use crate::keys::index_of;
use crate::model::Image;
use crate::state::State;

/// Items in a page of the table.
const PAGE: usize = 2;
/// Segments of a scan that hold items. The others are empty and answer at once.
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
    /// Lets time pass, and returns what goes wrong. A call that never returns ends here.
    pub async fn enter(&self, call: Call) -> Fault {
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

    pub async fn crash(&self) -> ! {
        self.crash.notify_one();
        pending().await
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
                page.last_read = page.items.last().map(|(key, _)| key.clone());
                break;
            }
            page.items.push((key.clone(), render(image)));
        }
        page
    }
}

impl Services for Ports {
    type Kv = Self;
    type ApiKeys = Self;
    type Table = Self;
    type Clock = Self;

    fn kv(&self) -> &Self {
        self
    }

    fn api_keys(&self) -> &Self {
        self
    }

    fn table(&self) -> &Self {
        self
    }

    fn clock(&self) -> &Self {
        self
    }
}

impl Clock for Ports {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_183_203) + self.began.elapsed()
    }

    fn jitter(&self) -> f64 {
        let mut state = self.state.borrow_mut();
        if state.shape.small { 0.0 } else { f64::from(state.choices.below(100)) / 100.0 }
    }
}

impl ApiKeyService for Ports {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ApiKeyError> {
        let owner = (cell.to_owned(), account.to_owned());
        self.state.borrow_mut().invocations[self.invocation].unanswered.insert(owner.clone());
        if let Fault::Fail { why, .. } = self.enter(Call::ApiKey).await {
            let reason = "out of order".to_owned();
            let retry = if why == Failure::Refused { Retry::Never } else { Retry::After(None) };
            return Err(ApiKeyError::Unavailable { reason, retry });
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
        part: QueryConfigs<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        self.table_call().await?;
        let pass = |key: &ItemKey| match part {
            QueryConfigs::All(index) => {
                let prefix = format!("INDEX#{}#QUERY#", index.name);
                key.pk == index.account && key.sk.starts_with(&prefix)
            }
            QueryConfigs::Between(first, last) => {
                key.pk == first.pk && first.sk <= key.sk && key.sk <= last.sk
            }
        };
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

    async fn account_items(
        &self,
        account: &str,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        self.table_call().await?;
        let pass = |key: &ItemKey| key.pk == account;
        Ok(self.page(after, pass, |image| image.item.clone()))
    }
}
