//! When everything is at rest, KV is what the table asks for: without an exception after a quiet repair, and
//! before it except for what only a repair can know.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::world::{Environment, Held, Image, KvKey, Namespace, State, Step, When, asks};

/// Checks all keys that KV has ever held, or that an item asks for.
pub fn check(state: &mut State, is_repaired: bool) {
    if state.violation.is_some() {
        return;
    }
    let images = state.environments.iter().flat_map(|own| own.table.values());
    let asked = images.filter_map(|past| past.last()?.as_ref()).flat_map(|image| &image.keys);
    let keys: BTreeSet<&KvKey> = state.kv.keys().chain(asked).collect();
    let problems: Vec<String> = keys
        .into_iter()
        .filter_map(|key| {
            let problem = problem(state, key, is_repaired)?;
            Some(format!("{:?} {problem}: {:?}", key.name, state.held(key)))
        })
        .collect();
    let rule = match is_repaired {
        true => "after a quiet repair, KV is what the table asks for",
        false => "at rest, KV is what the table asks for",
    };
    for problem in problems {
        state.violate(rule, problem);
    }
}

fn problem(state: &State, key: &KvKey, is_repaired: bool) -> Option<String> {
    let held = state.held(key);
    let environments = || state.environments.iter();
    let claimants =
        || environments().flat_map(|own| own.claimants(key).map(move |(item, it)| (own, item, it)));
    // It keeps what it had.
    if claimants().any(|(.., image)| image.is_rejected()) {
        return None;
    }
    if !is_repaired && environments().any(|own| is_left_to_a_repair(state, own, key)) {
        return None;
    }
    let owned = held.and_then(|held| {
        let own = environments().find(|own| {
            match is_repaired && key.namespace == Namespace::Settings {
                true => held.is_listed_as_ours(own.name),
                false => held.is_ours(own.name),
            }
        })?;
        Some((own, held))
    });
    let Some((_, item, _)) = claimants().next() else {
        let (own, held) = owned?;
        let stays = is_protected(state, own, key, held, is_repaired);
        return (!stays).then(|| "is still there".to_owned());
    };
    let is_right = claimants().any(|(own, item, image)| {
        let api_keys = own.api_keys[&item.pk].since(if is_repaired { state.step } else { 0 });
        let mut values = api_keys.filter_map(|api_key| image.value(api_key));
        values.any(|value| held.is_some_and(|held| held.stored.value == value))
    });
    // An environment whose table protects its key keeps it, whoever asks for it in another.
    let is_shared = state.environments.len() > 1;
    let stays = is_shared
        && owned.is_some_and(|(own, held)| is_protected(state, own, key, held, is_repaired));
    (!is_right && !stays).then(|| format!("is not what {item} asks for"))
}

/// Whether a key for which nobody asks stays for a reason: at present, or since it was given up. Without any
/// index item, the table is not to be trusted.
fn is_protected(
    state: &State,
    environment: &Environment,
    key: &KvKey,
    held: &Rc<Held>,
    is_repaired: bool,
) -> bool {
    let when = match is_repaired {
        true => When::AlwaysSince(state.step),
        false => When::EverSince(given_up(environment, key)),
    };
    let is_empty = is_repaired && !environment.has_indexes(when);
    let of_settings = key.namespace == Namespace::Settings;
    let owner = held.owner.as_ref().filter(|_| of_settings);
    is_empty || owner.is_some_and(|owner| environment.protector(when, key, owner).is_some())
}

/// Returns when the last item that asked for a key gave it up.
fn given_up(environment: &Environment, key: &KvKey) -> Step {
    let askers = environment.askers(key, 0).flat_map(|(_, past)| past.spans());
    let asked = askers.filter(|(.., image)| asks(image, key));
    asked.map(|(_, until, _)| until).max().unwrap_or_default()
}

/// Whether the stream alone may leave a key wrong. An item that could not be exported may have given it up unseen.
/// Without old images, nobody knows which shop ids an item had before, unless KV's value under its id told it.
fn is_left_to_a_repair(state: &State, environment: &Environment, key: &KvKey) -> bool {
    let is_rejected = |it: &Option<Rc<Image>>| it.as_ref().is_some_and(|it| it.is_rejected());
    let ever = When::EverSince(0);
    let mut askers = environment.askers(key, 0);
    if key.namespace == Namespace::QueryConfigs {
        // Where two items have one key, a repair decides.
        return askers.count() > 1;
    }
    askers.any(|(item, past)| {
        let moves = |it: &Option<Rc<Image>>| it.is_some() && !asks(it, key);
        let id = item.item().map(|item| KvKey::of_settings(item.index.index_id()));
        let shares = id.is_some_and(|id| environment.askers(&id, 0).count() > 1);
        past.was(ever, is_rejected) || !state.shape.old_images && (past.was(ever, moves) || shares)
    })
}
