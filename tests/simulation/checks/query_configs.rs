//! What may be written and deleted in the query-config namespace.

use std::rc::Rc;

use ecom_settings_exporter::index::IndexRef;

use super::metadata;
use crate::held::Held;
use crate::keys::{query_kv_key, query_of};
use crate::model::{Content, Image, query_value};
use crate::past::Past;
use crate::state::State;

/// The index and the query of an item, and what the item was at every step.
type QueryItem<'a> = (IndexRef, String, &'a Past<Option<Rc<Image>>>);

fn query_item<'a>(state: &'a State, key: &str) -> Option<QueryItem<'a>> {
    state.table.iter().find_map(|(item, past)| {
        let (index, query) = query_of(item)?;
        (query_kv_key(&index, &query) == key).then_some((index, query, past))
    })
}

pub fn put(state: &State, key: &str, held: &Held) -> Option<String> {
    let Some((index, query, past)) = query_item(state, key) else {
        return Some("no query config has this key".to_owned());
    };
    let known = past.spans().any(|(_, _, image)| match image.as_deref() {
        Some(Image { content: Content::Query(version), .. }) => {
            held.value == query_value(&index, &query, *version)
        }
        _ => false,
    });
    if known { metadata::problem(held, &index) } else { Some(format!("value {}", held.value)) }
}

pub fn delete(state: &State, invocation: usize, key: &str) -> Option<String> {
    let began = state.invocations[invocation].began;
    let (_, _, past) = query_item(state, key)?;
    past.all_since(began, Option::is_some).then(|| "deleted, but it is there".to_owned())
}
