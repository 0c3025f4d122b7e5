//! What may be written and deleted in the query-config namespace.

use std::rc::Rc;

use super::{metadata, origin};
use crate::world::{Held, Image, Namespace, State, query_item_key, query_value};

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

/// A key is not deleted while the item that its value names has asked for it all the time.
pub fn delete(state: &State, invocation: usize, key: &str) -> Option<String> {
    let (run, environment) = state.run(invocation);
    let is_there = |image: &Option<Rc<Image>>| image.is_some();
    let owner = state.held(Namespace::QueryConfigs, key)?.owner.as_ref()?;
    let queries = environment.queries_of(key);
    let mut asking = queries.iter().filter(|(index, ..)| index == owner);
    let asking = asking.find(|(_, _, past)| past.all_since(run.began, is_there));
    asking.map(|(index, query, _)| format!("deleted, but {index}'s {query} is there"))
}
