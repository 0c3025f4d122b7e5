//! Two environments that share KV by mistake leave each other's keys alone.

use std::rc::Rc;

use crate::world::{Held, Namespace, State, item_key};

/// A key that another environment has had for as long as the invocation may have seen it is never
/// deleted, nor put back over. It is written only for the item that a record or a re-export is about.
/// Query configs have no such rule but for a reconcile's.
pub fn problem(
    state: &State,
    invocation: usize,
    namespace: Namespace,
    key: &str,
    held: Option<&Rc<Held>>,
) -> Option<String> {
    let past = state.kv.get(&(namespace, key.to_owned()))?;
    let run = &state.invocations[invocation];
    let name = state.environment_of(invocation).name;
    let from = run.seen.from(namespace, key, state.step);
    let is_anothers =
        |was: &Option<Rc<Held>>| was.as_ref().is_some_and(|was| was.is_another_environments(name));
    if !past.all_since(from, is_anothers) {
        return None;
    }
    let may_take = match (namespace, held.and_then(|held| held.owner.as_ref())) {
        (Namespace::QueryConfigs, _) => run.source() != "reconcile",
        (Namespace::Settings, None) => false,
        (Namespace::Settings, Some(owner)) => {
            !run.deleted.contains_key(key) && run.is_about(&item_key(owner), owner)
        }
    };
    let action = if held.is_some() { "written over" } else { "deleted" };
    (!may_take).then(|| format!("{action}, but it is another environment's: {:?}", past.last()))
}
