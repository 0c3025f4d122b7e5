//! The accounts' API keys. This is the one place that says where an index's API key comes from, and what
//! follows where there is none.
//!
//! | the service says | KV holds settings of this index | then |
//! | --- | --- | --- |
//! | an API key | | that one |
//! | that the account's cell can't be asked | | the item is rejected |
//! | that the account has none, or nothing | with an API key | that API key is used again, with a warning |
//! | that the account has none, or nothing | KV can't be read | unavailable |
//! | that the account has none | no, or without an API key | the item is rejected |
//! | nothing after all tries | no, or without an API key | unavailable |
//!
//! A gateway that is misrouted says of every account that it has none, and a rollback must get through
//! all the same. A reconcile and an explain reuse no API key: KV is not read, and the last two rows apply.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use secrecy::SecretString;
use tokio::time::Instant;
use tracing::warn;

use super::bulk;
use super::exportable::Exportable;
use super::invocation::{Budget, Invocation};
use super::retry::with_retries;
use crate::index::IndexRef;
use crate::item::Rejection;
use crate::ports::{ApiKeyService, ErrorKind, Service, ServiceError, Services};
use crate::text::Chain;

/// How long a batch, a re-export and an explain ask for API keys. Then they may take as long again to read KV for
/// API keys to reuse.
///
/// A rollback can arrive while the batch before it waits for a gateway and for KV that hang. It waits for the rest
/// of that batch, for the stream's window and for its own batch, and is through within a minute.
pub const TIME_FOR_API_KEYS: Duration = Duration::from_secs(10);

/// How long the stream gathers a batch. Its first read runs beside the requests for API keys.
const STREAM_WINDOW: Duration = Duration::from_secs(10);
const _: () = assert!(2 * 2 * TIME_FOR_API_KEYS.as_secs() + STREAM_WINDOW.as_secs() <= 60);

/// How long one API key is asked for: four tries of half a minute, and the back-offs. A gateway that asks for a longer
/// wait does not hold up a reconcile.
const TIME_FOR_ONE: Duration = Duration::from_secs(150);

/// Requests that are under way at the same time: fewer than Lambda's 1,024 file descriptors. The cells share them, so
/// that one that hangs holds up no other.
const REQUESTS: usize = 800;
const REQUESTS_PER_CELL: usize = 100;

/// Cells that are asked at the same time.
const CELLS: usize = 100;
const _: () = assert!(CELLS <= REQUESTS && REQUESTS < 1_024);

/// A reconcile stops asking a cell after this number of accounts in a row for which it gave no answer.
const SILENT_ACCOUNTS: usize = 3;

/// The account whose API key is asked for, and the cell that is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiKeyOwner {
    pub cell: String,
    pub account: String,
}

/// Why an item can't be exported.
#[derive(Debug, Clone, PartialEq)]
pub enum NotExportable {
    Rejected(Rejection),
    Unavailable(ApiKeyUnavailable),
}

impl From<Rejection> for NotExportable {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no API key from cell {cell:?}{}", in_kv(*kv_holds_none, kv.as_ref()))]
pub struct ApiKeyUnavailable {
    pub cell: String,
    /// Whether KV was read, and holds none that could be used again.
    pub kv_holds_none: bool,
    /// Why KV could not be read.
    pub kv: Option<ServiceError>,
    #[source]
    pub service: ServiceError,
}

fn in_kv(holds_none: bool, error: Option<&ServiceError>) -> String {
    match error {
        Some(error) => format!(", and KV can't be read for one to use again ({})", Chain(error)),
        None if holds_none => ", and KV holds none of this index to use again".to_owned(),
        None => String::new(),
    }
}

/// What happens where the service gives no API key for an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The API key in KV's settings of this very index is used again.
    Kv,
    /// KV is what the use case compares: nothing is reused.
    Nothing,
}

/// The API keys that an invocation has asked for. None outlives it, so that a rotated API key is not
/// overwritten with an old one.
pub struct ApiKeys {
    fallback: Fallback,
    time_left: Duration,
    time_left_for_kv: Duration,
    answers: BTreeMap<ApiKeyOwner, Result<SecretString, ServiceError>>,
    /// What KV holds of the indexes for which the service gave none.
    in_kv: BTreeMap<IndexRef, InKv>,
    gateways: RefCell<BTreeMap<String, Gateway>>,
}

/// The API key of an index in KV, if there is one, or why KV could not be read.
type InKv = Result<Option<SecretString>, ServiceError>;

/// How a cell answers. The accounts are numbered as they are asked for.
#[derive(Default)]
struct Gateway {
    accounts: usize,
    /// Those for which it gave no answer.
    without_answer: BTreeSet<usize>,
}

impl Gateway {
    /// Returns whether it gave enough accounts in a row no answer.
    fn is_silent(&self) -> bool {
        let last_of_rows = self.without_answer.iter().skip(SILENT_ACCOUNTS - 1);
        let mut rows = self.without_answer.iter().zip(last_of_rows);
        rows.any(|(first, last)| last - first == SILENT_ACCOUNTS - 1)
    }
}

impl ApiKeys {
    /// Returns API keys that are asked for at most `time` in all.
    pub fn new(fallback: Fallback, time: Duration) -> Self {
        Self {
            fallback,
            time_left: time,
            time_left_for_kv: TIME_FOR_API_KEYS,
            answers: BTreeMap::new(),
            in_kv: BTreeMap::new(),
            gateways: RefCell::default(),
        }
    }

    /// Forgets the answers, because API keys that were asked for minutes ago may have been rotated. Silent
    /// cells stay known.
    pub fn forget_answers(&mut self) {
        self.answers.clear();
    }

    /// Returns the cells that are not asked any more.
    pub fn silent_cells(&self) -> Vec<String> {
        let gateways = self.gateways.borrow();
        gateways.iter().filter(|(_, it)| it.is_silent()).map(|(cell, _)| cell.clone()).collect()
    }

    /// Asks the service for API keys, all at the same time, unless it was asked for them before.
    pub async fn ask<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        mut owners: BTreeSet<ApiKeyOwner>,
    ) {
        owners.retain(|owner| !self.answers.contains_key(owner));
        let owners = Vec::from_iter(owners);
        let by_cell: Vec<_> = owners.chunk_by(|one, next| one.cell == next.cell).collect();
        let per_cell = REQUESTS / by_cell.len().clamp(REQUESTS / REQUESTS_PER_CELL, CELLS);
        let started = Instant::now();
        let deadline = invocation.budget.deadline;
        let until = started.checked_add(self.time_left).map_or(deadline, |end| end.min(deadline));
        let this = &*self;
        let answers = stream::iter(by_cell).map(|owners| {
            let fetches = stream::iter(owners).map(|owner| async move {
                (owner.clone(), this.fetch(invocation, owner, until).await)
            });
            fetches.buffer_unordered(per_cell).collect::<Vec<_>>()
        });
        let answers: Vec<_> = answers.buffer_unordered(CELLS).collect().await;
        self.answers.extend(answers.into_iter().flatten());
        self.time_left = self.time_left.saturating_sub(started.elapsed());
    }

    async fn fetch<S: Services>(
        &self,
        invocation: &Invocation<'_, S>,
        owner: &ApiKeyOwner,
        until: Instant,
    ) -> Result<SecretString, ServiceError> {
        if self.fallback == Fallback::Nothing && self.gateway(&owner.cell).is_silent() {
            return Err(not_asked("the cell is not asked again: it gave no answer before"));
        }
        self.gateway(&owner.cell).accounts += 1;
        let account = self.gateway(&owner.cell).accounts;
        let until = until.min(Instant::now() + TIME_FOR_ONE);
        let fetch = || invocation.services.api_keys().fetch(&owner.cell, &owner.account);
        let mut answer = with_retries(invocation, Service::ApiKeys, until, fetch).await;
        if let Err(error) = &mut answer
            && let ErrorKind::OutOfTime { is_sent } = error.kind
            && (is_sent || self.gateway(&owner.cell).is_silent())
            && Instant::now() < invocation.budget.deadline
        {
            // The gateway had its time, for this account or for others, and the invocation still has some.
            error.kind = ErrorKind::TimedOut;
        }
        if answer.as_ref().is_err_and(is_silence) {
            self.gateway(&owner.cell).without_answer.insert(account);
        }
        answer
    }

    fn gateway(&self, cell: &str) -> RefMut<'_, Gateway> {
        RefMut::map(self.gateways.borrow_mut(), |all| all.entry(cell.to_owned()).or_default())
    }

    /// Finds the API keys that these items take: the service's, or those in KV.
    pub async fn find<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        items: impl Iterator<Item = &Exportable> + Clone,
    ) {
        let owners = items.clone().filter_map(Exportable::owner).cloned().collect();
        self.ask(invocation, owners).await;
        if self.fallback == Fallback::Nothing {
            return;
        }
        let open = items.filter_map(|item| match self.answers.get(item.owner()?)? {
            Ok(_) | Err(ServiceError { kind: ErrorKind::NoUrl, .. }) => None,
            Err(error) => Some((item, error.clone())),
        });
        let open: Vec<(&Exportable, ServiceError)> =
            open.filter(|(item, _)| !self.in_kv.contains_key(&item.item.index)).collect();
        let keys: BTreeSet<&String> = open.iter().flat_map(|(item, _)| &item.keys).collect();
        let started = Instant::now();
        let until = invocation.budget.deadline.min(started + self.time_left_for_kv);
        let budget = Budget { deadline: until, writes_until: until, ..invocation.budget };
        let read = bulk::read_settings(invocation, budget, keys.into_iter().cloned()).await;
        self.time_left_for_kv = self.time_left_for_kv.saturating_sub(started.elapsed());
        for (item, error) in open {
            let api_key = api_key_in(&read, item);
            if matches!(api_key, Ok(Some(_))) {
                warn!(
                    system_account_id = item.item.index.account,
                    index_name = item.item.index.name,
                    cell = item.owner().map(|owner| &owner.cell),
                    error = %Chain(&error),
                    "the API key in KV is used again: the API keys service gives none"
                );
                invocation.count(|stats| stats.api_keys_reused += 1);
            }
            self.in_kv.insert(item.item.index.clone(), api_key);
        }
    }

    /// Returns the API key of an index for which [`Self::find`] has looked.
    pub fn get(
        &self,
        owner: &ApiKeyOwner,
        index: &IndexRef,
    ) -> Result<&SecretString, NotExportable> {
        let service = match self.answers.get(owner) {
            Some(Ok(api_key)) => return Ok(api_key),
            Some(Err(ServiceError { kind: ErrorKind::NoUrl, .. })) => {
                return Err(Rejection::new("cell", "can't be part of a URL").into());
            }
            Some(Err(error)) => error.clone(),
            None => not_asked("it was not asked for"),
        };
        let in_kv = self.in_kv.get(index);
        if let Some(Ok(Some(api_key))) = in_kv {
            return Ok(api_key);
        }
        let kv = in_kv.and_then(|read| read.as_ref().err()).cloned();
        if service.kind == ErrorKind::NotFound && kv.is_none() {
            return Err(Rejection::new("system_account_id", "the account has no API key").into());
        }
        let (cell, kv_holds_none) = (owner.cell.clone(), matches!(in_kv, Some(Ok(None))));
        Err(NotExportable::Unavailable(ApiKeyUnavailable { cell, kv_holds_none, kv, service }))
    }
}

/// Returns whether a cell gave no answer, 5xx, 408 or 429.
fn is_silence(error: &ServiceError) -> bool {
    use ErrorKind::{OutOfTime, RateLimited, TimedOut, Transient};
    matches!(error.kind, Transient | TimedOut | RateLimited | OutOfTime { .. })
}

fn not_asked(reason: &'static str) -> ServiceError {
    ServiceError::new(Service::ApiKeys, ErrorKind::Transient, reason)
}

/// Returns the API key that KV holds of an item's index.
fn api_key_in(read: &bulk::ReadSettings, Exportable { item, keys, .. }: &Exportable) -> InKv {
    let mut errors = Vec::new();
    // The index id first: under a shop id, an older value may be left.
    for held in keys.iter().rev().filter_map(|key| read.get(key)) {
        match held {
            Ok(Some(held)) if held.index == item.index && held.api_key.is_some() => {
                return Ok(held.api_key.clone());
            }
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    // One that another try may help wins over the other.
    let error = errors.into_iter().min_by_key(|error| error.is_refusal());
    error.map_or(Ok(None), |error| Err(error.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{
        Fakes, KvFault, TIME_LEFT, api_keys_error, down, entry, index_item, kv_error,
    };
    use crate::index::ItemRef;
    use crate::kv::Source;
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    const SECOND: Duration = Duration::from_secs(1);

    /// Index `i` of an account in a cell, with the shop id `s`.
    fn index_of(cell: &str, account: &str) -> Exportable {
        let item = ItemRef::from(IndexRef::parse(account, "i").unwrap());
        let (_, content) = index_item("i", &json!({"cell": {"S": cell}, "shop_id": {"S": "s"}}));
        Exportable::decode(&item, &content, &Fakes::new().0.config).unwrap()
    }

    fn value(name: &str, api_key: &Value) -> Value {
        json!({"system_account_id": "a", "index_name": name, "marqo_api_key": api_key})
    }

    /// What is found of index `i` where the service fails like this.
    async fn found(fakes: &Fakes, fallback: Fallback, error: Option<ServiceError>) -> String {
        let tries = if error.as_ref().is_some_and(is_silence) { 4 } else { 1 };
        fakes.api_keys.faults.then(error.iter().cycle().take(tries).cloned());
        let invocation = fakes.invocation(Source::Stream);
        let (index, mut api_keys) = (index_of("c", "a"), ApiKeys::new(fallback, TIME_LEFT));
        // What was found once is not looked for again.
        for _ in 0..2 {
            api_keys.find(&invocation, [&index].into_iter()).await;
        }
        let reused = invocation.stats().api_keys_reused;
        match api_keys.get(index.owner().unwrap(), &index.item.index) {
            Ok(api_key) => format!("{} ({reused} reused)", api_key.expose_secret()),
            Err(NotExportable::Rejected(rejection)) => format!("rejected: {}", rejection.path),
            Err(NotExportable::Unavailable(error)) => {
                format!("unavailable{}", in_kv(error.kv_holds_none, error.kv.as_ref()))
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_an_api_key_comes_from() {
        let (old, none) = (Some(value("i", &json!("old"))), None);
        let unreadable =
            "unavailable, and KV can't be read for one to use again (Cloudflare KV: scripted)";
        let unusable = "unavailable, and KV holds none of this index to use again";
        let account = "rejected: system_account_id";
        let not_found = || Some(api_keys_error(ErrorKind::NotFound));
        let refused = || Some(api_keys_error(ErrorKind::Refused));
        let bad_cell = Some(api_keys_error(ErrorKind::NoUrl));
        let (kv, nothing) = (Fallback::Kv, Fallback::Nothing);
        let refuses = || KvFault::Fails(kv_error(ErrorKind::Refused));
        let refuses_key = KvFault::Fails(kv_error(ErrorKind::RefusedContent));
        let (works, fails) = (vec![], vec![refuses()]);
        let fails_apart = vec![refuses_key.clone(), refuses_key, refuses()];
        for (name, fallback, service, held, kv_does, expected, kv_requests) in [
            ("the service's", kv, None, &old, &works, "k (0 reused)", 0),
            ("a cell that can't be asked", kv, bad_cell, &old, &works, "rejected: cell", 0),
            ("silent, one in KV", kv, Some(down()), &old, &works, "old (1 reused)", 1),
            ("refused, one in KV", kv, refused(), &old, &works, "old (1 reused)", 1),
            ("no API key, one in KV", kv, not_found(), &old, &works, "old (1 reused)", 1),
            ("silent, KV unreadable", kv, Some(down()), &old, &fails, unreadable, 1),
            ("no API key, KV unreadable", kv, not_found(), &old, &fails, unreadable, 1),
            ("silent, a key refused alone", kv, Some(down()), &old, &fails_apart, unreadable, 3),
            ("silent, none in KV", kv, Some(down()), &none, &works, unusable, 1),
            ("refused, none in KV", kv, refused(), &none, &works, unusable, 1),
            ("no API key, none in KV", kv, not_found(), &none, &works, account, 1),
            ("silent, none reused", nothing, Some(down()), &old, &works, "unavailable", 0),
            ("no API key, none reused", nothing, not_found(), &old, &works, account, 0),
        ] {
            let fakes = Fakes::new();
            held.iter().for_each(|value| fakes.kv.hold("a-i", value));
            fakes.kv.faults.then(kv_does.clone());
            assert_eq!(found(&fakes, fallback, service).await, expected, "{name}");
            assert_eq!(fakes.kv.requests.borrow().len(), kv_requests, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kv_that_hangs_is_read_as_long_as_a_gateway_is_asked() {
        let asked_wait = Some(55 * SECOND);
        let limited = ServiceError { asked_wait, ..kv_error(ErrorKind::RateLimited) };
        for fault in [KvFault::Hangs, KvFault::Fails(limited)] {
            let (fakes, began) = (Fakes::new(), Instant::now());
            fakes.kv.faults.then([fault]);
            let mut api_keys = ApiKeys::new(Fallback::Kv, TIME_LEFT);
            let mut invocation = fakes.invocation(Source::Stream);
            invocation.budget.writes_until = began + 60 * SECOND;
            // Each time for the next hundred items of a batch.
            for account in ["a", "b"] {
                fakes.api_keys.faults.then([api_keys_error(ErrorKind::NotFound)]);
                let index = index_of("c", account);
                api_keys.find(&invocation, [&index].into_iter()).await;
                assert!(!has(&api_keys, "c", account));
                assert_eq!(began.elapsed(), TIME_FOR_API_KEYS);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_key_in_kv_is_used_again_where_it_is_of_this_very_index() {
        let (old, older) = (value("i", &json!("old")), value("i", &json!("older")));
        let (null, others) = (value("i", &Value::Null), value("other", &json!("old")));
        let nobodys = json!({"marqo_api_key": "old"});
        for (name, under_index_id, under_shop_id, is_used) in [
            ("of this index", Some(&old), None, true),
            ("under its shop id", None, Some(&old), true),
            ("older under its shop id", Some(&old), Some(&older), true),
            ("another's under its shop id", None, Some(&others), false),
            ("null", Some(&null), None, false),
            ("of another index", Some(&others), None, false),
            ("of nobody", Some(&nobodys), None, false),
        ] {
            let fakes = Fakes::new();
            under_index_id.iter().for_each(|value| fakes.kv.hold("a-i", value));
            under_shop_id.iter().for_each(|value| fakes.kv.hold("s", value));
            let found = found(&fakes, Fallback::Kv, Some(down())).await;
            assert_eq!(found.starts_with("old "), is_used, "{name}");
        }
        for (environment, owner, is_used) in
            [("prod", "i", true), ("prod", "other", false), ("dev", "i", false)]
        {
            let mut fakes = Fakes::new();
            fakes.kv.hold_entry("a-i", &entry(owner, &old));
            fakes.0.config.environment = environment.to_owned();
            let found = found(&fakes, Fallback::Kv, Some(down())).await;
            assert_eq!(found.starts_with("old "), is_used, "of {owner}, read in {environment}");
        }
    }

    /// Asks for the API keys of these accounts, and returns how long that takes.
    async fn ask(fakes: &Fakes, api_keys: &mut ApiKeys, accounts: &[(&str, &str)]) -> Duration {
        let owner = |(cell, account): &(&str, &str)| index_of(cell, account).owner().cloned();
        let owners = accounts.iter().filter_map(owner);
        let (began, mut invocation) = (Instant::now(), fakes.invocation(Source::Stream));
        // No gateway is waited for as long as writes may take.
        invocation.budget.writes_until = began + 60 * SECOND;
        api_keys.ask(&invocation, owners.collect()).await;
        began.elapsed()
    }

    fn has(api_keys: &ApiKeys, cell: &str, account: &str) -> bool {
        let index = index_of(cell, account);
        api_keys.get(index.owner().unwrap(), &index.item.index).is_ok()
    }

    fn delay(fakes: &Fakes, account: &str, time: Duration) {
        fakes.api_keys.delays.borrow_mut().insert(account.to_owned(), time);
    }

    #[tokio::test(start_paused = true)]
    async fn api_keys_are_asked_for_at_the_same_time_and_for_10_s_in_all() {
        let fakes = Fakes::new();
        for (account, seconds) in [("a", 4), ("b", 4), ("c", 4), ("d", 3_600), ("e", 1)] {
            delay(&fakes, account, seconds * SECOND);
        }
        let mut api_keys = ApiKeys::new(Fallback::Kv, TIME_FOR_API_KEYS);
        let elapsed = ask(&fakes, &mut api_keys, &[("x", "a"), ("x", "b"), ("y", "c")]).await;
        assert_eq!(elapsed, 4 * SECOND);
        assert_eq!(ask(&fakes, &mut api_keys, &[("x", "d")]).await, 6 * SECOND);
        assert_eq!(ask(&fakes, &mut api_keys, &[("x", "e")]).await, Duration::ZERO);
        let had = ["a", "b", "d", "e"].map(|account| has(&api_keys, "x", account));
        assert_eq!(had, [true, true, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn neither_an_account_nor_a_cell_that_hangs_holds_up_another() {
        let fakes = Fakes::new();
        let hanging: Vec<String> = (0..150).map(|number| format!("a{number}")).collect();
        hanging.iter().for_each(|account| delay(&fakes, account, TIME_LEFT));
        let healthy: Vec<String> = (0..300).map(|number| format!("b{number}")).collect();
        let accounts = healthy.iter().map(|account| ("c", account.as_str()));
        let dead_cell = hanging.iter().map(|account| ("dead", account.as_str()));
        let accounts: Vec<_> = accounts.chain([("c", "a0")]).chain(dead_cell).collect();
        let mut api_keys = ApiKeys::new(Fallback::Kv, TIME_FOR_API_KEYS);
        assert_eq!(ask(&fakes, &mut api_keys, &accounts).await, TIME_FOR_API_KEYS);
        assert!(healthy.iter().all(|account| has(&api_keys, "c", account)));
        assert!(!has(&api_keys, "c", "a0"));
        assert_eq!(fakes.api_keys.requests.borrow().len(), 301 + REQUESTS_PER_CELL);
        // The cell had its time, so those for which there was none left hold up no shard.
        for account in &hanging {
            let index = index_of("dead", account);
            let found = api_keys.get(index.owner().unwrap(), &index.item.index);
            let Err(NotExportable::Unavailable(error)) = found else { panic!("{account}") };
            assert_eq!(error.service.kind, ErrorKind::TimedOut, "{account}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_800_requests_are_under_way_and_100_to_one_cell() {
        let names: Vec<String> = (0..150).map(|number| format!("n{number}")).collect();
        for (cells, accounts, at_once) in [(1, 150, 100), (30, 100, 780), (150, 9, 800)] {
            let of_cell = |cell| names[..accounts].iter().map(move |it| (cell, it.as_str()));
            let owners: Vec<_> = names[..cells].iter().flat_map(|it| of_cell(&**it)).collect();
            let (hanging, fakes) = (Fakes::new(), Fakes::new());
            names.iter().for_each(|account| delay(&hanging, account, TIME_LEFT));
            ask(&hanging, &mut ApiKeys::new(Fallback::Kv, SECOND), &owners).await;
            assert_eq!(hanging.api_keys.requests.borrow().len(), at_once, "{cells} x {accounts}");
            let mut api_keys = ApiKeys::new(Fallback::Kv, SECOND);
            ask(&fakes, &mut api_keys, &owners).await;
            assert!(owners.iter().all(|(cell, account)| has(&api_keys, cell, account)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_is_asked_for_once_until_the_answers_are_forgotten() {
        let fakes = Fakes::new();
        let mut api_keys = ApiKeys::new(Fallback::Kv, TIME_LEFT);
        assert!(!has(&api_keys, "c", "a"), "nobody asked");
        for requests in [1, 2] {
            ask(&fakes, &mut api_keys, &[("c", "a")]).await;
            ask(&fakes, &mut api_keys, &[("c", "a")]).await;
            assert_eq!(fakes.api_keys.requests.borrow().len(), requests);
            api_keys.forget_answers();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_in_a_row_are_neighbours_by_name_however_long_each_takes() {
        let fakes = Fakes::new();
        fakes.api_keys.faults.then([down()]);
        fakes.api_keys.faults.then_nothing(1);
        fakes.api_keys.faults.then((0..11).map(|_| down()));
        let mut api_keys = ApiKeys::new(Fallback::Nothing, Duration::MAX);
        ask(&fakes, &mut api_keys, &[("x", "a"), ("x", "b"), ("x", "c"), ("x", "d")]).await;
        let had = ["a", "b", "c", "d"].map(|account| has(&api_keys, "x", account));
        assert_eq!(had, [false, true, false, false]);
        assert!(api_keys.silent_cells().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_asks_for_a_long_wait_holds_up_no_reconcile() {
        let fakes = Fakes::new();
        let asked_wait = Some(290 * SECOND);
        fakes
            .api_keys
            .faults
            .then([ServiceError { asked_wait, ..api_keys_error(ErrorKind::RateLimited) }]);
        let mut api_keys = ApiKeys::new(Fallback::Nothing, Duration::MAX);
        assert_eq!(ask(&fakes, &mut api_keys, &[("x", "a")]).await, Duration::ZERO);
        assert!(!has(&api_keys, "x", "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cell_that_gave_three_accounts_in_a_row_no_answer_is_not_asked_by_a_reconcile() {
        // Before, `s` is an account for which the gateway is down, `b` one for which it is too busy, `h` one for which
        // it hangs, `u` one whose API key is unusable, and `n` one that has none.
        let answers = |account| match account {
            's' => vec![down(); 4],
            'b' => vec![api_keys_error(ErrorKind::RateLimited); 4],
            'u' => vec![api_keys_error(ErrorKind::Unusable); 4],
            'h' => vec![],
            _ => vec![api_keys_error(ErrorKind::NotFound)],
        };
        for (name, fallback, before, is_asked) in [
            ("three silent", Fallback::Nothing, "sss", false),
            ("three too busy", Fallback::Nothing, "bbb", false),
            ("three that hang", Fallback::Nothing, "hhh", false),
            ("three unusable", Fallback::Nothing, "uuu", true),
            ("two silent", Fallback::Nothing, "ss", true),
            ("an answer between", Fallback::Nothing, "ssnss", true),
            ("three silent after an answer", Fallback::Nothing, "nsss", false),
            ("no reconcile", Fallback::Kv, "sss", true),
        ] {
            let fakes = Fakes::new();
            fakes.api_keys.faults.then(before.chars().flat_map(answers));
            let mut api_keys = ApiKeys::new(fallback, Duration::MAX);
            for (number, answer) in before.chars().enumerate() {
                let account = number.to_string();
                if answer == 'h' {
                    delay(&fakes, &account, TIME_LEFT);
                }
                ask(&fakes, &mut api_keys, &[("c", &account)]).await;
            }
            api_keys.forget_answers();
            ask(&fakes, &mut api_keys, &[("c", "a"), ("other", "b")]).await;
            assert_eq!(has(&api_keys, "c", "a"), is_asked, "{name}");
            assert!(has(&api_keys, "other", "b"), "{name}");
            let is_silent = api_keys.silent_cells() == ["c"];
            assert_eq!(
                is_silent,
                ["sss", "bbb", "hhh"].iter().any(|three| before.ends_with(three)),
                "{name}"
            );
        }
    }
}
