//! What a reconcile may delete and rewrite, over its whole chain of runs.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::world::{
    Environment, Held, Invocation, Kind, Namespace, State, Step, index_of, query_kv_key, query_of,
    query_value,
};

/// Keys that a run may delete and rewrite however few there are.
const MIN_DELETES: u64 = 100;
const MIN_REWRITES: u64 = 1_000;

/// Notes what a reconcile is about to delete or rewrite.
pub fn count(
    state: &mut State,
    invocation: usize,
    namespace: Namespace,
    key: &str,
    held: Option<&Rc<Held>>,
) {
    let run = &mut state.invocations[invocation];
    let Kind::Reconcile(request) = &run.kind else { return };
    let listed = run.seen.listed.contains_key(&(namespace, key.to_owned()));
    // One account's shop ids are looked up, not listed.
    let seen = run.seen.of(namespace, key).filter(|_| request.account.is_some());
    let looked_up = seen.is_some_and(|seen| seen.answers.first().is_some_and(Option::is_some));
    let was_there = listed || looked_up;
    let put_back = run.delete_attempts.contains(key);
    let keys = match held {
        None => &mut run.done.deleted,
        Some(_) if was_there && !put_back => &mut run.done.rewritten,
        Some(_) => return,
    };
    keys.entry(namespace).or_default().insert(key.to_owned());
}

pub fn problem(
    state: &State,
    invocation: usize,
    namespace: Namespace,
    held: Option<&Rc<Held>>,
) -> Option<String> {
    let run = &state.invocations[invocation];
    let Kind::Reconcile(request) = &run.kind else { return None };
    let environment = state.environment_of(invocation);
    if held.is_none() && !has_indexes(environment, run.began) {
        return Some("deleted, though the table has no index item".to_owned());
    }
    let number = |keys: Option<&BTreeSet<String>>| keys.map_or(0, BTreeSet::len) as u64;
    let deleted = number(run.done.deleted.get(&namespace));
    let rewritten = number(run.done.rewritten.get(&namespace));
    if deleted <= MIN_DELETES && rewritten <= MIN_REWRITES {
        return None;
    }
    let (deletes, rewrites) = limits(run, environment, namespace);
    let deletes = deletes.max(request.delete_up_to.unwrap_or_default());
    let rewrites = rewrites.max(request.rewrite_up_to.unwrap_or_default());
    (deleted > deletes || rewritten > rewrites)
        .then(|| format!("{deleted} deletes of {deletes}, {rewritten} rewrites of {rewrites}"))
}

/// The most keys that an unattended run may delete and rewrite.
fn limits(run: &Invocation, environment: &Environment, namespace: Namespace) -> (u64, u64) {
    let listed = run.seen.listed.iter().filter(|((found, _), ours)| *found == namespace && **ours);
    let ours = listed.count() as u64;
    let desired = desired(environment, namespace, run.began);
    ((ours * 2 / 100).max(MIN_DELETES), (desired * 30 / 100).max(MIN_REWRITES))
}

/// How many deletes and rewrites a repair refuses that nothing interferes with. Only for worlds in
/// which every item can be exported.
pub fn refused(state: &State) -> (u64, u64) {
    let environment = &state.environments[0];
    let (mut deletes, mut rewrites) = (0, 0);
    for namespace in [Namespace::Settings, Namespace::QueryConfigs] {
        let held = state.kv.iter().filter(|((found, _), _)| *found == namespace);
        let held = held.filter_map(|((_, key), past)| Some((key, past.last()?.as_ref()?)));
        let (mut ours, mut orphaned, mut stale) = (0, 0, 0);
        for (key, held) in held {
            let is_ours = held.is_ours(environment.name);
            ours += u64::from(is_ours);
            match wanted(environment, namespace, key, held) {
                None => orphaned += u64::from(is_ours),
                Some(wanted) => stale += u64::from(held.value != wanted),
            }
        }
        let desired = desired(environment, namespace, state.step);
        let most = (ours * 2 / 100).max(MIN_DELETES);
        let trusted = has_indexes(environment, state.step);
        deletes += if trusted && orphaned <= most { 0 } else { orphaned };
        rewrites += if stale <= (desired * 30 / 100).max(MIN_REWRITES) { 0 } else { stale };
    }
    (deletes, rewrites)
}

/// The value that an item asks for under a key; of several items the one that KV names, else the
/// first.
fn wanted(
    environment: &Environment,
    namespace: Namespace,
    key: &str,
    held: &Held,
) -> Option<String> {
    if namespace == Namespace::QueryConfigs {
        let mut values =
            environment.queries_of(key).into_iter().filter_map(|(index, query, past)| {
                let version = past.last()?.as_ref()?.version()?;
                Some(query_value(&index, &query, version))
            });
        return values.next();
    }
    let claimants = environment.claimants(key);
    let named = held.named_for(environment.name);
    let holder = claimants.iter().find(|(index, _)| named.is_some_and(|it| it.index == *index));
    let (index, settings) = holder.or(claimants.first())?;
    Some(settings.value(index, environment.api_keys[&index.account].last()?))
}

/// The keys that items have asked for at any time since `from`.
fn desired(environment: &Environment, namespace: Namespace, from: Step) -> u64 {
    let mut keys = BTreeSet::new();
    for (item, past) in &environment.table {
        for image in past.since(from).flatten() {
            match (namespace, index_of(item), query_of(item)) {
                (Namespace::Settings, Some(index), _) => {
                    keys.extend(image.settings().into_iter().flat_map(|s| s.kv_keys(&index)));
                }
                (Namespace::QueryConfigs, _, Some((index, query))) => {
                    keys.insert(query_kv_key(&index, &query));
                }
                _ => {}
            }
        }
    }
    keys.len() as u64
}

fn has_indexes(environment: &Environment, from: Step) -> bool {
    environment.indexes().any(|(_, past)| past.since(from).any(Option::is_some))
}
