//! What may be written and deleted.

use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::kv::{Digest, Metadata};

use super::is_reconcile;
use crate::world::{
    Environment, Held, Image, Invocation, ItemKey, ItemPast, ItemRef, KvKey, Namespace, State,
    When, asks,
};

/// A batch waits no longer for the first read of the table.
const UNREADABLE_AFTER: Duration = Duration::from_secs(5);

/// How far behind a pass may be, and a bit more.
pub const TABLE_LAG: Duration = Duration::from_secs(3);

/// A value is that of an item that asks for the key, as it was at some time since the invocation began. The
/// image of a batch's last record may stand in. What was deleted may be put back.
pub fn put(state: &State, invocation: usize, key: &KvKey, held: &Held) -> Option<String> {
    let (run, environment) = state.run(invocation);
    let is_put_back = run.delete_attempts.contains(key)
        && run.told(key).iter().flatten().any(|was| was.stored == held.stored);
    if is_put_back {
        return None;
    }
    let version = held.version;
    let made_from = environment.askers(key, 0).find_map(|(item, past)| {
        let mut images = past.spans().filter_map(|(_, _, image)| image.as_ref());
        Some((item, past, images.find(|image| Some(image.version) == version)?))
    });
    let Some((item, past, image)) = made_from else {
        return Some(format!("not the value of an item that ever asked for it: {held:?}"));
    };
    if !image.keys.contains(key) {
        return Some(format!("v{} of {item} does not ask for the key", image.version));
    }
    let mut api_keys = environment.api_keys[&item.pk].spans();
    let api_key = api_keys.find(|(.., key)| image.value(key).as_ref() == Some(&held.stored.value));
    let Some((_, until, api_key)) = api_key else {
        return Some(format!("not the value of v{} of {item}", image.version));
    };
    let is_valid = until > run.began || key.namespace == Namespace::QueryConfigs;
    if !is_valid && !may_reuse(run, environment, item, image, api_key) {
        return Some(format!("an old API key of {item}, {api_key}, over a new one"));
    }
    origin(run, item, past, image)
        .or_else(|| metadata(run, environment, item, held))
        .or_else(|| wrong_claimant(state, invocation, key, item))
}

/// A version was in the table since the invocation began; or it is the batch's, where the table had no such item
/// or could not be read.
fn origin(run: &Invocation, item: &ItemKey, past: &ItemPast, image: &Image) -> Option<String> {
    let version = image.version;
    let is = |it: &Option<Rc<Image>>| it.as_ref().is_some_and(|it| it.version == version);
    if past.since(run.began).any(is) {
        return None;
    }
    if !run.batch.get(item).is_some_and(is) {
        return Some(format!("v{version} is neither in the batch nor in the table since it began"));
    }
    let was_absent = past.since(run.began).any(Option::is_none);
    let was_silent = run.table_failed || run.table_time >= UNREADABLE_AFTER;
    (!was_absent && !was_silent)
        .then(|| format!("v{version} is the batch's, and the table has said something else"))
}

/// Whether an API key may be used again: the service gave none, and KV holds this one of the index, under its index
/// id or its shop id.
fn may_reuse(
    run: &Invocation,
    environment: &Environment,
    item: &ItemKey,
    image: &Image,
    api_key: &str,
) -> bool {
    let Some(index) = item.item().map(|item| item.index) else { return false };
    let of_index =
        |held: &&Rc<Held>| held.is_ours(environment.name) && held.owner.as_ref() == Some(&index);
    let mut told = run.seen.values().flat_map(|seen| &seen.told).flatten().filter(of_index);
    let text = format!(r#""{api_key}""#);
    !is_reconcile(&run.kind)
        && run.lacks_api_key(image.cell(), &index.account)
        && told.any(|held| held.stored.value.contains(&text))
}

/// The names in the metadata are what later verdicts rest on.
fn metadata(
    run: &Invocation,
    environment: &Environment,
    item: &ItemKey,
    held: &Held,
) -> Option<String> {
    let metadata = held.stored.metadata.as_ref();
    let metadata = metadata.and_then(|json| Metadata::parse(json.get()));
    let right = metadata.as_ref().is_some_and(|metadata| {
        Some(&metadata.index) == item.item().map(|item| item.index).as_ref()
            && metadata.environment.as_deref() == Some(environment.name)
            && metadata.digest == Some(Digest::of(held.stored.value.as_bytes()))
            && metadata.source == Some(run.source())
    });
    (!right).then(|| format!("{metadata:?}"))
}

/// A key that several items ask for is its owner's, else the first one's; a record or a re-export takes it for
/// its item. Of an item for which nobody asked, only keys that a removal has read are written.
fn wrong_claimant(state: &State, invocation: usize, key: &KvKey, item: &ItemKey) -> Option<String> {
    let (run, environment) = state.run(invocation);
    if run.is_about(item) || key.namespace == Namespace::QueryConfigs {
        return None;
    }
    let told = run.told(key);
    if told.is_empty() && !is_reconcile(&run.kind) {
        return Some(format!("written for {item}, which neither was asked for nor is a removal's"));
    }
    let owner = |was: &Option<Rc<Held>>| {
        was.as_ref().filter(|was| was.is_ours(environment.name))?.owner.clone()
    };
    let holder = told.first().and_then(owner);
    // A listing does not tell the owner of what the predecessor wrote.
    let untold = told.iter().flatten().any(|was| was.stored.metadata.is_none());
    if !told.iter().all(|was| owner(was) == holder) || (is_reconcile(&run.kind) && untold) {
        return None;
    }
    // The table may lag behind by some seconds.
    let from = state.before(run.began, TABLE_LAG);
    let asks = |image: &Option<Rc<Image>>| {
        asks(image, key) && image.as_ref().is_some_and(|image| !image.is_rejected())
    };
    let (rightful, sometimes): (Vec<_>, Vec<_>) = environment
        .askers(key, from)
        .partition(|(_, past)| past.was(When::AlwaysSince(from), asks));
    let is_holder = |asker: &ItemKey| asker.item().map(|item| item.index) == holder;
    let first = rightful.iter().map(|(asker, _)| *asker);
    let rightful = first.clone().find(|asker| is_holder(asker));
    let rightful = rightful.or_else(|| first.min().filter(|_| sometimes.is_empty()))?;
    (rightful != item).then(|| format!("written for {item}, but {rightful} has it"))
}

/// Nothing asked for or protected the key at some time since the invocation began, and KV was read to hold it.
pub fn delete(state: &State, invocation: usize, key: &KvKey) -> Option<String> {
    let (run, environment) = state.run(invocation);
    let since = When::AlwaysSince(run.began);
    if key.namespace == Namespace::QueryConfigs {
        // Of two items with one key, the removal of either deletes it.
        let is_asker = |(_, past): (_, &ItemPast)| past.was(since, |it| asks(it, key));
        let is_needed = asker(environment, since, key);
        return is_needed.filter(|_| environment.askers(key, 0).all(is_asker));
    }
    state.held(key)?;
    if let Some(asker) = asker(environment, since, key) {
        return Some(format!("deleted, but {asker} all the time"));
    }
    // One response that lets it go is enough: which of them decided is not known.
    let reasons = run.told(key).iter().flatten().map(|told| match &told.owner {
        Some(owner) if told.is_ours(environment.name) => environment.protector(since, key, owner),
        _ => Some("it was foreign".to_owned()),
    });
    let reasons: Vec<String> = reasons.collect::<Option<_>>()?;
    if reasons.is_empty() {
        return Some("deleted, but KV was never read to hold it".to_owned());
    }
    Some(format!("deleted, but {} all the time", reasons.join(" or ")))
}

/// Returns who asked for a key then.
pub fn asker(environment: &Environment, when: When, key: &KvKey) -> Option<String> {
    let mut askers = environment.askers(key, 0);
    let asker = askers.find(|(_, past)| past.was(when, |image| asks(image, key)));
    asker.map(|(item, _)| format!("{item} asks for it"))
}

/// A key that another environment has had for as long as the invocation may have seen it is never
/// deleted, nor put back over. It is written only for the item that a record or a re-export is about.
/// Query configs have no such rule but for a reconcile's.
pub fn of_another_environment(
    state: &State,
    invocation: usize,
    key: &KvKey,
    held: Option<&Rc<Held>>,
) -> Option<String> {
    let (run, environment) = state.run(invocation);
    let past = state.kv.get(key)?;
    let since = When::AlwaysSince(run.seen_from(key, state.step));
    let is_anothers = |was: &Option<Rc<Held>>| {
        was.as_ref().is_some_and(|was| was.is_another_environments(environment.name))
    };
    if !past.was(since, is_anothers) {
        return None;
    }
    let may_take = match (key.namespace, held.and_then(|held| held.owner.clone())) {
        (Namespace::QueryConfigs, _) => !is_reconcile(&run.kind),
        (Namespace::Settings, None) => false,
        (Namespace::Settings, Some(owner)) => {
            let item = ItemRef::from(owner).key();
            !run.deleted.contains_key(key) && run.is_about(&item)
        }
    };
    (!may_take).then(|| format!("changed, but it is another environment's: {:?}", past.last()))
}
