//! The shape of what is written.

use std::cell::RefCell;
use std::collections::BTreeSet;

use ecom_settings_exporter::kv::StoredValue;

use crate::schemas::{METADATA, QUERY_CONFIG, SETTINGS, check};
use crate::world::Namespace;

thread_local! {
    /// The histories write the same values over and over.
    static CHECKED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Panics if a pair does not match its schema. Only what the predecessor wrote has no metadata. It may
/// be put back, whatever it is.
pub fn pair(namespace: Namespace, stored: &StoredValue) {
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
