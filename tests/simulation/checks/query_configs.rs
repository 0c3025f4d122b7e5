//! What may be written and deleted in the query-config namespace.

use std::rc::Rc;

use super::{metadata, origin};
use crate::world::{Held, Image, State, query_item_key, query_value};

pub fn put(state: &State, invocation: usize, key: &str, held: &Held) -> Option<String> {
    let environment = state.environment_of(invocation);
    let queries = environment.queries_of(key);
    let written = queries.iter().find_map(|(index, query, past)| {
        let versions = past.spans().filter_map(|(_, _, image)| image.as_ref()?.version());
        let mut versions = versions.filter(|v| held.value == query_value(index, query, *v));
        Some((index, query, versions.next()?))
    });
    let Some((index, query, version)) = written else {
        return Some(format!("not the value of a query config with this key: {}", held.value));
    };
    let item = query_item_key(index, query);
    origin::problem(state, invocation, &item, version)
        .or_else(|| metadata::problem(state, invocation, held, &item, index))
}

/// A key is not deleted while its items have asked for it all the time.
pub fn delete(state: &State, invocation: usize, key: &str) -> Option<String> {
    let (run, environment) = state.run(invocation);
    let is_there = |image: &Option<Rc<Image>>| image.is_some();
    let queries = environment.queries_of(key);
    // Of two items with one key, the removal of either deletes it.
    let asked = queries.iter().all(|(_, _, past)| past.all_since(run.began, is_there));
    let first = queries.first().filter(|_| asked);
    first.map(|(index, query, _)| format!("deleted, but {index}'s {query} is there"))
}
