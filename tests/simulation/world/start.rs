//! What KV and the tables hold from the start.

use super::{
    About, Content, Crowd, Held, Image, IndexRef, Namespace, Settings, State, item_key, mutated,
    query_item_key, query_kv_key, query_value, set, sha256,
};

/// Sets the world up: items that KV already holds, and foreign keys.
pub fn prepare(state: &mut State) {
    let indexes = state.shape.indexes.clone();
    for environment in 0..state.environments.len() {
        give_api_keys(state, environment);
    }
    if state.shape.foreign_keys {
        let shop = state.shape.shops[0].clone();
        let foreign = [
            ("foreign", "hello", None),
            (shop.as_str(), r#"{"index_name":"x"}"#, None),
            ("a-x", "hello", Some(r#"{"other":1}"#)),
        ];
        for (key, value, metadata) in foreign {
            let metadata = metadata.map(str::to_owned);
            let held = Held::new(Namespace::Settings, value.to_owned(), metadata);
            state.set_held(Namespace::Settings, key, Some(held));
        }
    }
    match state.shape.small.map(|small| small.about) {
        Some(About::Settings | About::ReExports) => return prepare_small(state),
        Some(About::Environments) => return prepare_environments(state),
        None => {}
    }
    crowd(state);
    for environment in 0..state.environments.len() {
        for index in &indexes {
            if state.choices.below(2) == 1 {
                let settings = mutated(state, index, Settings::default(), false);
                settle_in(state, environment, index, settings);
            }
        }
    }
}

fn give_api_keys(state: &mut State, environment: usize) {
    let indexes = state.shape.indexes.clone();
    let keyless = state.shape.keyless;
    let environment = &mut state.environments[environment];
    for index in &indexes {
        let key = first_api_key(environment.name, &index.account);
        environment.api_keys.entry(index.account.clone()).or_default().push(0, key);
    }
    if keyless {
        environment.keyless.insert(indexes[0].account.clone());
    }
}

fn first_api_key(environment: &str, account: &str) -> String {
    format!("key-{environment}-{account}-0")
}

/// The account of the indexes that nothing happens to.
const CROWD: &str = "crowd";

/// Items with one key each that KV holds in an older version, and keys without an item.
fn crowd(state: &mut State) {
    let Crowd { orphans, orphaned_queries, stale } = state.shape.crowd;
    let index =
        |kind: &str, at: usize| IndexRef { account: CROWD.to_owned(), name: format!("{kind}{at}") };
    let api_key = first_api_key(state.environments[0].name, CROWD);
    state.environments[0].api_keys.entry(CROWD.to_owned()).or_default().push(0, api_key);
    for at in 0..stale {
        let index = index("stale", at);
        settle_in(state, 0, &index, Settings::default());
        state.versions += 1;
        let settings = Settings { version: state.versions, ..Settings::default() };
        let key = item_key(&index);
        set(state, 0, &key, Some(Image::new(&key, Content::Settings(settings))));
    }
    for at in 0..orphans {
        hold(state, 0, &index("orphan", at), &Settings::default());
    }
    for at in 0..orphaned_queries {
        hold_query(state, 0, &index("orphan", at), "p", 0);
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
        settle_in(state, 0, &index, Settings { shop: Some(shop), ..Settings::default() });
    }
}

/// The index is there in the first environment, or in both; KV holds the second's.
fn prepare_environments(state: &mut State) {
    let index = state.shape.indexes[0].clone();
    let has_it = state.choices.below(3) as usize;
    for environment in 0..has_it {
        let settings = Settings { shop: Some("s".to_owned()), ..Settings::default() };
        settle_in(state, environment, &index, settings);
    }
}

/// Puts an item into the table and into KV.
fn settle_in(state: &mut State, at: usize, index: &IndexRef, mut settings: Settings) {
    state.versions += 1;
    settings.version = state.versions;
    let name = state.environments[at].name;
    state.note(|| format!("from the start in {name}: {index} {settings:?}"));
    let key = item_key(index);
    set(state, at, &key, Some(Image::new(&key, Content::Settings(settings.clone()))));
    if state.environments[at].keyless.contains(&index.account) {
        return;
    }
    hold(state, at, index, &settings);
    for query in state.shape.queries.clone() {
        if state.choices.below(2) == 1 {
            settle_query_in(state, at, index, query);
        }
    }
}

/// Puts a query config into the table and into KV.
fn settle_query_in(state: &mut State, at: usize, index: &IndexRef, query: &str) {
    state.versions += 1;
    let version = state.versions;
    let key = query_item_key(index, query);
    let name = state.environments[at].name;
    state.note(|| format!("from the start in {name}: {}/{} v{version}", key.pk, key.sk));
    set(state, at, &key, Some(Image::new(&key, Content::Query(version))));
    hold_query(state, at, index, query, version);
}

/// Puts settings into KV.
fn hold(state: &mut State, at: usize, index: &IndexRef, settings: &Settings) {
    let name = state.environments[at].name;
    let value = settings.value(index, &first_api_key(name, &index.account));
    let metadata = metadata_of(state, name, &value, index);
    for key in settings.kv_keys(index) {
        let held = Held::new(Namespace::Settings, value.clone(), metadata.clone());
        state.set_held(Namespace::Settings, &key, Some(held));
    }
}

fn hold_query(state: &mut State, at: usize, index: &IndexRef, query: &str, version: u32) {
    let name = state.environments[at].name;
    let value = query_value(index, query, version);
    let metadata = metadata_of(state, name, &value, index);
    let held = Held::new(Namespace::QueryConfigs, value, metadata);
    state.set_held(Namespace::QueryConfigs, &query_kv_key(index, query), Some(held));
}

/// The metadata, in the present form or in one of those before it.
fn metadata_of(state: &mut State, name: &str, value: &str, index: &IndexRef) -> Option<String> {
    let form = if state.shape.predecessors { state.choices.below(3) } else { 0 };
    let environment = match form {
        0 => format!(r#","environment":"{name}""#),
        1 => String::new(),
        _ => return None,
    };
    Some(format!(
        r#"{{"digest":"{}","exported_at":"2026-11-20T10:00:00.000Z","source":"stream","system_account_id":"{}","index_name":"{}"{environment}}}"#,
        sha256(value),
        index.account,
        index.name
    ))
}
