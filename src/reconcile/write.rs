//! Writes of keys whose items are read just before and just after, so that a change that comes
//! through the stream meanwhile is not left overwritten with the older version.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::api_keys::{ApiKeys, Gathering, KeyOwner};
use crate::bulk;
use crate::digest::Digest;
use crate::entry::{Entry, Pair};
use crate::ports::{ApiKeyError, Namespace, Services};
use crate::query_configs::{self, read};
use crate::record::{IndexSettings, Item, ItemKey, ItemKind, QueryConfigRef, Rejection};
use crate::run::Run;
use crate::settings_keys::{entry, key_owner, rejected_account};
use crate::stream::decode_settings_of;

/// The most rounds of write and read again.
const MAX_ROUNDS: usize = 5;

/// Items that are read at once.
const READ_ITEMS: usize = 500;

/// Values that one write holds at the most, in bytes; with the pairs it bounds the memory.
const WRITE_BYTES: usize = 16 * 1024 * 1024;

/// Items and those of their keys that are to be written.
pub type Work = BTreeMap<ItemKey, BTreeSet<String>>;

/// What came of it.
#[derive(Debug, Default)]
pub struct Written {
    /// Keys that hold what the table asks for.
    pub written: u64,
    /// Keys that are open, and why.
    pub failed: BTreeMap<String, String>,
    /// Settings keys that were written and that their item asks for no more.
    pub left_behind: BTreeSet<String>,
    /// Query configs that were written and are gone.
    pub gone: Vec<QueryConfigRef>,
}

/// Writes the keys of `work` in `namespace`.
pub async fn write<S: Services>(run: &Run<'_, S>, namespace: Namespace, work: Work) -> Written {
    let mut writer = Writer {
        run,
        namespace,
        // Asked for here and not taken from the comparison, which may be minutes old: a key that
        // was rotated meanwhile must not be overwritten with the old one.
        api_keys: ApiKeys::new(),
        outcome: Written::default(),
    };
    let mut work: Vec<(ItemKey, BTreeSet<String>)> = work.into_iter().collect();
    let mut batch = Batch::default();
    while !work.is_empty() {
        let part: Work = work.drain(..READ_ITEMS.min(work.len())).collect();
        writer.read_into(&mut batch, part).await;
        if batch.pairs.len() >= run.limits.bulk_max_pairs || batch.bytes >= WRITE_BYTES {
            writer.flush(std::mem::take(&mut batch)).await;
        }
    }
    writer.flush(batch).await;
    writer.outcome
}

struct Writer<'a, S> {
    run: &'a Run<'a, S>,
    namespace: Namespace,
    api_keys: ApiKeys,
    outcome: Written,
}

/// What goes out together.
#[derive(Default)]
struct Batch {
    pairs: Vec<Pair>,
    bytes: usize,
    items: BTreeMap<ItemKey, Version>,
}

/// What was read of an item, and under which keys it is written.
struct Version {
    digest: Digest,
    keys: BTreeSet<String>,
}

/// An item, ready to be written.
struct Ready {
    entry: Rc<Entry>,
    asks_for: Vec<String>,
}

enum NotReady {
    /// What KV holds stays; the scan has logged it.
    Rejected,
    /// To be tried again.
    Unavailable(String),
}

impl<S: Services> Writer<'_, S> {
    /// Reads items and puts what they ask for into the batch.
    async fn read_into(&mut self, batch: &mut Batch, part: Work) {
        let keys: BTreeSet<ItemKey> = part.keys().cloned().collect();
        let items = match read(self.run, &keys).await {
            Ok(items) => items,
            Err(reason) => {
                for key in part.into_values().flatten() {
                    self.outcome.failed.insert(key, reason.clone());
                }
                return;
            }
        };
        self.gather(&items).await;
        let exported_at = self.run.exported_at();
        for (item_key, keys) in part {
            // Gone or moved since the scan: nothing was written, so nothing is left behind.
            let Some(item) = items.get(&item_key) else { continue };
            match self.ready(&item_key, item, &exported_at) {
                Ok(ready) => {
                    let keys = keys.into_iter().filter(|key| ready.asks_for.contains(key));
                    batch.add(item_key, ready.entry, keys.collect());
                }
                Err(NotReady::Rejected) => {}
                Err(NotReady::Unavailable(reason)) => {
                    for key in keys {
                        self.outcome.failed.insert(key, reason.clone());
                    }
                }
            }
        }
    }

    /// Asks for the API keys that are still missing.
    async fn gather(&mut self, items: &BTreeMap<ItemKey, Item>) {
        let owners: BTreeSet<KeyOwner> = items
            .iter()
            .filter_map(|(key, item)| decode(key, item)?.ok())
            .filter_map(|settings| key_owner(self.run.limits, &settings).ok())
            .filter(|owner| !self.api_keys.contains_key(owner))
            .collect();
        if !owners.is_empty() {
            let found = Gathering::start(self.run, owners).rest().await;
            self.api_keys.extend(found);
        }
    }

    fn ready(&self, key: &ItemKey, item: &Item, exported_at: &str) -> Result<Ready, NotReady> {
        let rejected = |_: Rejection| NotReady::Rejected;
        match key.kind() {
            ItemKind::Skipped => Err(NotReady::Rejected),
            ItemKind::QueryConfig(config) => {
                let pair = query_configs::decode_pair(self.run, &config, item, exported_at)
                    .map_err(rejected)?;
                Ok(Ready { entry: pair.entry, asks_for: vec![pair.key] })
            }
            ItemKind::IndexSettings(index) => {
                let settings = decode_settings_of(&index, item).map_err(rejected)?;
                let owner = key_owner(self.run.limits, &settings).map_err(rejected)?;
                let api_key = match self.api_keys.get(&owner) {
                    Some(Ok(api_key)) => api_key,
                    Some(Err(error @ ApiKeyError::Unavailable { .. })) => {
                        return Err(NotReady::Unavailable(error.to_string()));
                    }
                    Some(Err(error)) => return Err(rejected(rejected_account(error))),
                    // The cell changed between two reads.
                    None => return Err(NotReady::Unavailable("the record still changes".into())),
                };
                let entry = entry(self.run, &settings, settings.draft(), api_key, exported_at)
                    .map_err(rejected)?;
                Ok(Ready { entry, asks_for: settings.kv_keys() })
            }
        }
    }

    /// Writes a batch, reads its items again and writes what changed.
    async fn flush(&mut self, mut batch: Batch) {
        for _ in 0..MAX_ROUNDS {
            if batch.pairs.is_empty() {
                return;
            }
            let sent: BTreeSet<String> = batch.pairs.iter().map(|pair| pair.key.clone()).collect();
            let failures = bulk::put(self.run, self.namespace, batch.pairs).await;
            for (key, error) in &failures {
                self.outcome.failed.insert(key.clone(), error.to_string());
            }
            self.outcome.written += u64::try_from(sent.len() - failures.len()).unwrap_or_default();
            let mut versions = batch.items;
            for version in versions.values_mut() {
                version.keys.retain(|key| !failures.contains_key(key));
            }
            versions.retain(|_, version| !version.keys.is_empty());
            batch = self.read_again(versions).await;
            let again = u64::try_from(batch.pairs.len()).unwrap_or_default();
            self.outcome.written -= again;
        }
        for pair in batch.pairs {
            let reason = format!("the record still changes after {MAX_ROUNDS} rounds");
            self.outcome.failed.insert(pair.key, reason);
        }
    }

    /// Reads items that were written; what changed is the next batch.
    async fn read_again(&mut self, versions: BTreeMap<ItemKey, Version>) -> Batch {
        let mut batch = Batch::default();
        let keys: Vec<ItemKey> = versions.keys().cloned().collect();
        for part in keys.chunks(READ_ITEMS) {
            let wanted: BTreeSet<ItemKey> = part.iter().cloned().collect();
            let items = match read(self.run, &wanted).await {
                Ok(items) => items,
                Err(reason) => {
                    let keys = part.iter().filter_map(|key| versions.get(key));
                    for key in keys.flat_map(|version| &version.keys) {
                        self.unwrite(key, &reason);
                    }
                    continue;
                }
            };
            let exported_at = self.run.exported_at();
            for item_key in part {
                let Some(version) = versions.get(item_key) else { continue };
                let Some(item) = items.get(item_key) else {
                    self.leave(item_key, &version.keys);
                    continue;
                };
                match self.ready(item_key, item, &exported_at) {
                    Ok(ready) => {
                        let (still, left): (BTreeSet<String>, BTreeSet<String>) = version
                            .keys
                            .iter()
                            .cloned()
                            .partition(|key| ready.asks_for.contains(key));
                        self.leave(item_key, &left);
                        if ready.entry.digest() != version.digest {
                            batch.add(item_key.clone(), ready.entry, still);
                        }
                    }
                    Err(NotReady::Rejected) => {}
                    Err(NotReady::Unavailable(reason)) => {
                        for key in &version.keys {
                            self.unwrite(key, &reason);
                        }
                    }
                }
            }
        }
        batch
    }

    /// Notes that a key was written and can't be vouched for.
    fn unwrite(&mut self, key: &str, reason: &str) {
        self.outcome.written -= 1;
        self.outcome.failed.insert(key.to_owned(), reason.to_owned());
    }

    /// Notes keys that were written and that the table asks for no more.
    fn leave(&mut self, item_key: &ItemKey, keys: &BTreeSet<String>) {
        if keys.is_empty() {
            return;
        }
        self.outcome.written -= u64::try_from(keys.len()).unwrap_or_default();
        match item_key.kind() {
            ItemKind::QueryConfig(config) => self.outcome.gone.push(config),
            ItemKind::IndexSettings(_) | ItemKind::Skipped => {
                self.outcome.left_behind.extend(keys.iter().cloned());
            }
        }
    }
}

impl Batch {
    fn add(&mut self, item_key: ItemKey, entry: Rc<Entry>, keys: BTreeSet<String>) {
        if keys.is_empty() {
            return;
        }
        self.bytes += entry.value_json().len() * keys.len();
        let pair = |key: &String| Pair { key: key.clone(), entry: entry.clone() };
        self.pairs.extend(keys.iter().map(pair));
        self.items.insert(item_key, Version { digest: entry.digest(), keys });
    }
}

/// The settings of an index item; `None` for any other.
fn decode(key: &ItemKey, item: &Item) -> Option<Result<IndexSettings, Rejection>> {
    match key.kind() {
        ItemKind::IndexSettings(index) => Some(decode_settings_of(&index, item)),
        ItemKind::QueryConfig(_) | ItemKind::Skipped => None,
    }
}
