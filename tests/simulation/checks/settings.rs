//! What may be written and deleted in the settings namespace.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::{metadata, origin};
use crate::world::{
    Environment, Held, Image, IndexRef, ItemPast, Named, Namespace, Naming, Settings, State, Step,
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
    let origin = match origin::of(state, invocation, &item, named.version) {
        Ok(origin) => origin,
        Err(problem) => return Some(problem),
    };
    if let Some(problem) = metadata::problem(state, invocation, held, &item, &named.index, origin) {
        return Some(problem);
    }
    if !key_is_fresh(state, invocation, named) {
        return Some(format!("an old API key, {}, over a new one", named.api_key));
    }
    wrong_claimant(state, invocation, key, named)
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

/// The image that a value was rendered from.
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

fn key_is_fresh(state: &State, invocation: usize, named: &Named) -> bool {
    let (run, environment) = state.run(invocation);
    let account = &named.index.account;
    let of_account = environment.api_keys.get(account);
    if of_account.is_some_and(|past| past.since(run.began).any(|key| *key == named.api_key)) {
        return true;
    }
    // If the service gives no answer, the key that KV held of the same index may be used again. In
    // any cell: a re-export keeps its key when the item moves to another cell.
    let settings = environment.settings_since(&named.index, 0);
    let keys: BTreeSet<String> =
        settings.flat_map(|settings| settings.kv_keys(&named.index)).collect();
    run.unanswered.iter().any(|(_, asked)| asked == account)
        && keys.iter().filter_map(|key| run.seen.of(Namespace::Settings, key)).any(|seen| {
            seen.held()
                .filter_map(|was| was.named_for(environment.name))
                .any(|was| was.index == named.index && was.api_key == named.api_key)
        })
}

/// A key that several items ask for stays with the one that KV names, else it is the first's.
fn wrong_claimant(state: &State, invocation: usize, key: &str, named: &Named) -> Option<String> {
    let (run, environment) = state.run(invocation);
    let of_the_batch = run.batch.deciding.contains_key(&item_key(&named.index));
    if of_the_batch || !run.is_stream() {
        return None;
    }
    let seen = run.seen.of(Namespace::Settings, key)?;
    let claims = |past: &ItemPast, index: &IndexRef| {
        past.all_since(run.began, |image| {
            settings_of(image).is_some_and(|settings| settings.asks_for(index, key))
        })
    };
    let told: Vec<Option<&Named>> = seen
        .answers
        .iter()
        .map(|was| was.as_ref().and_then(|was| was.named_for(environment.name)))
        .collect();
    let holder = told.first().copied().flatten();
    let agreed = told.iter().all(|was| was.map(|was| &was.index) == holder.map(|was| &was.index));
    if !agreed {
        return None;
    }
    let all_the_time: Vec<_> = environment
        .indexes()
        .filter(|(index, past)| claims(past, index))
        .map(|(index, _)| index)
        .collect();
    let ever = environment.indexes().filter(|(index, past)| {
        past.since(run.began)
            .any(|image| settings_of(image).is_some_and(|settings| settings.asks_for(index, key)))
    });
    if let Some(holder) = holder.filter(|holder| all_the_time.contains(&holder.index)) {
        let problem =
            || format!("written for {}, but {} has it and asks for it", named.index, holder.index);
        return (holder.index != named.index).then(problem);
    }
    let unchanged = ever.count() == all_the_time.len();
    let first = all_the_time.first().filter(|first| unchanged && **first != named.index)?;
    Some(format!("written for {}, but {first} comes first", named.index))
}

pub fn delete(state: &State, invocation: usize, key: &str) -> Option<String> {
    let (run, environment) = state.run(invocation);
    state.held(Namespace::Settings, key)?;
    if let Some(claimant) = claimant(environment, key, run.began) {
        return Some(format!("deleted, but {claimant} all the time"));
    }
    let Some(seen) = run.seen.of(Namespace::Settings, key) else {
        return Some("deleted without a look at what KV holds".to_owned());
    };
    // One answer that lets it go is enough: which of them decided is not known.
    let reasons = seen.answers.iter().map(|told| match told {
        Some(told) => match told.named_for(environment.name) {
            None => Some("it was foreign".to_owned()),
            Some(named) => protector(environment, key, &named.naming(), run.began),
        },
        None => {
            let mut removals = run.batch.removals_naming(key).peekable();
            match removals.peek() {
                None => Some("nothing was there, and no removal names it".to_owned()),
                Some(_) => {
                    removals.find_map(|naming| protector(environment, key, naming, run.began))
                }
            }
        }
    });
    let reasons: Option<Vec<String>> = reasons.collect();
    reasons.map(|reasons| format!("deleted, but {} all the time", reasons.join(" or ")))
}

fn settings_of(image: &Option<Rc<Image>>) -> Option<&Settings> {
    image.as_ref().and_then(|image| image.settings())
}

/// Who has asked for a key all the time since `from`.
pub fn claimant(environment: &Environment, key: &str, from: Step) -> Option<String> {
    let mut claimants = environment.indexes().filter(|(index, past)| {
        past.all_since(from, |image| {
            settings_of(image).is_some_and(|settings| settings.asks_for(index, key))
        })
    });
    claimants.next().map(|(index, _)| format!("{index} asks for it"))
}

/// What has protected a key that nobody asks for, all the time since `from`.
pub fn protector(
    environment: &Environment,
    key: &str,
    naming: &Naming,
    from: Step,
) -> Option<String> {
    let index = &naming.index;
    let own = environment.past_of(index).cloned().unwrap_or_default();
    let gone = own.last().is_none() || own.since(from).all(Option::is_none);
    let unexportable = own.all_since(from, |image| {
        settings_of(image).is_some_and(|settings| !environment.exportable(index, settings))
    });
    if unexportable {
        return Some(format!("{index} can't be exported"));
    }
    let pointer = environment.pointer(from, &item_key(index), |owner, aliases| {
        aliases.name_shop(key) || (gone && aliases.point_at(&owner.pk, index, naming.shops.iter()))
    });
    pointer.map(|owner| format!("{}/{} points at it", owner.pk, owner.sk))
}
