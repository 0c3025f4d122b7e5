//! The last piece of a settings value, the API key: whose it is, and where else it can come from.

use std::collections::BTreeMap;
use std::rc::Rc;

use secrecy::{ExposeSecret, SecretString};
use tracing::warn;

use crate::api_keys::KeyOwner;
use crate::bulk;
use crate::entry::Entry;
use crate::ports::{ApiKeyError, Namespace, Services, StoredSettings};
use crate::record::{Draft, IndexRef, IndexSettings, Rejection};
use crate::run::{Limits, Run};

/// The cell whose gateway knows the API key of an index.
pub fn key_cell<'a>(limits: &'a Limits, settings: &'a IndexSettings) -> Result<&'a str, Rejection> {
    settings.cell.as_deref().or(limits.default_cell.as_deref()).ok_or_else(|| {
        Rejection::new("cell", "is absent, and the function has no DEFAULT_CELL to fall back on")
    })
}

/// Whom to ask for the API key of an index.
pub fn key_owner(limits: &Limits, settings: &IndexSettings) -> Result<KeyOwner, Rejection> {
    let cell = key_cell(limits, settings)?.to_owned();
    Ok(KeyOwner { cell, account: settings.index.account.clone() })
}

/// The rejection of an index whose account has no API key, or can't have one.
pub fn rejected_account(error: &ApiKeyError) -> Rejection {
    match error {
        ApiKeyError::BadName { path } => Rejection::new(*path, "can't be part of a URL"),
        ApiKeyError::NotFound | ApiKeyError::Unavailable { .. } => {
            Rejection::new("system_account_id", "the account has no API key")
        }
    }
}

/// The complete entry of an index; `draft` is that of its settings.
pub fn entry<S: Services>(
    run: &Run<'_, S>,
    settings: &IndexSettings,
    draft: Draft,
    key: &SecretString,
    exported_at: &str,
) -> Result<Rc<Entry>, Rejection> {
    let value = settings.value(draft, key.expose_secret());
    Entry::new(value, &settings.index, run.source, exported_at).map(Rc::new)
}

/// The API keys that KV holds in settings of these very indexes, under either of their keys.
///
/// For indexes whose key can't be had for now: a change of settings still gets through. Each one
/// found is counted and warned about.
pub async fn reusable_keys<S: Services>(
    run: &Run<'_, S>,
    lacking: &[&IndexSettings],
) -> BTreeMap<IndexRef, SecretString> {
    let mut names: Vec<String> = lacking.iter().flat_map(|settings| settings.kv_keys()).collect();
    names.sort_unstable();
    names.dedup();
    let (held, failures) = bulk::read(run, Namespace::Settings, names).await;
    if let Some((key, error)) = failures.first_key_value() {
        warn!(keys = failures.len(), key, "API keys to use again could not be read: {error}");
    }
    let mut reusable = BTreeMap::new();
    for settings in lacking {
        // The index id first: the shop id's value may be older, or another index'.
        let key = settings.kv_keys().into_iter().rev().find_map(|name| {
            let stored = StoredSettings::parse(&held.get(&name)?.value)?;
            stored.api_key.filter(|_| stored.index == settings.index)
        });
        if let Some(key) = key {
            warn!(
                system_account_id = settings.index.account,
                index_name = settings.index.index,
                "the API key can't be had for now: the one in KV is used again"
            );
            run.count(|tally| tally.api_keys_reused += 1);
            reusable.insert(settings.index.clone(), key);
        }
    }
    reusable
}
