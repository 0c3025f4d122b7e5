//! Two environments that share KV by mistake leave each other's keys alone.

use std::rc::Rc;

use crate::world::{Held, Kind, Namespace, State};

/// A key that another environment has had for as long as the invocation may have seen it is never
/// deleted, nor put back over, and written only for an item that asks for it: by the stream, by a
/// re-export, or by a reconcile that was told to.
pub fn problem(
    state: &mut State,
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
    let may_take = match &run.kind {
        _ if held.is_none() => false,
        Kind::Stream { .. } | Kind::ReExport => !is_put_back(state, invocation, key),
        Kind::Reconcile(request) => request.rewrite_up_to.is_some(),
    };
    if may_take {
        state.stats.taken += 1;
        return None;
    }
    let action = if held.is_some() { "written over" } else { "deleted" };
    Some(format!("{action}, but it is another environment's: {:?}", past.last()))
}

/// Whether the invocation writes a settings key again that it had deleted.
fn is_put_back(state: &State, invocation: usize, key: &str) -> bool {
    let run = &state.invocations[invocation];
    run.deleted.get(key).is_some_and(|deleted| deleted.was.is_some())
}
