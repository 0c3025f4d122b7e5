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
//! A reconcile does not look into KV: what it would find there is what it is to compare.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;
use tracing::warn;

use super::gather::{Answers, ApiKeyOwner, Gathering, Waiting};
use crate::export::bulk;
use crate::export::invocation::{ExporterConfig, Invocation};
use crate::index::IndexRef;
use crate::item::{IndexSettings, Rejection};
use crate::kv::StoredSettings;
use crate::ports::{ApiKeyError, KvError, Namespace, Services};

/// The API keys that an invocation has asked for. None outlives it, so that a rotated key is not
/// overwritten with an old one.
#[derive(Debug, Default)]
pub struct ApiKeys {
    answers: Answers,
    stored: BTreeMap<IndexRef, Stored>,
}

/// What KV holds under the keys of an index.
#[derive(Debug)]
enum Stored {
    ApiKey(SecretString),
    NoApiKey,
    Unreadable(KvError),
}

/// An index's API key, or why there is none.
#[derive(Debug)]
pub enum ApiKey<'a> {
    /// The key.
    Known(&'a SecretString),
    /// Trying again can't help.
    Rejected(Rejection),
    /// Trying again may help.
    Unavailable(ApiKeyUnavailable),
}

/// Why an index's API key is unavailable for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyUnavailable {
    /// The service has not been asked, or has not answered yet.
    #[error("its API key has not been asked for")]
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
            // A URL's parser takes these, encoded or not, as steps up the path.
            if name == "." || name == ".." {
                return Err(Rejection::new(path, "can't be part of a URL"));
            }
        }
        Ok(ApiKeyOwner { cell: cell.clone(), account: settings.index.account.clone() })
    }

    /// Takes in answers of the service.
    pub fn extend(&mut self, answers: Answers) {
        self.answers.extend(answers);
    }

    /// Asks for the API keys of these indexes that have not been asked for.
    pub async fn ask<'s, S: Services>(
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
        if !owners.is_empty() {
            self.extend(Gathering::start(invocation, owners).rest().await);
        }
    }

    /// Looks into KV for the API keys of those indexes for which the service gives none: a change
    /// of settings still gets through.
    pub async fn look_into_kv<'s, S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        settings: impl IntoIterator<Item = &'s IndexSettings>,
    ) {
        let lacking: Vec<&IndexSettings> = settings
            .into_iter()
            .filter(|settings| {
                let api_key = self.resolve(invocation.config, settings);
                matches!(api_key, ApiKey::Unavailable(ApiKeyUnavailable::Service(_)))
            })
            .collect();
        if lacking.is_empty() {
            return;
        }
        let keys: BTreeSet<String> = lacking.iter().flat_map(|index| index.kv_keys()).collect();
        let (values, failures) =
            bulk::read(invocation, Namespace::Settings, keys.into_iter().collect()).await;
        let environment = &invocation.config.environment;
        for settings in lacking {
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
                        "the API key is unavailable: the one in KV is used again"
                    );
                    invocation.count(|stats| stats.api_keys_reused += 1);
                    Stored::ApiKey(api_key)
                }
                (None, Some(error)) => Stored::Unreadable(error.clone()),
                (None, None) => Stored::NoApiKey,
            };
            self.stored.insert(settings.index.clone(), stored);
        }
    }

    /// The API key of an index.
    pub fn resolve(&self, config: &ExporterConfig, settings: &IndexSettings) -> ApiKey<'_> {
        let owner = match Self::owner(config, settings) {
            Ok(owner) => owner,
            Err(rejection) => return ApiKey::Rejected(rejection),
        };
        let service = match self.answers.get(&owner) {
            None => return ApiKey::Unavailable(ApiKeyUnavailable::NotAsked),
            Some(Ok(api_key)) => return ApiKey::Known(api_key),
            Some(Err(ApiKeyError::NotFound)) => {
                let reason = "the account has no API key";
                return ApiKey::Rejected(Rejection::new("system_account_id", reason));
            }
            Some(Err(ApiKeyError::BadName { path })) => {
                return ApiKey::Rejected(Rejection::new(*path, "can't be part of a URL"));
            }
            Some(Err(error @ ApiKeyError::Unavailable { .. })) => error.clone(),
        };
        ApiKey::Unavailable(match self.stored.get(&settings.index) {
            Some(Stored::ApiKey(api_key)) => return ApiKey::Known(api_key),
            None => ApiKeyUnavailable::Service(service),
            Some(Stored::NoApiKey) => ApiKeyUnavailable::NotInKv(service),
            Some(Stored::Unreadable(kv)) => {
                ApiKeyUnavailable::KvUnreadable { service, kv: kv.clone() }
            }
        })
    }
}
