//! Events: changes of the table, each with its stream record, and what people do.

use serde_json::{Value, json};

use super::{
    DEFAULT_CELL, EPOCH, Image, IndexRef, ItemKey, ItemRef, OTHER_CELL, Reconcile, Record,
};
use super::{Shape, State};
use crate::choices::Choices;

/// What can happen in an environment.
#[derive(Debug, Clone)]
pub enum Event {
    /// An item gets these attributes, or is removed.
    Change(usize, ItemRef, Option<Value>),
    Rotation(usize, String),
    ReExport(usize, IndexRef, bool),
    Reconcile(usize, Reconcile),
}

impl Event {
    /// Settings with a shop id, if that is not empty, and an alias.
    pub fn put(environment: usize, index: &IndexRef, shop: &str, alias: Option<Value>) -> Self {
        let mut attributes = alias.unwrap_or_else(|| json!({}));
        attributes["index_endpoint"] = json!({});
        if !shop.is_empty() {
            attributes["shop_id"] = json!({"S": shop});
        }
        Self::Change(environment, index.clone().into(), Some(attributes))
    }

    pub fn remove(environment: usize, index: &IndexRef) -> Self {
        Self::Change(environment, index.clone().into(), None)
    }

    /// An alias that reads from an index.
    pub fn reads(index: &IndexRef) -> Value {
        json!({"index_aliases": {"M": {"doc_reads": list(true, &index.index_id(), "1")}}})
    }

    /// An alias that writes to what lives under a shop id.
    pub fn writes_to_shop(shop: &str) -> Value {
        write_alias(&json!({"shop_id": {"S": shop}}))
    }
}

/// Lets the next event happen.
pub fn fire(state: &mut State) {
    if state.events_left == 0 {
        return;
    }
    state.events_left -= 1;
    let event = match state.shape.is_small() {
        true => from_menu(state),
        false => random(state),
    };
    match event {
        Event::Change(at, item, attributes) => change(state, at, &item, attributes),
        Event::Rotation(at, account) => {
            let step = state.next_step();
            let environment = &mut state.environments[at];
            let key = format!("key-{}-{account}-{step}", environment.name);
            state.note(|| format!("the API key of {account} becomes {key}"));
            state.environments[at].api_keys.entry(account).or_default().push(step, key);
        }
        Event::ReExport(at, index, queries) => {
            state.environments[at].re_exports.push((index, queries));
        }
        Event::Reconcile(at, reconcile) => state.environments[at].reconciles.push(reconcile),
    }
}

/// One of the events of a small world that would change anything; the first is the plainest.
fn from_menu(state: &mut State) -> Event {
    let changes = |event: &&Event| match event {
        Event::Change(at, item, None) => state.environments[*at].current(&item.key()).is_some(),
        _ => true,
    };
    let events: Vec<Event> = state.shape.menu.iter().filter(changes).cloned().collect();
    state.choices.pick(&events).clone()
}

fn random(state: &mut State) -> Event {
    let State { choices, shape, environments, .. } = state;
    let at = choices.below(u32::try_from(environments.len()).unwrap()) as usize;
    let index = choices.pick(&shape.indexes).clone();
    match choices.below(12) {
        1..=3 => return Event::remove(at, &index),
        4 if shape.rotation => return Event::Rotation(at, index.account),
        5 | 6 if shape.re_exports => {
            let queries = !shape.queries.is_empty() && choices.below(2) == 0;
            return Event::ReExport(at, index, queries);
        }
        8 if shape.reconciles => {
            let up_to = [None, None, Some(0), Some(1_000)];
            let reconcile = Reconcile {
                apply: choices.below(4) > 0,
                account: (choices.below(4) == 1).then_some(index.account),
                delete_up_to: *choices.pick(&up_to),
                rewrite_up_to: *choices.pick(&up_to),
            };
            return Event::Reconcile(at, reconcile);
        }
        9 | 10 if !shape.queries.is_empty() => {
            let query = Some(choices.pick(&shape.queries).to_string());
            let is_there = choices.below(3) != 1;
            return Event::Change(at, ItemRef { index, query }, is_there.then(|| json!({})));
        }
        _ => {}
    }
    let item = ItemRef::from(index);
    let current = environments[at].current(&item.key()).map(|image| image.attributes.clone());
    let attributes = mutated(state, &item.index, current.unwrap_or_else(|| json!({})), true);
    Event::Change(at, item, Some(attributes))
}

/// Returns an index's attributes with some random change. `live` ones may make it one that can't be exported.
pub fn mutated(state: &mut State, index: &IndexRef, mut item: Value, live: bool) -> Value {
    let State { choices, shape, .. } = state;
    if let 1..=3 = choices.below(6) {
        let mut shops = vec![String::new(), index.index_id()];
        shops.extend(shape.shops.iter().cloned());
        item["shop_id"] = json!({"S": choices.pick(&shops)});
    }
    item["index_endpoint"] = json!({});
    let flaw = if shape.invalid && live { choices.below(5) } else { 0 };
    if flaw == 3 {
        item.as_object_mut().unwrap().remove("index_endpoint");
    }
    let weight = if flaw == 4 { "7" } else { "1" };
    if shape.aliases && choices.below(2) == 1 || flaw == 4 {
        for name in ["read_alias", "index_aliases", "add_docs_config"] {
            item.as_object_mut().unwrap().remove(name);
        }
        let (name, alias) = alias(choices, shape, index, weight);
        item[name] = alias;
        if choices.below(4) == 1 || flaw == 4 {
            // A read alias overrides this.
            let target = choices.pick(&shape.indexes).index_id();
            item["index_aliases"] = json!({"M": {"doc_reads": list(true, &target, weight)}});
        }
    }
    let cell = if choices.below(4) == 3 { OTHER_CELL } else { DEFAULT_CELL };
    item["cell"] = json!({"S": cell});
    item
}

/// Returns an alias, and the attribute that it is in.
fn alias(
    choices: &mut Choices,
    shape: &Shape,
    index: &IndexRef,
    weight: &str,
) -> (&'static str, Value) {
    let target = choices.pick(&shape.indexes);
    let id = target.index_id();
    let on = choices.below(4) > 0;
    let block = |name: &str, block: Value| ("index_aliases", json!({"M": {name: block}}));
    let write = |entry: Value| ("add_docs_config", write_alias(&entry)["add_docs_config"].clone());
    match choices.below(7) {
        0 => ("read_alias", json!({"S": id})),
        1 => block("doc_reads", list(on, &id, weight)),
        2 => block("doc_writes", list(on, &id, "1")),
        3 => block("analytics", json!({"M": {"enabled": {"BOOL": on}, "index_id": {"S": id}}})),
        4 => write(json!({"index_id": {"S": id}})),
        5 => {
            let shop = if on { choices.pick(&shape.shops) } else { &id };
            write(json!({"shop_id": {"S": shop}}))
        }
        _ => {
            let mut entry = json!({"index_name": {"S": target.name}});
            if on || target.account != index.account {
                entry["system_account_id"] = json!({"S": target.account});
            }
            write(entry)
        }
    }
}

/// A block of an alias with one target.
fn list(on: bool, index_id: &str, weight: &str) -> Value {
    let target = json!({"M": {"index_id": {"S": index_id}, "weight": {"N": weight}}});
    json!({"M": {"enabled": {"BOOL": on}, "targets": {"L": [target]}}})
}

fn write_alias(entry: &Value) -> Value {
    json!({"add_docs_config": {"M": {"index_write_aliases": {"L": [{"M": entry}]}}}})
}

/// Changes an item and tells the stream.
fn change(state: &mut State, environment: usize, item: &ItemRef, attributes: Option<Value>) {
    let key = item.key();
    let old = state.environments[environment].current(&key).cloned();
    let new = attributes.map(|attributes| Image::new(item, state.next_version(), attributes));
    if old.is_none() && new.is_none() {
        return;
    }
    let name = state.environments[environment].name;
    state.note(|| match &new {
        None => format!("{name}: remove {item}"),
        Some(image) => format!("{name}: put {item} v{}: {}", image.version, image.attributes),
    });
    state.set_item(environment, &key, new.clone());
    state.count("changes", 1);
    let event = match (&old, &new) {
        (None, _) => "INSERT",
        (_, None) => "REMOVE",
        _ => "MODIFY",
    };
    let number = format!("{:021}", state.step);
    let ItemKey { pk, sk } = &key;
    let mut record = json!({
        "ApproximateCreationDateTime": EPOCH + state.now().as_secs(),
        "Keys": {"pk": {"S": pk}, "sk": {"S": sk}},
        "SequenceNumber": number,
    });
    let old = old.filter(|_| state.shape.old_images);
    for (name, image) in [("NewImage", &new), ("OldImage", &old)] {
        if let Some(image) = image {
            record[name] = image.attributes.clone();
        }
    }
    let json = json!({"eventName": event, "eventSource": "aws:dynamodb", "dynamodb": record});
    let shard = shard_of(state, environment, &key);
    let record = Record { number, json: json.to_string(), item: key, new };
    state.environments[environment].shards[shard].records.push(record);
}

/// In small worlds each index has a shard of its own.
fn shard_of(state: &State, environment: usize, key: &ItemKey) -> usize {
    let shards = state.environments[environment].shards.len();
    let shard = match state.shape.is_small() {
        true => state.shape.indexes.iter().take_while(|index| index.account != key.pk).count(),
        false => key.pk.bytes().chain(key.sk.bytes()).map(usize::from).sum(),
    };
    shard % shards
}
