//! Query-config overrides: exported as they stand, removed when the table has them no more.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::bulk::{self, Failures};
use crate::entry::{Entry, Pair};
use crate::export::ItemVerdict;
use crate::plan::QueryConfigItem;
use crate::ports::{Namespace, Services, SettingsTable, TableError};
use crate::record::{Encoded, IndexRef, Item, ItemKey, QueryConfig, QueryConfigRef, Rejection};
use crate::run::{OutOfTime, Run, Service};
use crate::stream::{Change, decode_query_config};

/// Exports the query configs of a batch; a verdict for each item.
pub async fn export_batch<S: Services>(
    run: &Run<'_, S>,
    items: &[QueryConfigItem],
) -> Vec<ItemVerdict> {
    let mut verdicts =
        Verdicts { positions: BTreeMap::new(), items: vec![ItemVerdict::Done; items.len()] };
    // By key, because names that hold a dash can give two items one key: the later item has it.
    let mut pairs = BTreeMap::new();
    let mut removed = Vec::new();
    let exported_at = run.exported_at();
    for (position, item) in items.iter().enumerate() {
        let key = item.query_config.kv_key();
        verdicts.positions.entry(key.clone()).or_default().push(position);
        match &item.change {
            Change::Remove => removed.push(item.query_config.clone()),
            Change::Upsert(config) => match pair(run, &item.query_config, config, &exported_at) {
                Ok(pair) => {
                    pairs.insert(key, pair);
                }
                Err(rejection) => verdicts.items[position] = ItemVerdict::Rejected(rejection),
            },
        }
    }
    removed.retain(|config| !pairs.contains_key(&config.kv_key()));
    if !pairs.is_empty() {
        let failures = bulk::put(run, Namespace::QueryConfigs, pairs.into_values().collect()).await;
        verdicts.fail(&failures);
    }
    if !removed.is_empty() {
        let removal = remove(run, &removed).await;
        verdicts.fail_with(removal.failed);
        for (key, rejection) in removal.rejected {
            verdicts.set(&key, ItemVerdict::Rejected(rejection));
        }
    }
    verdicts.items
}

/// What a removal could not do, by KV key.
#[derive(Debug, Default)]
pub struct Removal {
    /// Keys that are gone, and stay gone.
    pub deleted: u64,
    /// To be tried again.
    pub failed: BTreeMap<String, String>,
    /// Items that were back but can't be exported: what KV holds of them stays deleted.
    pub rejected: BTreeMap<String, Rejection>,
}

/// Deletes the keys of query configs that the table has no more.
///
/// An item that is there is left to its own stream record; one that comes back while its key is
/// being deleted is exported.
pub async fn remove<S: Services>(run: &Run<'_, S>, configs: &[QueryConfigRef]) -> Removal {
    let mut removal = Removal::default();
    let by_item: BTreeMap<ItemKey, &QueryConfigRef> =
        configs.iter().map(|config| (config.item_key(), config)).collect();
    let mut gone: BTreeSet<ItemKey> = by_item.keys().cloned().collect();
    let mut fail_all = |items: &BTreeSet<ItemKey>, reason: &str| {
        for item in items {
            removal.failed.insert(by_item[item].kv_key(), reason.to_owned());
        }
    };
    match read(run, &gone).await {
        Ok(there) => gone.retain(|item| !there.contains_key(item)),
        Err(reason) => {
            fail_all(&gone, &reason);
            return removal;
        }
    }
    if gone.is_empty() {
        return removal;
    }
    let keys = gone.iter().map(|item| by_item[item].kv_key()).collect();
    let failures = bulk::delete(run, Namespace::QueryConfigs, keys).await;
    let back = match read(run, &gone).await {
        Ok(back) => back,
        Err(reason) => {
            fail_all(&gone, &reason);
            return removal;
        }
    };
    let stay_gone = gone
        .iter()
        .filter(|item| {
            !back.contains_key(*item) && !failures.contains_key(&by_item[*item].kv_key())
        })
        .count();
    removal.deleted = u64::try_from(stay_gone).unwrap_or(u64::MAX);
    removal.failed.extend(failures.into_iter().map(|(key, error)| (key, error.to_string())));
    let exported_at = run.exported_at();
    let mut pairs = Vec::new();
    for (item, image) in &back {
        let config = by_item[item];
        match decode_pair(run, config, image, &exported_at) {
            Ok(pair) => pairs.push(pair),
            Err(rejection) => {
                removal.rejected.insert(config.kv_key(), rejection);
            }
        }
    }
    let failures = bulk::put(run, Namespace::QueryConfigs, pairs).await;
    removal.failed.extend(failures.into_iter().map(|(key, error)| (key, error.to_string())));
    removal
}

/// The pair of a query config's item.
pub fn decode_pair<S: Services>(
    run: &Run<'_, S>,
    config: &QueryConfigRef,
    item: &Item,
    exported_at: &str,
) -> Result<Pair, Rejection> {
    let decoded = decode_query_config(config, &item.image()?)?;
    pair(run, config, &decoded, exported_at)
}

/// Whose query config a value in KV is; `None` where it doesn't say.
pub fn parse_stored(value: &str) -> Option<QueryConfigRef> {
    #[derive(serde::Deserialize)]
    struct Names {
        system_account_id: String,
        index_name: String,
        normalized_query: String,
    }
    let names: Names = serde_json::from_str(value).ok()?;
    let index = IndexRef::parse(&names.system_account_id, &names.index_name)?;
    Some(QueryConfigRef { index, query: names.normalized_query })
}

/// The pair of a decoded query config.
pub fn pair<S: Services>(
    run: &Run<'_, S>,
    config: &QueryConfigRef,
    decoded: &QueryConfig,
    exported_at: &str,
) -> Result<Pair, Rejection> {
    let entry = Entry::new(Encoded::of(&decoded.value), &config.index, run.source, exported_at)?;
    Ok(Pair { key: config.kv_key(), entry: Rc::new(entry) })
}

/// Reads items; the error is ready for a verdict.
pub async fn read<S: Services>(
    run: &Run<'_, S>,
    items: &BTreeSet<ItemKey>,
) -> Result<BTreeMap<ItemKey, Item>, String> {
    let keys: Vec<ItemKey> = items.iter().cloned().collect();
    let answer: Result<Result<_, TableError>, OutOfTime> =
        run.call(Service::Table, run.services.table().get(&keys)).await;
    match answer {
        Ok(Ok(items)) => Ok(items),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The verdicts of a batch's items, by KV key.
struct Verdicts {
    positions: BTreeMap<String, Vec<usize>>,
    items: Vec<ItemVerdict>,
}

impl Verdicts {
    fn set(&mut self, key: &str, verdict: ItemVerdict) {
        for position in self.positions.get(key).into_iter().flatten() {
            self.items[*position] = verdict.clone();
        }
    }

    fn fail(&mut self, failures: &Failures) {
        self.fail_with(
            failures.iter().map(|(key, error)| (key.clone(), error.to_string())).collect(),
        );
    }

    fn fail_with(&mut self, failures: BTreeMap<String, String>) {
        for (key, reason) in failures {
            self.set(&key, ItemVerdict::Failed(reason));
        }
    }
}
