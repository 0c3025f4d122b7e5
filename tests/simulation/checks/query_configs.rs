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
    let origin = match origin::of(state, invocation, &item, version) {
        Ok(origin) => origin,
        Err(problem) => return Some(problem),
    };
    let metadata = || metadata::problem(state, invocation, held, &item, index, origin);
    // A key that no record of the batch changes is written for the first that has it.
    let run = &state.invocations[invocation];
    let changed = run.batch.deciding.get(&item).is_some_and(|record| record.version.is_some());
    let first = queries.iter().find(|(_, _, past)| past.since(run.began).any(Option::is_some));
    let unchanged = queries.iter().all(|(_, _, past)| past.changed() <= run.began);
    let for_another =
        first.is_some_and(|(first, ..)| first != index) && unchanged && run.is_stream() && !changed;
    for_another.then(|| format!("written for {index}, which is not the first")).or_else(metadata)
}

/// A key is not deleted while an item has asked for it all the time.
pub fn delete(state: &State, invocation: usize, key: &str) -> Option<String> {
    let run = &state.invocations[invocation];
    let queries = state.environment_of(invocation).queries_of(key);
    let is_there = |image: &Option<Rc<Image>>| image.is_some();
    let asking = queries.iter().find(|(_, _, past)| past.all_since(run.began, is_there));
    if let Some((index, query, _)) = asking {
        return Some(format!("deleted, but {index}'s {query} is there"));
    }
    let unseen = run.seen.of(Namespace::QueryConfigs, key).is_none();
    unseen.then(|| "deleted without a look at what KV holds".to_owned())
}
