//! The shape of what is written, and its metadata.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use ecom_settings_exporter::kv::StoredValue;
use serde_json::Value;

use crate::schemas::{METADATA, QUERY_CONFIG, SETTINGS, check};
use crate::world::{Held, IndexRef, ItemKey, Namespace, State, sha256};

pub fn problem(
    state: &State,
    invocation: usize,
    held: &Held,
    item: &ItemKey,
    index: &IndexRef,
) -> Option<String> {
    let metadata = held.metadata.as_deref().map(serde_json::from_str::<Value>);
    let metadata = metadata.and_then(Result::ok).unwrap_or_default();
    let run = &state.invocations[invocation];
    let exported_at = metadata["exported_at"].as_str().and_then(seconds);
    let in_time =
        exported_at.is_some_and(|at| run.began_at.floor() <= at && at <= state.wall_clock());
    let changed_at = metadata["changed_at"].as_str().and_then(seconds);
    let of_batch = run.batch.get(item);
    let created = of_batch.and_then(|told| told.created);
    // A key that a removal leaves to the item, or finds asked for again, is written from the table alone.
    let removes = run.passes > 0 || of_batch.is_some_and(|told| told.is_removal);
    let told = changed_at == created.map(|created| created as f64)
        || metadata["changed_at"].is_null() && removes;
    let right = metadata["digest"] == sha256(&held.value)
        && metadata["system_account_id"] == index.account
        && metadata["index_name"] == index.name
        && metadata["environment"] == state.environment_of(invocation).name
        && metadata["source"] == run.source()
        && in_time
        && told;
    (!right).then(|| format!("metadata {metadata}, the record is of {created:?}"))
}

fn seconds(time: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339(time).ok()?;
    Some(time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64())
}

thread_local! {
    /// The histories write the same values over and over.
    static CHECKED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Panics if a pair does not match its schema. Only what the predecessor wrote has no metadata. It may
/// be put back, whatever it is.
pub fn check_schemas(namespace: Namespace, stored: &StoredValue) {
    let Some(metadata) = &stored.metadata else { return };
    if !CHECKED.with_borrow_mut(|checked| checked.insert(stored.value.clone())) {
        return;
    }
    let schema = match namespace {
        Namespace::Settings => SETTINGS,
        Namespace::QueryConfigs => QUERY_CONFIG,
    };
    assert_eq!(check(schema, &serde_json::from_str(&stored.value).unwrap()), Ok(()));
    assert_eq!(check(METADATA, &serde_json::from_str(metadata.get()).unwrap()), Ok(()));
}
