//! What may be written and deleted in the settings namespace.

use std::rc::Rc;

use super::{metadata, origin};
use crate::world::{
    Environment, Held, Image, IndexRef, Kind, Named, Namespace, Settings, State, Step, index_id,
    item_key,
};

pub fn put(state: &State, invocation: usize, key: &str, held: &Held) -> Option<String> {
    if is_put_back(state, invocation, key, held) {
        return None;
    }
    let environment = state.environment_of(invocation);
    let Some(named) = &held.named else {
        return Some("a value that is not the exporter's".to_owned());
    };
    let Some((image, settings)) = image_of(environment, named) else {
        return Some(format!("a value that no image of {} gives", named.index));
    };
    if !settings.asks_for(&named.index, key) {
        return Some(format!("a value whose image does not ask for the key: {image:?}"));
    }
    if named.api_key.is_empty() || held.value != settings.value(&named.index, &named.api_key) {
        return Some(format!("not the value of {}: {}", named.index, held.value));
    }
    let item = item_key(&named.index);
    origin::problem(state, invocation, &item, named.version)
        .or_else(|| metadata::problem(state, invocation, held, &item, &named.index))
        .or_else(|| stale_api_key(state, invocation, named))
        .or_else(|| wrong_claimant(state, invocation, key, named))
}

/// Whether a key that the invocation asked KV to delete gets back what it was told that it held.
fn is_put_back(state: &State, invocation: usize, key: &str, held: &Held) -> bool {
    let run = &state.invocations[invocation];
    let seen = run.seen.of(Namespace::Settings, key);
    run.delete_attempts.contains(key)
        && seen.is_some_and(|seen| {
            seen.held().any(|was| was.value == held.value && was.metadata == held.metadata)
        })
}

/// Returns the image that a value was rendered from.
fn image_of<'a>(
    environment: &'a Environment,
    named: &Named,
) -> Option<(&'a Rc<Image>, &'a Settings)> {
    let past = environment.past_of(&named.index)?;
    past.spans()
        .filter_map(|(_, _, image)| image.as_ref())
        .filter_map(|image| Some((image, image.settings()?)))
        .find(|(_, settings)| settings.version == named.version)
}

/// An API key is one that was valid since the invocation began. Where the service gave none, a batch and
/// a re-export may use the one again that KV holds of the same index.
fn stale_api_key(state: &State, invocation: usize, named: &Named) -> Option<String> {
    let (run, environment) = state.run(invocation);
    let account = &named.index.account;
    let of_account = environment.api_keys.get(account);
    if of_account.is_some_and(|past| past.since(run.began).any(|key| *key == named.api_key)) {
        return None;
    }
    let may_reuse = !matches!(run.kind, Kind::Reconcile(_)) && run.lacks_api_key(account);
    let settings = environment.settings_since(&named.index, 0);
    let mut keys = settings.flat_map(|settings| settings.kv_keys(&named.index));
    let is_told = keys.any(|key| {
        let seen = run.seen.of(Namespace::Settings, &key);
        let mut told = seen.into_iter().flat_map(|seen| seen.held());
        told.any(|was| {
            let is_its = |told: &Named| told.index == named.index && told.api_key == named.api_key;
            was.is_ours(environment.name) && was.named.as_ref().is_some_and(is_its)
        })
    });
    let problem = || format!("an old API key, {}, over a new one", named.api_key);
    (!(may_reuse && is_told)).then(problem)
}

/// A key that several items ask for stays with its owner, else it is the first's. What a batch's records
/// and a re-export are about is written under all of its keys.
fn wrong_claimant(state: &State, invocation: usize, key: &str, named: &Named) -> Option<String> {
    let (run, environment) = state.run(invocation);
    if run.is_about(&item_key(&named.index), &named.index) {
        return None;
    }
    let seen = run.seen.of(Namespace::Settings, key);
    let told = || seen.into_iter().flat_map(|seen| &seen.told);
    let owner = |was: &Option<Rc<Held>>| {
        let was = was.as_ref().filter(|was| was.is_ours(environment.name))?;
        was.owner.clone()
    };
    let holder = told().next().and_then(owner);
    // A listing does not tell the owner of what the predecessor wrote.
    let untold = told().flatten().any(|was| was.metadata.is_none());
    let is_reconcile = matches!(run.kind, Kind::Reconcile(_));
    if !told().all(|was| owner(was) == holder) || (is_reconcile && untold) {
        return None;
    }
    let asks = |image: &Option<Rc<Image>>, index: &IndexRef| {
        let settings = image.as_ref().and_then(|image| image.settings());
        settings.is_some_and(|settings| {
            settings.asks_for(index, key) && environment.exportable(index, settings)
        })
    };
    // The table may lag behind by some seconds.
    let from = state.before(run.began, origin::TABLE_LAG);
    let (rightful, sometimes): (Vec<_>, Vec<_>) = environment
        .askers(key, from)
        .partition(|(index, past)| past.all_since(from, |image| asks(image, index)));
    let rightful: Vec<IndexRef> = rightful.into_iter().map(|(index, _)| index).collect();
    if let Some(holder) = holder.filter(|holder| rightful.contains(holder)) {
        let problem =
            || format!("written for {}, but {holder} has it and asks for it", named.index);
        return (holder != named.index).then(problem);
    }
    let first = rightful.first().filter(|_| sometimes.is_empty())?;
    let problem = || format!("written for {}, but {first} comes first", named.index);
    (*first != named.index).then(problem)
}

pub fn delete(state: &State, invocation: usize, key: &str) -> Option<String> {
    let (run, environment) = state.run(invocation);
    state.held(Namespace::Settings, key)?;
    if let Some(claimant) = claimant(environment, key, run.began) {
        return Some(format!("deleted, but {claimant} all the time"));
    }
    let told = run.seen.of(Namespace::Settings, key).into_iter().flat_map(|seen| seen.held());
    // One response that lets it go is enough: which of them decided is not known.
    let reasons = told.map(|told| match &told.owner {
        Some(owner) if told.is_ours(environment.name) => {
            protector(environment, key, owner, run.began)
        }
        _ => Some("it was foreign".to_owned()),
    });
    let reasons: Vec<String> = reasons.collect::<Option<_>>()?;
    if reasons.is_empty() {
        return Some("deleted, but KV was never read to hold it".to_owned());
    }
    Some(format!("deleted, but {} all the time", reasons.join(" or ")))
}

/// Returns who has asked for a key all the time since `from`.
pub fn claimant(environment: &Environment, key: &str, from: Step) -> Option<String> {
    let mut claimants = environment.askers(key, from).filter(|(index, past)| {
        past.all_since(from, |image| {
            let settings = image.as_ref().and_then(|image| image.settings());
            settings.is_some_and(|settings| settings.asks_for(index, key))
        })
    });
    claimants.next().map(|(index, _)| format!("{index} asks for it"))
}

/// Returns what has protected a key that nobody asks for, all the time since `from`.
pub fn protector(
    environment: &Environment,
    key: &str,
    owner: &IndexRef,
    from: Step,
) -> Option<String> {
    let item = item_key(owner);
    let own = environment.table.get(&item);
    let invalid = own.is_some_and(|own| {
        own.all_since(from, |image| {
            let settings = image.as_ref().and_then(|image| image.settings());
            settings.is_some_and(|settings| !environment.is_valid(settings))
        })
    });
    if invalid {
        return Some(format!("{owner} can't be exported"));
    }
    let gone = own.is_none_or(|own| own.since(from).all(Option::is_none));
    let pointer = environment.pointer(from, &item, key).or_else(|| {
        let pointer = environment.pointer(from, &item, &index_id(owner));
        pointer.filter(|_| gone)
    });
    pointer.map(|pointer| format!("{}/{} points at it", pointer.pk, pointer.sk))
}
