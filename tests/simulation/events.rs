//! Events: changes of the table, each with its stream record, and what people do.

use std::rc::Rc;

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::item::ItemKey;

use crate::choices::Choices;
use crate::keys::{item_key, query_item_key};
use crate::model::{Aliases, Content, Flaw, Image, Settings, WriteAlias, index_id};
use crate::shape::Shape;
use crate::state::{Record, State};

/// Lets the next event happen.
pub fn fire(state: &mut State) {
    if state.events_left == 0 {
        return;
    }
    state.events_left -= 1;
    if state.shape.small {
        return fire_small(state);
    }
    let index = pick_index(state);
    let special: u32 = state.choices.below(12);
    match special {
        1..=3 => return change(state, &item_key(&index), None),
        4 if state.shape.rotation => return rotate(state, &index.account),
        5 | 6 if state.shape.re_exports => return re_export(state, &index),
        7 if state.shape.garbage => return garbage(state),
        8 if state.shape.garbage => {
            let key = ItemKey { pk: index.account.clone(), sk: "INDEX#DEFAULT_CONFIG".to_owned() };
            return change(state, &key, Some(Content::Other));
        }
        8 if state.shape.reconciles => {
            let apply = state.choices.below(4) > 0;
            return state.reconciles.push(apply);
        }
        9 | 10 if !state.shape.queries.is_empty() => return change_query(state, &index),
        _ => {}
    }
    let current = state.current(&item_key(&index)).cloned();
    let settings = match current.as_ref().and_then(|image| image.settings()) {
        Some(settings) => mutated(state, &index, settings.clone(), true),
        None => mutated(state, &index, Settings::default(), true),
    };
    put(state, &index, settings);
}

/// The events of small worlds.
fn fire_small(state: &mut State) {
    let (first, second) = (state.shape.indexes[0].clone(), state.shape.indexes[1].clone());
    let with = |shop: Option<&str>, aliases: Aliases| Settings {
        shop: shop.map(str::to_owned),
        aliases,
        ..Settings::default()
    };
    let reads = Aliases { doc_reads: Some((true, index_id(&first))), ..Aliases::default() };
    let names = Aliases { write: Some(WriteAlias::ShopId("s".to_owned())), ..Aliases::default() };
    let options = if state.shape.re_exports { 10 } else { 9 };
    match state.choices.below(options) {
        0 => put(state, &first, with(Some("s"), Aliases::default())),
        1 => change(state, &item_key(&first), None),
        2 => put(state, &first, with(Some("t"), Aliases::default())),
        3 => put(state, &second, with(Some("s"), Aliases::default())),
        4 => change(state, &item_key(&second), None),
        5 => put(state, &second, with(Some("t"), Aliases::default())),
        6 => put(state, &second, with(None, reads)),
        7 => put(state, &second, with(None, names)),
        8 => put(state, &first, with(None, Aliases::default())),
        _ => re_export(state, &first),
    }
}

fn pick_index(state: &mut State) -> IndexRef {
    let State { choices, shape, .. } = state;
    choices.pick(&shape.indexes).clone()
}

/// The settings with some random change.
pub fn mutated(
    state: &mut State,
    index: &IndexRef,
    mut settings: Settings,
    live: bool,
) -> Settings {
    let State { choices, shape, .. } = state;
    match choices.below(6) {
        0 => {}
        1..=3 => {
            let shops: Vec<Option<String>> = [None]
                .into_iter()
                .chain(shape.shops.iter().cloned().map(Some))
                .chain([Some(index_id(index))])
                .collect();
            settings.shop = choices.pick(&shops).clone();
        }
        _ => {}
    }
    if shape.aliases && choices.below(2) == 1 {
        settings.aliases = aliases(choices, shape, index);
    }
    if shape.invalid && live {
        settings.flaw = [None, None, None, Some(Flaw::NoEndpoint), Some(Flaw::BadWeight)]
            [choices.below(5) as usize];
    }
    settings.cell = [None, None, None, Some("cell-2")][choices.below(4) as usize];
    settings
}

fn aliases(choices: &mut Choices, shape: &Shape, index: &IndexRef) -> Aliases {
    let mut aliases = Aliases::default();
    let target = index_id(choices.pick(&shape.indexes));
    let on = choices.below(4) > 0;
    match choices.below(8) {
        0 => {}
        1 => aliases.read_alias = Some(target),
        2 => aliases.doc_reads = Some((on, target)),
        3 => aliases.doc_writes = Some((on, target)),
        4 => aliases.analytics = Some((on, target)),
        5 => aliases.write = Some(WriteAlias::IndexId(target)),
        6 => {
            let named = choices.pick(&shape.shops).clone();
            let shop = if on { named } else { target };
            aliases.write = Some(WriteAlias::ShopId(shop));
        }
        _ => {
            let named = choices.pick(&shape.indexes).clone();
            let account = (on || named.account != index.account).then_some(named.account);
            aliases.write = Some(WriteAlias::Name { account, name: named.name });
        }
    }
    if choices.below(4) == 1 {
        // A read alias overrides this doc_reads.
        aliases.doc_reads = Some((true, index_id(choices.pick(&shape.indexes))));
    }
    aliases
}

pub fn put(state: &mut State, index: &IndexRef, mut settings: Settings) {
    state.versions += 1;
    settings.version = state.versions;
    change(state, &item_key(index), Some(Content::Settings(settings)));
}

fn change_query(state: &mut State, index: &IndexRef) {
    let State { choices, shape, .. } = state;
    let key = query_item_key(index, choices.pick::<&str>(&shape.queries));
    let gone = state.choices.below(3) == 1;
    state.versions += 1;
    let content = (!gone).then_some(Content::Query(state.versions));
    change(state, &key, content);
}

/// Changes an item and tells the stream.
pub fn change(state: &mut State, key: &ItemKey, content: Option<Content>) {
    let old = state.current(key).cloned();
    let new = content.map(|content| Image::new(key, content));
    if old.is_none() && new.is_none() {
        return;
    }
    state.note(|| match new.as_deref().map(|image| &image.content) {
        None => format!("table: remove {}/{}", key.pk, key.sk),
        Some(content) => format!("table: put {}/{} {content:?}", key.pk, key.sk),
    });
    let step = state.next_step();
    state.stats.changes += 1;
    state.table.entry(key.clone()).or_default().push(step, new.clone());
    let event = match (&old, &new) {
        (None, _) => "INSERT",
        (_, None) => "REMOVE",
        _ => "MODIFY",
    };
    let number = format!("{:021}", step);
    let image = |name: &str, image: &Option<Rc<Image>>| match image {
        Some(image) => format!(r#","{name}":{}"#, image.json),
        None => String::new(),
    };
    let old_image = if state.shape.old_images { image("OldImage", &old) } else { String::new() };
    let json = format!(
        r#"{{"eventName":"{event}","eventSource":"aws:dynamodb","dynamodb":{{"ApproximateCreationDateTime":1795183203.0,"Keys":{{"pk":{{"S":"{}"}},"sk":{{"S":"{}"}}}},"SequenceNumber":"{number}"{}{}}}}}"#,
        key.pk,
        key.sk,
        image("NewImage", &new),
        old_image,
    );
    let shard = if state.shape.small {
        usize::from(key.pk == "b")
    } else {
        key.pk.bytes().chain(key.sk.bytes()).map(usize::from).sum::<usize>()
    };
    let shards = state.shards.len();
    let record = Record { number, json, item: Some(key.clone()), old, new };
    state.shards[shard % shards].records.push(record);
}

fn rotate(state: &mut State, account: &str) {
    let step = state.next_step();
    let key = format!("key-{account}-{step}");
    state.note(|| format!("the API key of {account} becomes {key}"));
    state.api_keys.entry(account.to_owned()).or_default().push(step, key);
}

fn re_export(state: &mut State, index: &IndexRef) {
    let queries = !state.shape.queries.is_empty() && state.choices.below(2) == 0;
    state.re_exports.push((index.clone(), queries));
}

fn garbage(state: &mut State) {
    let number = format!("{:021}", state.next_step());
    let rest = ["", r#","Keys":7"#, r#","Keys":{"pk":{"S":"a"}}"#];
    let rest = state.choices.pick(&rest);
    let json =
        format!(r#"{{"eventName":"INSERT","dynamodb":{{"SequenceNumber":"{number}"{rest}}}}}"#);
    let shard = state.choices.below(u32::try_from(state.shards.len()).unwrap());
    let record = Record { number, json, item: None, old: None, new: None };
    state.shards[shard as usize].records.push(record);
}
