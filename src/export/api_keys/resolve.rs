//! The one place that says where an index's API key comes from, and what it means if there is none.
//!
//! | the service says | KV holds settings of this index | then |
//! | --- | --- | --- |
//! | an API key | | that one |
//! | the account has none, or its name or cell can't be asked for | | the item is rejected |
//! | nothing, after all tries | with an API key | that one is used again, with a warning |
//! | nothing, after all tries | without one, or nothing | unavailable for now |
//! | nothing, after all tries | KV can't be read | unavailable for now |
//!
//! A reconcile does not look into KV: what it would find there is what it is to compare. Nor does it
//! ask a cell again that has given nothing in this run.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use secrecy::SecretString;

use super::gather::{Answers, ApiKeyOwner, Gathering, Waiting};
use crate::config::ExporterConfig;
use crate::export::invocation::Invocation;
use crate::index::IndexRef;
use crate::item::{IndexSettings, Rejection};
use crate::kv::Source;
use crate::ports::{ApiKeyError, KvError, Retry, Services, fits_a_url};

/// The API keys that an invocation has asked for. None outlives it, so that a rotated key is not
/// overwritten with an old one.
#[derive(Debug, Default)]
pub struct ApiKeys {
    answers: Answers,
    /// What KV holds of the indexes for which the service gave none.
    pub(super) stored: BTreeMap<IndexRef, Stored>,
    /// For how long the batch has asked.
    asked_for: Duration,
    /// Cells whose gateway has given nothing to a reconcile. Its sets of API keys share them.
    silent_cells: Rc<RefCell<BTreeSet<String>>>,
}

/// What KV holds under the keys of an index.
#[derive(Debug)]
pub enum Stored {
    /// An API key that can be used again.
    ApiKey(SecretString),
    /// None.
    NoApiKey,
    /// Whether there is one is not known.
    Unreadable(KvError),
}

/// Why an item can't be exported.
#[derive(Debug, Clone, PartialEq)]
pub enum NotExportable {
    /// Trying again can't help.
    Rejected(Rejection),
    /// Trying again may help.
    Unavailable(ApiKeyUnavailable),
}

impl From<Rejection> for NotExportable {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Why an index's API key is unavailable for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyUnavailable {
    /// The service has not been asked, or has not answered yet.
    #[error("the API key was not asked for")]
    NotAsked,
    /// The service gives none; KV was not looked into.
    #[error(transparent)]
    Service(ApiKeyError),
    /// The service gives none, and KV has none to use again.
    #[error("KV holds no settings of this index whose API key could be used again")]
    NotInKv(#[source] ApiKeyError),
    /// The service gives none, and whether KV has one is not known.
    #[error("KV can't be read for an API key to use again ({kv})")]
    KvUnreadable {
        /// What the API keys service said.
        #[source]
        service: ApiKeyError,
        /// What KV said.
        kv: KvError,
    },
}

impl ApiKeys {
    /// Whom to ask for the API key of an index.
    pub fn owner(
        config: &ExporterConfig,
        settings: &IndexSettings,
    ) -> Result<ApiKeyOwner, Rejection> {
        let cell = settings.cell.as_ref().or(config.default_cell.as_ref()).ok_or_else(|| {
            Rejection::new(
                "cell",
                "is absent, and the function has no DEFAULT_CELL to fall back on",
            )
        })?;
        for (path, name) in [("cell", cell), ("system_account_id", &settings.index.account)] {
            if !fits_a_url(name) {
                return Err(Rejection::new(path, "can't be part of a URL"));
            }
        }
        Ok(ApiKeyOwner { cell: cell.clone(), account: settings.index.account.clone() })
    }

    /// Starts asking for API keys.
    pub fn gather<'a, S: Services>(
        &self,
        invocation: &'a Invocation<'_, S>,
        owners: BTreeMap<ApiKeyOwner, Waiting>,
    ) -> Gathering<'a> {
        // A reconcile meets new accounts for as long as it runs.
        let paged = invocation.source == Source::Reconcile;
        let used = if paged { Duration::ZERO } else { self.asked_for };
        Gathering::start(invocation, owners, used)
    }

    /// A set without API keys, because those asked for minutes ago may have been rotated. It still knows
    /// which cells give nothing.
    pub fn renewed(&self) -> Self {
        Self { silent_cells: Rc::clone(&self.silent_cells), ..Self::default() }
    }

    /// Whether it is known what the service says for an account, or that its cell gives nothing.
    pub fn knows(&self, owner: &ApiKeyOwner) -> bool {
        self.answers.contains_key(owner) || self.silent_cells.borrow().contains(&owner.cell)
    }

    /// Takes in one answer of the service.
    pub fn note(&mut self, owner: ApiKeyOwner, answer: Result<SecretString, ApiKeyError>) {
        if !answer.as_ref().is_err_and(ApiKeyError::is_silence) {
            self.silent_cells.borrow_mut().remove(&owner.cell);
        }
        self.answers.insert(owner, answer);
    }

    /// The cells of which an API key was unavailable.
    pub fn failed_cells(&self) -> BTreeSet<String> {
        let failed = |answer: &Result<_, _>| matches!(answer, Err(ApiKeyError::Unavailable { .. }));
        let asked = self.answers.iter().filter(|(_, answer)| failed(answer));
        let asked = asked.map(|(owner, _)| owner.cell.clone());
        asked.chain(self.silent_cells.borrow().iter().cloned()).collect()
    }

    /// Notes that a cell's gateway gives nothing: it is not asked again, unless an answer of it is still
    /// to come.
    pub fn write_off(&self, cell: &str) {
        self.silent_cells.borrow_mut().insert(cell.to_owned());
    }

    /// Takes in answers of the service.
    pub fn extend(&mut self, answers: Answers) {
        for (owner, answer) in answers {
            self.note(owner, answer);
        }
    }

    /// Counts the time for which the service was asked.
    pub fn count_time(&mut self, took: Duration) {
        self.asked_for += took;
    }

    /// Asks for the API keys of these indexes that have not been asked for, the service first, then
    /// KV.
    pub async fn ask<'s, S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        settings: impl IntoIterator<Item = &'s IndexSettings> + Clone,
    ) {
        self.ask_service(invocation, settings.clone()).await;
        self.look_into_kv(invocation, settings).await;
    }

    /// Asks the service for the API keys of these indexes that have not been asked for.
    pub async fn ask_service<'s, S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        settings: impl IntoIterator<Item = &'s IndexSettings>,
    ) {
        let owners: BTreeMap<ApiKeyOwner, Waiting> = settings
            .into_iter()
            .filter_map(|settings| Self::owner(invocation.config, settings).ok())
            .filter(|owner| !self.answers.contains_key(owner))
            .map(|owner| (owner, Waiting::Others))
            .collect();
        let is_silent = |owner: &ApiKeyOwner| self.silent_cells.borrow().contains(&owner.cell);
        let (silent, owners): (BTreeMap<_, _>, BTreeMap<_, _>) =
            owners.into_iter().partition(|(owner, _)| is_silent(owner));
        self.answers.extend(silent.into_keys().map(|owner| (owner, Err(silent_cell_error()))));
        if !owners.is_empty() {
            let mut gathering = self.gather(invocation, owners);
            let answers = gathering.rest().await;
            self.count_time(gathering.elapsed());
            if invocation.source == Source::Reconcile {
                self.silent_cells.borrow_mut().extend(silent_cells(&answers));
            }
            self.extend(answers);
        }
    }

    /// The API key of an index.
    pub fn resolve(
        &self,
        config: &ExporterConfig,
        settings: &IndexSettings,
    ) -> Result<&SecretString, NotExportable> {
        let rejected = |path: &str, reason: &'static str| {
            Err(NotExportable::Rejected(Rejection::new(path, reason)))
        };
        let owner = Self::owner(config, settings).map_err(NotExportable::Rejected)?;
        let service = match self.answers.get(&owner) {
            None => return Err(NotExportable::Unavailable(ApiKeyUnavailable::NotAsked)),
            Some(Ok(api_key)) => return Ok(api_key),
            Some(Err(ApiKeyError::NotFound)) => {
                return rejected("system_account_id", "the account has no API key");
            }
            Some(Err(ApiKeyError::BadName { path })) => {
                return rejected(path, "can't be part of a URL");
            }
            Some(Err(error @ ApiKeyError::Unavailable { .. })) => error.clone(),
        };
        Err(NotExportable::Unavailable(match self.stored.get(&settings.index) {
            Some(Stored::ApiKey(api_key)) => return Ok(api_key),
            None => ApiKeyUnavailable::Service(service),
            Some(Stored::NoApiKey) => ApiKeyUnavailable::NotInKv(service),
            Some(Stored::Unreadable(kv)) => {
                ApiKeyUnavailable::KvUnreadable { service, kv: kv.clone() }
            }
        }))
    }
}

/// The cells that were asked and said nothing of any account.
fn silent_cells(answers: &Answers) -> BTreeSet<String> {
    let gave_nothing = |answer: &Result<SecretString, ApiKeyError>| {
        answer.as_ref().is_err_and(ApiKeyError::is_silence)
    };
    let (silent, answering): (Vec<_>, Vec<_>) =
        answers.iter().partition(|(_, answer)| gave_nothing(answer));
    let answering: BTreeSet<&String> = answering.iter().map(|(owner, _)| &owner.cell).collect();
    let silent = silent.into_iter().map(|(owner, _)| &owner.cell);
    silent.filter(|cell| !answering.contains(cell)).cloned().collect()
}

fn silent_cell_error() -> ApiKeyError {
    ApiKeyError::Unavailable {
        reason: "the cell's gateway has given nothing in this run".to_owned(),
        retry: Retry::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{Fakes, KvFault, down, index_settings};
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    /// What is known of an index once the service was asked, and KV where that gave nothing.
    async fn resolved(fakes: &Fakes, settings: &IndexSettings) -> Result<String, String> {
        let invocation = fakes.invocation();
        let mut api_keys = ApiKeys::default();
        api_keys.ask(&invocation, [settings]).await;
        let reused = invocation.stats().api_keys_reused;
        match api_keys.resolve(&fakes.config, settings) {
            Ok(api_key) if reused > 0 => Ok(format!("{} again", api_key.expose_secret())),
            Ok(api_key) => Ok(api_key.expose_secret().to_owned()),
            Err(NotExportable::Rejected(rejection)) => Err(format!("rejected: {}", rejection.path)),
            Err(NotExportable::Unavailable(ApiKeyUnavailable::NotAsked)) => {
                Err("not asked".to_owned())
            }
            Err(NotExportable::Unavailable(ApiKeyUnavailable::Service(_))) => {
                Err("not looked up".to_owned())
            }
            Err(NotExportable::Unavailable(ApiKeyUnavailable::NotInKv(_))) => {
                Err("not in KV".to_owned())
            }
            Err(NotExportable::Unavailable(ApiKeyUnavailable::KvUnreadable { .. })) => {
                Err("KV can't be read".to_owned())
            }
        }
    }

    /// Index `i` under the keys `s` and `a-i`.
    fn settings() -> IndexSettings {
        index_settings("i", &json!({"shop_id": {"S": "s"}}))
    }

    /// A gateway that is down for all four tries.
    fn without_gateway() -> Fakes {
        let fakes = Fakes::new();
        fakes.api_keys.faults.then([down(), down(), down(), down()]);
        fakes
    }

    fn value(index_name: &str, api_key: &Value) -> Value {
        json!({"system_account_id": "a", "index_name": index_name, "marqo_api_key": api_key})
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_key_from_the_service_is_that_one_whatever_kv_holds() {
        let fakes = Fakes::new();
        fakes.kv.hold("a-i", &value("i", &json!("old")));
        assert_eq!(resolved(&fakes, &settings()).await, Ok("k".into()));
        assert!(fakes.kv.requests.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_that_has_none_is_rejected_whatever_kv_holds() {
        let fakes = Fakes::new();
        fakes.kv.hold("a-i", &value("i", &json!("old")));
        fakes.api_keys.faults.then([ApiKeyError::NotFound]);
        let rejected = Err("rejected: system_account_id".to_owned());
        assert_eq!(resolved(&fakes, &settings()).await, rejected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_or_a_cell_that_cannot_be_asked_for_is_rejected() {
        let mut fakes = Fakes::new();
        fakes.api_keys.faults.then([ApiKeyError::BadName { path: "cell" }]);
        assert_eq!(resolved(&fakes, &settings()).await, Err("rejected: cell".to_owned()));
        fakes.config.default_cell = None;
        assert_eq!(resolved(&fakes, &settings()).await, Err("rejected: cell".to_owned()));
        let with_cell = index_settings("i", &json!({"cell": {"S": "c"}}));
        assert_eq!(resolved(&fakes, &with_cell).await, Ok("k".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_service_gives_nothing_the_one_in_kv_is_used_again() {
        for key in ["a-i", "s"] {
            let fakes = without_gateway();
            fakes.kv.hold(key, &value("i", &json!("old")));
            assert_eq!(resolved(&fakes, &settings()).await, Ok("old again".into()), "{key}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_in_kv_the_one_under_the_index_id_is_used_again() {
        let fakes = without_gateway();
        fakes.kv.hold("s", &value("i", &json!("older")));
        fakes.kv.hold("a-i", &value("i", &json!("old")));
        assert_eq!(resolved(&fakes, &settings()).await, Ok("old again".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_usable_one_in_kv_it_is_unavailable() {
        let unusable = [
            value("i", &Value::Null),
            value("i", &json!("")),
            value("i", &json!(7)),
            value("another", &json!("old")),
            json!({"marqo_api_key": "old"}),
        ];
        for held in [None].into_iter().chain(unusable.map(Some)) {
            let fakes = without_gateway();
            if let Some(held) = &held {
                fakes.kv.hold("s", held);
            }
            let unavailable = Err("not in KV".to_owned());
            assert_eq!(resolved(&fakes, &settings()).await, unavailable, "{held:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_kv_cannot_be_read_it_is_unavailable() {
        let fakes = without_gateway();
        fakes.kv.hold("a-i", &value("i", &json!("old")));
        fakes.kv.faults.then([KvFault::Fails(KvError::Refused { reason: "scripted".into() })]);
        let unavailable = Err("KV can't be read".to_owned());
        assert_eq!(resolved(&fakes, &settings()).await, unavailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconcile_does_not_look_into_kv() {
        let fakes = without_gateway();
        fakes.kv.hold("a-i", &value("i", &json!("old")));
        let (mut api_keys, settings) = (ApiKeys::default(), settings());
        api_keys.ask(&fakes.invocation_of(Source::Reconcile), [&settings]).await;
        let service = Err(NotExportable::Unavailable(ApiKeyUnavailable::Service(down())));
        assert_eq!(api_keys.resolve(&fakes.config, &settings).map(|_| ()), service);
        assert!(fakes.kv.requests.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconcile_asks_a_cell_that_gave_nothing_no_second_time() {
        let fakes = without_gateway();
        let invocation = fakes.invocation_of(Source::Reconcile);
        let mut api_keys = ApiKeys::default();
        api_keys.ask(&invocation, [&settings()]).await;
        let mut other = settings();
        other.index.account = "b".into();
        let mut elsewhere = other.clone();
        elsewhere.cell = Some("healthy".into());
        api_keys.ask(&invocation, [&other, &elsewhere]).await;
        assert_eq!(invocation.stats().api_keys_requests, 4 + 1);
        assert!(api_keys.resolve(&fakes.config, &other).is_err());
        assert!(api_keys.resolve(&fakes.config, &elsewhere).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_is_asked_for_once() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation();
        let indexes = ["i", "j"].map(|name| index_settings(name, &json!({})));
        let mut api_keys = ApiKeys::default();
        assert!(matches!(
            api_keys.resolve(&fakes.config, &indexes[0]),
            Err(NotExportable::Unavailable(ApiKeyUnavailable::NotAsked))
        ));
        api_keys.ask(&invocation, &indexes).await;
        api_keys.ask(&invocation, &indexes).await;
        assert_eq!(invocation.stats().api_keys_requests, 1);
        for index in &indexes {
            assert!(api_keys.resolve(&fakes.config, index).is_ok());
        }
    }
}
