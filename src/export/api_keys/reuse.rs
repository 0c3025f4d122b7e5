//! Looks into KV for an API key that can be used again, where the service gives none.

use std::collections::BTreeSet;

use tokio::time::Instant;
use tracing::warn;

use super::Exportable;
use super::asking::Reuse;
use super::resolve::{ApiKeys, NotExportable};
use crate::export::bulk;
use crate::export::invocation::Invocation;
use crate::kv::StoredSettings;
use crate::ports::{Namespace, Services};

impl ApiKeys {
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
        let keys: BTreeSet<String> =
            lacking.iter().flat_map(|index| index.settings.kv_keys()).collect();
        // A batch's writes wait for it while it may write; after that, settling goes on to the deadline.
        let may_write = Instant::now() < invocation.writes_until;
        let until = if may_write { invocation.writes_until } else { invocation.deadline };
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
}
