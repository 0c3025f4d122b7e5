//! Changes of the table, each with its stream record.

use std::rc::Rc;

use super::{Content, EPOCH, Image, IndexRef, ItemKey, Record, Settings, State, item_key};

pub fn put(state: &mut State, environment: usize, index: &IndexRef, mut settings: Settings) {
    state.versions += 1;
    settings.version = state.versions;
    change(state, environment, &item_key(index), Some(Content::Settings(settings)));
}

/// Changes an item and tells the stream.
pub fn change(state: &mut State, environment: usize, key: &ItemKey, content: Option<Content>) {
    let old = state.environments[environment].current(key).cloned();
    let new = content.map(|content| Image::new(key, content));
    if old.is_none() && new.is_none() {
        return;
    }
    let name = state.environments[environment].name;
    state.note(|| match new.as_deref().map(|image| &image.content) {
        None => format!("{name}: remove {}/{}", key.pk, key.sk),
        Some(content) => format!("{name}: put {}/{} {content:?}", key.pk, key.sk),
    });
    set(state, environment, key, new.clone());
    state.count("changes", 1);
    let event = match (&old, &new) {
        (None, _) => "INSERT",
        (_, None) => "REMOVE",
        _ => "MODIFY",
    };
    let is_readable = !state.shape.garbage || state.choices.below(6) != 5;
    let image = |name: &str, image: &Option<Rc<Image>>| match image {
        Some(image) if is_readable => format!(r#","{name}":{}"#, image.json),
        Some(_) => format!(r#","{name}":7"#),
        None => String::new(),
    };
    let number = format!("{:021}", state.step);
    let (created, time) = created(state);
    let old_image = if state.shape.old_images { image("OldImage", &old) } else { String::new() };
    let json = format!(
        r#"{{"eventName":"{event}","eventSource":"aws:dynamodb","dynamodb":{{{time}"Keys":{{"pk":{{"S":"{}"}},"sk":{{"S":"{}"}}}},"SequenceNumber":"{number}"{}{}}}}}"#,
        key.pk,
        key.sk,
        image("NewImage", &new),
        old_image,
    );
    let shard = shard_of(state, environment, key);
    let item = Some(key.clone());
    let record = Record { number, json, created, item, is_readable, new };
    state.environments[environment].shards[shard].records.push(record);
}

/// Changes an item without a stream record, as a restored table does.
pub fn set(state: &mut State, environment: usize, key: &ItemKey, image: Option<Rc<Image>>) {
    let step = state.next_step();
    state.environments[environment].table.entry(key.clone()).or_default().push(step, image);
}

/// A record of which not even the item can be read.
pub fn garbage(state: &mut State, environment: usize) {
    let number = format!("{:021}", state.next_step());
    let rest = ["", r#","Keys":7"#, r#","Keys":{"pk":{"S":"a"}}"#];
    let rest = state.choices.pick(&rest);
    let json =
        format!(r#"{{"eventName":"INSERT","dynamodb":{{"SequenceNumber":"{number}"{rest}}}}}"#);
    let shards = &mut state.environments[environment].shards;
    let shard = state.choices.below(u32::try_from(shards.len()).unwrap());
    shards[shard as usize].records.push(Record { number, json, ..Record::default() });
}

/// Returns when the table takes a change, to the second, and how the record says it. Some say it in a
/// shape that can't be read.
fn created(state: &mut State) -> (Option<u64>, String) {
    let created = EPOCH + state.now().as_secs();
    let told = |value: &str| format!(r#""ApproximateCreationDateTime":{value},"#);
    match if state.shape.garbage { state.choices.below(6) } else { 0 } {
        4 => (None, String::new()),
        5 => (None, told(r#""yesterday""#)),
        _ => (Some(created), told(&format!("{created}.0"))),
    }
}

/// In small worlds each index has a shard of its own.
fn shard_of(state: &State, environment: usize, key: &ItemKey) -> usize {
    let shards = state.environments[environment].shards.len();
    let shard = if state.shape.is_plain() {
        let accounts = state.shape.indexes.iter().map(|index| &index.account);
        accounts.take_while(|account| **account != key.pk).count()
    } else {
        key.pk.bytes().chain(key.sk.bytes()).map(usize::from).sum::<usize>()
    };
    shard % shards
}
