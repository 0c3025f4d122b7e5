//! What KV and the table hold from the start.

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::ports::Namespace;

use crate::events::mutated;
use crate::held::Held;
use crate::keys::{item_key, query_item_key, query_kv_key, sha256};
use crate::model::{Content, Image, Settings, query_value};
use crate::state::State;

/// Sets the world up: items that KV already holds, and foreign keys.
pub fn prepare(state: &mut State) {
    let indexes = state.shape.indexes.clone();
    for index in &indexes {
        let key = format!("key-{}-0", index.account);
        state.api_keys.entry(index.account.clone()).or_default().push(0, key);
    }
    if state.shape.keyless {
        state.keyless.insert(indexes[0].account.clone());
    }
    if state.shape.foreign_keys {
        let shop = state.shape.shops[0].clone();
        for (key, value) in [("foreign", "hello"), (shop.as_str(), r#"{"index_name":"x"}"#)] {
            let held = Held::new(Namespace::Settings, value.to_owned(), None);
            state.set_held(Namespace::Settings, key, Some(held));
        }
    }
    if state.shape.small {
        return prepare_small(state);
    }
    for index in &indexes {
        if state.choices.below(2) == 1 {
            let settings = mutated(state, index, Settings::default(), false);
            settle_in(state, index, settings);
        }
    }
}

/// An index that has the first shop id or does not exist, and one that may share it.
fn prepare_small(state: &mut State) {
    for (at, index) in state.shape.indexes.clone().into_iter().enumerate() {
        let options = [2, 3][at];
        let shop = match state.choices.below(options) {
            0 => continue,
            shop => state.shape.shops[shop as usize - 1].clone(),
        };
        settle_in(state, &index, Settings { shop: Some(shop), ..Settings::default() });
    }
}

/// Puts an item into the table and into KV.
pub fn settle_in(state: &mut State, index: &IndexRef, mut settings: Settings) {
    state.versions += 1;
    settings.version = state.versions;
    state.note(|| format!("from the start: {index} {settings:?}"));
    let key = item_key(index);
    let image = Image::new(&key, Content::Settings(settings.clone()));
    let step = state.next_step();
    state.table.entry(key).or_default().push(step, Some(image));
    if state.keyless.contains(&index.account) {
        return;
    }
    let value = settings.value(index, &format!("key-{}-0", index.account));
    let metadata = metadata(&value, index);
    for key in settings.kv_keys(index) {
        let held = Held::new(Namespace::Settings, value.clone(), Some(metadata.clone()));
        state.set_held(Namespace::Settings, &key, Some(held));
    }
    for query in state.shape.queries.clone() {
        if state.choices.below(2) == 0 {
            continue;
        }
        let key = query_item_key(index, query);
        let image = Image::new(&key, Content::Query(0));
        let value = query_value(index, query, 0);
        let metadata = self::metadata(&value, index);
        let held = Held::new(Namespace::QueryConfigs, value, Some(metadata));
        let step = state.next_step();
        state.table.entry(key).or_default().push(step, Some(image));
        let kv_key = query_kv_key(index, query);
        state.set_held(Namespace::QueryConfigs, &kv_key, Some(held));
    }
}

fn metadata(value: &str, index: &IndexRef) -> String {
    format!(
        r#"{{"digest":"{}","exported_at":"2026-11-21T10:00:00.000Z","source":"stream","system_account_id":"{}","index_name":"{}"}}"#,
        sha256(value),
        index.account,
        index.name
    )
}
