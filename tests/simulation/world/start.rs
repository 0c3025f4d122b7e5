//! What KV and the tables hold from the start.

use ecom_settings_exporter::json::Json;
use ecom_settings_exporter::kv::{Digest, StoredValue};
use serde_json::{Value, json};

use super::{Crowd, Held, Image, IndexRef, ItemRef, KvKey, State, mutated};

/// Sets the world up: items that KV already holds, and foreign keys.
pub fn prepare(state: &mut State) {
    let indexes = state.shape.indexes.clone();
    for at in 0..state.environments.len() {
        for index in &indexes {
            give_api_key(state, at, &index.account);
        }
    }
    if state.shape.foreign_keys {
        let shop = state.shape.shops[0].clone();
        for (key, value, metadata) in [
            ("foreign", "hello", None),
            (&shop, r#"{"index_name":"x"}"#, None),
            ("a-x", "hello", Some(json!({"other": 1}))),
        ] {
            hold(state, &KvKey::of_settings(key), value.to_owned(), metadata);
        }
    }
    crowd(state);
    for at in 0..state.environments.len() {
        for (number, index) in indexes.iter().enumerate() {
            let attributes = match (state.shape.is_small(), state.choices.below(2)) {
                (_, 0) => continue,
                (false, _) => mutated(state, index, json!({}), false),
                // The first has the first shop id, the second may share it.
                (true, _) => {
                    let shops = &state.shape.shops[..=number.min(1)];
                    json!({"index_endpoint": {}, "shop_id": {"S": state.choices.pick(shops)}})
                }
            };
            settle_in(state, at, &index.clone().into(), attributes);
            for query in state.shape.queries.clone() {
                if state.choices.below(2) == 1 {
                    let query = Some(query.to_owned());
                    settle_in(state, at, &ItemRef { index: index.clone(), query }, json!({}));
                }
            }
        }
    }
}

fn give_api_key(state: &mut State, at: usize, account: &str) {
    let environment = &mut state.environments[at];
    let key = format!("key-{}-{account}-0", environment.name);
    let past = environment.api_keys.entry(account.to_owned()).or_default();
    if past.last().is_none() {
        past.push(0, key);
    }
}

/// The account of the indexes that nothing happens to.
const CROWD: &str = "crowd";

/// Items with one key each that KV holds in an older version, and keys without an item.
fn crowd(state: &mut State) {
    let Crowd { orphans, orphaned_queries, stale } = state.shape.crowd;
    let item = |kind: &str, number: usize| {
        let name = format!("{kind}{number}");
        ItemRef::from(IndexRef { account: CROWD.to_owned(), name })
    };
    give_api_key(state, 0, CROWD);
    let whole = || json!({"index_endpoint": {}});
    for number in 0..stale {
        let item = item("stale", number);
        settle_in(state, 0, &item, whole());
        let image = Image::new(&item, state.next_version(), whole());
        state.set_item(0, &item.key(), Some(image));
    }
    for number in 0..orphans {
        hold_image(
            state,
            0,
            &item("orphan", number),
            &Image::new(&item("orphan", number), 0, whole()),
        );
    }
    for number in 0..orphaned_queries {
        let item = ItemRef { query: Some("p".to_owned()), ..item("orphan", number) };
        hold_image(state, 0, &item, &Image::new(&item, 0, json!({})));
    }
}

/// Puts an item into the table and into KV.
fn settle_in(state: &mut State, at: usize, item: &ItemRef, attributes: Value) {
    let image = Image::new(item, state.next_version(), attributes);
    let name = state.environments[at].name;
    state.note(|| {
        format!("from the start in {name}: {item} v{}: {}", image.version, image.attributes)
    });
    state.set_item(at, &item.key(), Some(image.clone()));
    hold_image(state, at, item, &image);
}

/// Puts what an exporter made of an image into KV, in the present form or in one of those before it.
fn hold_image(state: &mut State, at: usize, item: &ItemRef, image: &Image) {
    let IndexRef { account, name } = &item.index;
    let environment = state.environments[at].name;
    let Some(value) = image.value(&format!("key-{environment}-{account}-0")) else { return };
    let form = if state.shape.predecessors { state.choices.below(3) } else { 0 };
    let mut metadata = json!({
        "digest": Digest::of(value.as_bytes()),
        "exported_at": "2026-11-20T10:00:00.000Z",
        "source": "stream",
        "system_account_id": account,
        "index_name": name,
    });
    if form == 0 {
        metadata["environment"] = json!(environment);
    }
    for key in &image.keys {
        hold(state, key, value.clone(), Some(metadata.clone()).filter(|_| form < 2));
    }
}

fn hold(state: &mut State, key: &KvKey, value: String, metadata: Option<Value>) {
    let metadata = metadata.map(|json| Json::of(&json).unwrap());
    state.set_held(key, Some(Held::new(StoredValue { value, metadata })));
}
