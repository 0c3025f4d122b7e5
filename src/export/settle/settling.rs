//! What is known of the keys while they are being settled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tracing::{error, warn};

use super::action::{KeyOutcome, LastStep};
use super::table_view::{Held, Named};
use crate::export::api_keys::ApiKeys;
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::index::IndexRef;
use crate::item::Rejection;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::Services;

/// What the values of keys that are settled in groups may take, in bytes; one request reads up to 25 MB
/// more.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;

/// What is to be settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettleRequest {
    /// The keys, each with what it is known to have been written for.
    pub keys: BTreeMap<String, BTreeSet<Named>>,
    /// Index id keys of this set: the shop id that KV's value under them names is settled too.
    pub with_shop_id_in_value: BTreeSet<String>,
    /// Keys that have just been written for the items that ask for them: they are not settled.
    pub written: BTreeSet<String>,
}

impl SettleRequest {
    /// Keys that were written for `index`.
    pub fn written_for(index: &IndexRef, keys: BTreeSet<String>) -> Self {
        let mut request = Self::default();
        request.add_written_for(index, keys);
        request
    }

    /// Adds keys that were written for `index`.
    pub fn add_written_for(&mut self, index: &IndexRef, keys: BTreeSet<String>) {
        let named = Named { index: index.clone(), shop_ids: keys.clone() };
        for key in keys {
            self.keys.entry(key).or_default().insert(named.clone());
        }
    }

    /// Keys under which nothing needs to be settled if KV holds nothing there.
    fn of_keys(keys: impl IntoIterator<Item = String>) -> Self {
        let keys = keys.into_iter().map(|key| (key, BTreeSet::new()));
        Self { keys: keys.collect(), ..Self::default() }
    }
}

/// Keys that are being settled.
pub(super) struct Settling<'a, 'k, S> {
    pub invocation: &'a Invocation<'a, S>,
    pub api_keys: &'k mut ApiKeys,
    /// What the keys that are still being settled hold, as far as it is known: as read, then as
    /// last written. KV does not promise that a writer reads its own writes, so it is read once.
    pub held: BTreeMap<String, Held>,
    /// For an index id's key, the shop id that is known only from its value. That key is deleted last, so
    /// that a retry can still find the shop id.
    pub shop_ids_in_values: BTreeMap<String, String>,
    /// What was last done to a key.
    pub last: BTreeMap<String, LastStep>,
    pub outcomes: BTreeMap<String, KeyOutcome>,
    /// How long the last look took.
    pub last_look: Duration,
    /// Items that can't be exported and so keep a key, logged once.
    pub rejections: BTreeMap<IndexRef, Rejection>,
}

impl<'a, 'k, S: Services> Settling<'a, 'k, S> {
    pub fn new(invocation: &'a Invocation<'a, S>, api_keys: &'k mut ApiKeys) -> Self {
        Self {
            invocation,
            api_keys,
            held: BTreeMap::new(),
            shop_ids_in_values: BTreeMap::new(),
            last: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            last_look: Duration::ZERO,
            rejections: BTreeMap::new(),
        }
    }

    /// Takes the first keys into the work, until their values take [`MAX_HELD_BYTES`].
    pub async fn hold_first(&mut self, keys: &mut VecDeque<String>) {
        let mut bytes = 0;
        while bytes < MAX_HELD_BYTES && !keys.is_empty() {
            let first = keys.drain(..MAX_BULK_GET_KEYS.min(keys.len()));
            let request = SettleRequest::of_keys(first);
            self.read_held(&request).await;
            bytes = self.held.values().map(Held::bytes).sum();
        }
    }

    /// Why the shop id has failed that only this key's value names, if it has.
    pub fn shop_id_error(&self, index_id: &str) -> Option<KeyError> {
        match self.outcomes.get(self.shop_ids_in_values.get(index_id)?) {
            Some(KeyOutcome::Failed(error)) => Some(error.clone()),
            _ => None,
        }
    }

    /// Takes a key out of the work.
    pub fn fail(&mut self, key: &str, error: KeyError) {
        self.held.remove(key);
        self.outcomes.insert(key.to_owned(), KeyOutcome::Failed(error));
    }

    /// The outcomes. A shop id's failure is the failure of the index id whose value names it.
    pub fn into_outcomes(mut self) -> BTreeMap<String, KeyOutcome> {
        let leading: Vec<String> = self.shop_ids_in_values.keys().cloned().collect();
        for index_id in leading {
            if let Some(error) = self.shop_id_error(&index_id) {
                self.outcomes.insert(index_id, KeyOutcome::Failed(error));
            }
        }
        self.outcomes
    }

    /// Logs and counts what stays against expectation.
    pub fn report(&self) {
        for (index, rejection) in &self.rejections {
            error!(
                system_account_id = index.account,
                index_name = index.name,
                path = rejection.path,
                error = %rejection,
                "an index can't be exported: the keys that it asks for, or whose values name it, stay as they are"
            );
        }
        for (key, outcome) in &self.outcomes {
            let KeyOutcome::Withheld(pointers) = outcome else { continue };
            let pointers: Vec<String> = pointers.iter().map(ToString::to_string).collect();
            warn!(
                key,
                pointers = pointers.join(", "),
                "a key that no item asks for stays: active aliases of these items point at it"
            );
            self.invocation.count(|stats| stats.deletes_withheld += 1);
        }
    }
}
