//! The one place that says where an index's API key comes from, and what it means if there is none.
//!
//! | the service says | KV holds settings of this index | then |
//! | --- | --- | --- |
//! | an API key | | that one |
//! | the account's name or cell can't be asked for | | the item is rejected |
//! | nothing after all tries, or that the account has none | with an API key | that one is used again, with a warning |
//! | nothing after all tries, or that the account has none | KV can't be read | unavailable for now |
//! | that the account has none | without one, or nothing | the item is rejected |
//! | nothing after all tries | without one, or nothing | unavailable for now |
//!
//! A gateway that is misrouted says of every account that it has none, and a rollback must get through
//! all the same. Where nothing is reused, KV is not looked into, and the last two rows apply.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::Instant;
use tracing::warn;

use super::asking::{Answers, Asking, Patience, Reuse, TIME_FOR_ONE_TRY};
use super::{ApiKeyUnavailable, Exportable, NotExportable, WhyNoApiKey};
use crate::export::bulk;
use crate::export::invocation::Invocation;
use crate::index::IndexRef;
use crate::item::Rejection;
use crate::kv::StoredSettings;
use crate::ports::{ApiKeyError, Cause, KvError, Namespace, Services};

/// The API keys that an invocation has asked for. None outlives it, so that a rotated key is not
/// overwritten with an old one.
#[derive(Debug)]
pub struct ApiKeys {
    pub(super) patience: Patience,
    reuse: Reuse,
    answers: Answers,
    /// What KV holds of the indexes for which the service gave none, where it can be read.
    stored: BTreeMap<IndexRef, Result<Option<SecretString>, KvError>>,
    asked_for: Duration,
    /// How much longer each cell is waited for, where that is told by the cell.
    time_left: BTreeMap<String, Duration>,
    /// Cells that did not give an API key that was asked for.
    failed_cells: BTreeSet<String>,
}

impl ApiKeys {
    pub fn new(patience: Patience, reuse: Reuse) -> Self {
        Self {
            patience,
            reuse,
            answers: Answers::new(),
            stored: BTreeMap::new(),
            asked_for: Duration::ZERO,
            time_left: BTreeMap::new(),
            failed_cells: BTreeSet::new(),
        }
    }

    /// Waits for so long in all from now on, what was waited before included.
    pub fn wait_in_all(&mut self, time: Duration) {
        self.patience = Patience::InAll(time);
    }

    pub fn answers(&self) -> usize {
        self.answers.len()
    }

    /// A set that knows which cells give nothing, but no answers: they take memory, and API keys that
    /// were asked for minutes ago may have been rotated.
    pub fn renewed(&self) -> Self {
        Self {
            time_left: self.time_left.clone(),
            failed_cells: self.failed_cells.clone(),
            ..Self::new(self.patience, self.reuse)
        }
    }

    pub fn failed_cells(&self) -> &BTreeSet<String> {
        &self.failed_cells
    }

    pub fn extend(&mut self, answers: Answers) {
        for (owner, answer) in answers {
            if matches!(answer, Err(ApiKeyError::Silent(_) | ApiKeyError::Refused(_))) {
                self.failed_cells.insert(owner.cell.clone());
            }
            self.answers.insert(owner, answer);
        }
    }

    pub fn note_end(&mut self, asking: &Asking<'_>) {
        self.asked_for += asking.took();
        self.time_left.extend(asking.time_left());
    }

    /// Asks for the API keys of these indexes that have not been asked for: the service first, then
    /// KV where one may be used again.
    pub async fn ask<'s, S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        indexes: impl IntoIterator<Item = &'s Exportable> + Clone,
    ) {
        self.ask_service(invocation, indexes.clone()).await;
        self.look_into_kv(invocation, indexes).await;
    }

    async fn ask_service<'s, S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        indexes: impl IntoIterator<Item = &'s Exportable>,
    ) {
        let mut owners = BTreeMap::new();
        for Exportable { owner, .. } in indexes {
            if self.answers.contains_key(owner) {
                continue;
            }
            match self.time_for(&owner.cell) {
                Some(time) => drop(owners.insert(owner.clone(), time)),
                None => drop(self.answers.insert(owner.clone(), Err(quiet_cell_error()))),
            }
        }
        if !owners.is_empty() {
            let mut asking = self.start(invocation, owners);
            self.extend(asking.rest().await);
            self.note_end(&asking);
        }
    }

    /// How long a cell may be asked; `None` if it is not asked again.
    fn time_for(&self, cell: &str) -> Option<Duration> {
        match self.patience {
            Patience::InAll(time) => {
                Some(time.saturating_sub(self.asked_for).max(TIME_FOR_ONE_TRY))
            }
            Patience::WhileTheCellAnswers(time) => {
                let left = self.time_left.get(cell).copied().unwrap_or(time);
                (left >= TIME_FOR_ONE_TRY).then_some(left)
            }
        }
    }

    /// Looks into KV for the API keys of those indexes for which the service gives none, if they may
    /// be used again: a change of settings still gets through.
    pub async fn look_into_kv<'s, S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        indexes: impl IntoIterator<Item = &'s Exportable>,
    ) {
        if self.reuse == Reuse::Never {
            return;
        }
        let lacks_one = |index: &&Exportable| {
            let api_key = self.resolve(index);
            matches!(api_key, Err(NotExportable::Unavailable(error)) if error.is_preliminary())
        };
        let lacking: Vec<&Exportable> = indexes.into_iter().filter(lacks_one).collect();
        if lacking.is_empty() {
            return;
        }
        // A batch's writes wait for it while it may write; after that, settling goes on to the deadline.
        let may_write = Instant::now() < invocation.writes_until;
        let until = if may_write { invocation.writes_until } else { invocation.deadline };
        let keys: BTreeSet<String> =
            lacking.iter().flat_map(|index| index.settings.kv_keys()).collect();
        let keys = keys.into_iter().collect();
        let (values, failures) =
            bulk::read_until(invocation, Namespace::Settings, keys, until).await;
        let environment = &invocation.config.environment;
        for Exportable { settings, owner } in lacking {
            // The index id first: the shop id's value may be older, or another index'.
            let keys: Vec<String> = settings.kv_keys().into_iter().rev().collect();
            let api_key = keys.iter().find_map(|key| {
                let value = values.get(key).filter(|value| value.counts_for(environment))?;
                let stored = StoredSettings::parse(&value.value)?;
                stored.api_key.filter(|_| stored.index == settings.index)
            });
            let unreadable = keys.iter().find_map(|key| failures.get(key));
            let stored = match (api_key, unreadable) {
                (Some(api_key), _) => {
                    warn!(
                        system_account_id = settings.index.account,
                        index_name = settings.index.name,
                        cell = owner.cell,
                        "the API key is unavailable: the one in KV is used again"
                    );
                    invocation.count(|stats| stats.api_keys_reused += 1);
                    Ok(Some(api_key))
                }
                (None, Some(error)) => Err(error.clone()),
                (None, None) => Ok(None),
            };
            self.stored.insert(settings.index.clone(), stored);
        }
    }

    pub fn resolve(
        &self,
        Exportable { settings, owner }: &Exportable,
    ) -> Result<&SecretString, NotExportable> {
        let unavailable = |why| {
            let cell = owner.cell.clone();
            Err(NotExportable::Unavailable(ApiKeyUnavailable { cell, why }))
        };
        let rejected = |path: &str, reason: &'static str| {
            Err(NotExportable::Rejected(Rejection::new(path, reason)))
        };
        let service = match self.answers.get(owner) {
            None => return unavailable(WhyNoApiKey::NotAsked),
            Some(Ok(api_key)) => return Ok(api_key),
            Some(Err(ApiKeyError::BadName { path })) => {
                return rejected(path, "can't be part of a URL");
            }
            Some(Err(error)) => error.clone(),
        };
        match (self.stored.get(&settings.index), self.reuse, service) {
            (Some(Ok(Some(api_key))), ..) => Ok(api_key),
            (Some(Err(kv)), _, service) => {
                unavailable(WhyNoApiKey::KvUnreadable { service, kv: kv.clone() })
            }
            (None, Reuse::FromKv, service) => unavailable(WhyNoApiKey::Service(service)),
            (_, _, ApiKeyError::NotFound) => {
                rejected("system_account_id", "the account has no API key")
            }
            (Some(Ok(None)), _, service) => unavailable(WhyNoApiKey::NotInKv(service)),
            (None, Reuse::Never, service) => unavailable(WhyNoApiKey::Service(service)),
        }
    }
}

fn quiet_cell_error() -> ApiKeyError {
    ApiKeyError::Refused(Cause::new("the cell's gateway has given nothing in this run"))
}

#[cfg(test)]
mod tests {
    use super::super::asking::BATCH_TIME_FOR_API_KEYS;
    use super::*;
    use crate::export::fakes::{Fakes, KvFault, batch_api_keys, down};
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};
    use tokio::time::Instant;

    const SECOND: Duration = Duration::from_secs(1);

    /// As a reconcile asks.
    fn for_comparison() -> ApiKeys {
        let patience = Patience::WhileTheCellAnswers(BATCH_TIME_FOR_API_KEYS);
        ApiKeys::new(patience, Reuse::Never)
    }

    /// What is known of index `i`, under the keys `s` and `a-i`, once it was asked for.
    async fn resolved(fakes: &Fakes, mut api_keys: ApiKeys) -> Result<String, String> {
        let invocation = fakes.invocation();
        let index = index_i(fakes);
        api_keys.ask(&invocation, [&index]).await;
        let reused = invocation.stats().api_keys_reused;
        match api_keys.resolve(&index) {
            Ok(api_key) if reused > 0 => Ok(format!("{} again", api_key.expose_secret())),
            Ok(api_key) => Ok(api_key.expose_secret().to_owned()),
            Err(NotExportable::Rejected(rejection)) => Err(format!("rejected: {}", rejection.path)),
            Err(NotExportable::Unavailable(ApiKeyUnavailable { why, .. })) => Err(match why {
                WhyNoApiKey::NotAsked => "not asked",
                WhyNoApiKey::Service(_) => "not looked up",
                WhyNoApiKey::NotInKv(_) => "not in KV",
                WhyNoApiKey::KvUnreadable { .. } => "KV can't be read",
            }
            .to_owned()),
        }
    }

    fn index_i(fakes: &Fakes) -> Exportable {
        fakes.exportable("i", &json!({"shop_id": {"S": "s"}}))
    }

    /// Index `i` of another account.
    fn index_of(fakes: &Fakes, account: &str) -> Exportable {
        let mut index = index_i(fakes);
        index.settings.index.account = account.to_owned();
        index.owner.account = account.to_owned();
        index
    }

    /// A gateway that is down for all four tries.
    fn without_gateway() -> Fakes {
        let fakes = Fakes::new();
        fakes.api_keys.faults.then([down(), down(), down(), down()]);
        fakes
    }

    /// A gateway that says of every account that it has no API key.
    fn misrouted() -> Fakes {
        let fakes = Fakes::new();
        fakes.api_keys.faults.then([ApiKeyError::NotFound]);
        fakes
    }

    /// Both, with what is said where KV holds none.
    fn without_api_keys() -> [(Fakes, &'static str); 2] {
        [(without_gateway(), "not in KV"), (misrouted(), "rejected: system_account_id")]
    }

    fn value(index_name: &str, api_key: &Value) -> Value {
        json!({"system_account_id": "a", "index_name": index_name, "marqo_api_key": api_key})
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_key_from_the_service_is_that_one_whatever_kv_holds() {
        let fakes = Fakes::new();
        fakes.kv.hold("a-i", &value("i", &json!("old")));
        assert_eq!(resolved(&fakes, batch_api_keys()).await, Ok("k".into()));
        assert!(fakes.kv.requests.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_or_a_cell_that_cannot_be_asked_for_is_rejected() {
        let fakes = Fakes::new();
        fakes.kv.hold("a-i", &value("i", &json!("old")));
        fakes.api_keys.faults.then([ApiKeyError::BadName { path: "cell" }]);
        assert_eq!(resolved(&fakes, batch_api_keys()).await, Err("rejected: cell".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_service_gives_none_the_one_in_kv_is_used_again() {
        for key in ["a-i", "s"] {
            for (fakes, _) in without_api_keys() {
                fakes.kv.hold(key, &value("i", &json!("old")));
                let reused = resolved(&fakes, batch_api_keys()).await;
                assert_eq!(reused, Ok("old again".into()), "{key}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn kv_is_looked_into_even_after_the_time_in_which_a_batch_writes() {
        let fakes = without_gateway();
        fakes.kv.hold("a-i", &value("i", &json!("old")));
        let invocation = fakes.invocation().writing_for(Duration::ZERO);
        let (mut api_keys, index) = (batch_api_keys(), index_i(&fakes));
        api_keys.ask(&invocation, [&index]).await;
        assert_eq!(api_keys.resolve(&index).unwrap().expose_secret(), "old");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_in_kv_the_one_under_the_index_id_is_used_again() {
        let fakes = without_gateway();
        fakes.kv.hold("s", &value("i", &json!("older")));
        fakes.kv.hold("a-i", &value("i", &json!("old")));
        assert_eq!(resolved(&fakes, batch_api_keys()).await, Ok("old again".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_usable_one_in_kv_it_is_unavailable_or_rejected_where_the_account_has_none() {
        let unusable = [
            value("i", &Value::Null),
            value("i", &json!("")),
            value("i", &json!(7)),
            value("another", &json!("old")),
            json!({"system_account_id": "b", "index_name": "i", "marqo_api_key": "old"}),
            json!({"marqo_api_key": "old"}),
        ];
        for held in [None].into_iter().chain(unusable.map(Some)) {
            for (fakes, expected) in without_api_keys() {
                if let Some(held) = &held {
                    fakes.kv.hold("s", held);
                }
                let resolved = resolved(&fakes, batch_api_keys()).await;
                assert_eq!(resolved, Err(expected.to_owned()), "{held:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_kv_cannot_be_read_it_is_unavailable() {
        for (fakes, _) in without_api_keys() {
            fakes.kv.hold("a-i", &value("i", &json!("old")));
            fakes.kv.faults.then([KvFault::Fails(KvError::Refused(Cause::new("scripted")))]);
            let unavailable = Err("KV can't be read".to_owned());
            assert_eq!(resolved(&fakes, batch_api_keys()).await, unavailable);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_is_used_again_kv_is_not_looked_into() {
        for (fakes, expected) in
            [(without_gateway(), "not looked up"), (misrouted(), "rejected: system_account_id")]
        {
            fakes.kv.hold("a-i", &value("i", &json!("old")));
            assert_eq!(resolved(&fakes, for_comparison()).await, Err(expected.to_owned()));
            assert!(fakes.kv.requests.borrow().is_empty());
        }
    }

    #[test]
    fn late_records_are_parked_unless_kv_may_yet_give_the_api_key() {
        let parks = |why| ApiKeyUnavailable { cell: "c".into(), why }.parks_late_records();
        let unreadable = |service| WhyNoApiKey::KvUnreadable { service, kv: KvError::OutOfTime };
        assert!(parks(WhyNoApiKey::NotInKv(down())));
        assert!(parks(unreadable(ApiKeyError::NotFound)));
        assert!(!parks(unreadable(down())));
        assert!(!parks(WhyNoApiKey::NotAsked) && !parks(WhyNoApiKey::Service(down())));
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_is_asked_for_once_until_the_answers_are_forgotten() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation();
        let indexes = ["i", "j"].map(|name| fakes.exportable(name, &json!({})));
        let mut api_keys = batch_api_keys();
        let unavailable = api_keys.resolve(&indexes[0]).err();
        assert!(matches!(
            unavailable,
            Some(NotExportable::Unavailable(ApiKeyUnavailable { why: WhyNoApiKey::NotAsked, .. }))
        ));
        api_keys.ask(&invocation, &indexes).await;
        api_keys.ask(&invocation, &indexes).await;
        assert_eq!(invocation.stats().api_keys_requests, 1);
        assert!(indexes.iter().all(|index| api_keys.resolve(index).is_ok()));
        api_keys = api_keys.renewed();
        api_keys.ask(&invocation, &indexes).await;
        assert_eq!(invocation.stats().api_keys_requests, 2);
    }

    /// How long it takes to ask for the API keys of these accounts of one cell.
    async fn time_to_ask(fakes: &Fakes, api_keys: &mut ApiKeys, accounts: &[&str]) -> Duration {
        let indexes: Vec<_> = accounts.iter().map(|account| index_of(fakes, account)).collect();
        let began = Instant::now();
        api_keys.ask(&fakes.invocation(), &indexes).await;
        began.elapsed()
    }

    /// Services whose answers for these accounts take so many seconds.
    fn with_delays(delays: impl IntoIterator<Item = (&'static str, u32)>) -> Fakes {
        let fakes = Fakes::new();
        let delays = delays.into_iter().map(|(account, n)| (account.to_owned(), n * SECOND));
        fakes.api_keys.delays.borrow_mut().extend(delays);
        fakes
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_in_all_is_waited_once_and_then_there_is_one_try_each() {
        let fakes = with_delays([("a", 3_600), ("b", 3_600), ("c", 1)]);
        let mut api_keys = batch_api_keys();
        assert_eq!(time_to_ask(&fakes, &mut api_keys, &["a"]).await, 20 * SECOND);
        assert_eq!(time_to_ask(&fakes, &mut api_keys, &["b"]).await, 2 * SECOND);
        assert_eq!(time_to_ask(&fakes, &mut api_keys, &["c"]).await, SECOND);
        assert!(api_keys.resolve(&index_of(&fakes, "c")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_cell_is_waited_for_as_long_as_it_answers() {
        let fakes = Fakes::new();
        let accounts: Vec<String> = (0..450).map(|number| format!("a{number}")).collect();
        let delays = accounts.iter().map(|account| (account.clone(), 15 * SECOND));
        fakes.api_keys.delays.borrow_mut().extend(delays);
        let accounts: Vec<&str> = accounts.iter().map(String::as_str).collect();
        let mut api_keys = for_comparison();
        // 200 at a time.
        assert_eq!(time_to_ask(&fakes, &mut api_keys, &accounts).await, 45 * SECOND);
        assert!(
            accounts.iter().all(|account| api_keys.resolve(&index_of(&fakes, account)).is_ok())
        );
        assert!(api_keys.failed_cells().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cell_that_gives_nothing_is_asked_for_20_s_and_not_again() {
        let fakes = with_delays([("a", 3_600), ("b", 3_600)]);
        let mut api_keys = for_comparison();
        assert_eq!(time_to_ask(&fakes, &mut api_keys, &["a"]).await, 20 * SECOND);
        api_keys = api_keys.renewed();
        assert_eq!(time_to_ask(&fakes, &mut api_keys, &["b"]).await, Duration::ZERO);
        assert!(api_keys.resolve(&index_of(&fakes, "b")).is_err());
        assert_eq!(api_keys.failed_cells().len(), 1);

        let mut elsewhere = index_of(&fakes, "c");
        elsewhere.owner.cell = "healthy".to_owned();
        api_keys.ask(&fakes.invocation(), [&elsewhere]).await;
        assert!(api_keys.resolve(&elsewhere).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_which_a_cell_is_quiet_adds_up_until_it_answers() {
        let fakes = Fakes::new();
        let mut api_keys = for_comparison();
        // Each time all tries are refused at once, after 3.5 s of back-offs.
        fakes.api_keys.faults.then((0..5 * 4).map(|_| down()));
        for _ in 0..5 {
            api_keys = api_keys.renewed();
            assert_eq!(time_to_ask(&fakes, &mut api_keys, &["a"]).await, SECOND * 7 / 2);
        }
        api_keys = api_keys.renewed();
        time_to_ask(&fakes, &mut api_keys, &["a"]).await;
        assert!(api_keys.resolve(&index_of(&fakes, "a")).is_ok(), "2.5 s were left");
        fakes.api_keys.faults.then((0..4).map(|_| down()));
        api_keys = api_keys.renewed();
        assert_eq!(time_to_ask(&fakes, &mut api_keys, &["a"]).await, SECOND * 7 / 2);
    }
}
