//! At rest, KV is what the table asks for, except for what only a reconcile can know.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::world::{
    Content, Environment, Held, IndexRef, ItemPast, Namespace, Past, Settings, State, index_id,
    item_key, query_kv_key, query_of, query_value,
};

type HeldPast = Past<Option<Rc<Held>>>;

/// Checks both namespaces.
pub fn check(state: &mut State) {
    if state.violation.is_some() {
        return;
    }
    let settled = Settled { state, environment: &state.environments[0] };
    let settings = settings_keys(state).into_iter();
    let settings = settings.filter(|key| !settled.is_excused(Namespace::Settings, key));
    let query_configs = query_keys(state).into_iter();
    let query_configs = query_configs
        .filter(|key| !settled.is_excused(Namespace::QueryConfigs, key))
        // Where two items have one key, a repair decides.
        .filter(|key| settled.environment.queries_of(key).len() <= 1);
    let problems: Vec<String> = settings
        .filter_map(|key| Some(format!("{key:?} {}", settled.settings_key(&key)?)))
        .chain(query_configs.filter_map(|key| query_config(state, &key, false)))
        .collect();
    for problem in problems {
        state.violate("at rest, KV is what the table asks for", problem);
    }
}

/// Returns the settings keys that KV has or a table asks for.
pub fn settings_keys(state: &State) -> BTreeSet<String> {
    let asked = state.environments.iter().flat_map(|environment| {
        environment.indexes().filter_map(|(index, _)| {
            environment.current_settings(&index).map(|settings| settings.kv_keys(&index))
        })
    });
    held_keys(state, Namespace::Settings).chain(asked.flatten()).collect()
}

/// Returns the query-config keys that KV has or a table asks for.
pub fn query_keys(state: &State) -> BTreeSet<String> {
    let items = state.environments.iter().flat_map(|environment| environment.table.keys());
    let asked = items.filter_map(query_of).map(|(index, query)| query_kv_key(&index, &query));
    held_keys(state, Namespace::QueryConfigs).chain(asked).collect()
}

fn held_keys(state: &State, namespace: Namespace) -> impl Iterator<Item = String> + '_ {
    let keys = state.kv.keys().filter(move |(found, _)| *found == namespace);
    keys.map(|(_, key)| key.clone())
}

/// A query-config key holds what one of its items says now; without an item it is gone. What
/// reconcile takes for foreign it leaves.
pub fn query_config(state: &State, key: &str, reconciled: bool) -> Option<String> {
    let held = state.held(Namespace::QueryConfigs, key);
    let values: Vec<String> = state
        .environments
        .iter()
        .flat_map(|environment| environment.queries_of(key))
        .filter_map(|(index, query, past)| match past.last()?.as_ref()?.content {
            Content::Query(version) => Some(query_value(&index, &query, version)),
            _ => None,
        })
        .collect();
    let right = match held {
        None => values.is_empty(),
        Some(held) if values.is_empty() => reconciled && held.metadata.is_none(),
        Some(held) => values.contains(&held.value),
    };
    (!right).then(|| format!("{key:?} holds {held:?}, asked for are {values:?}"))
}

struct Settled<'a> {
    state: &'a State,
    environment: &'a Environment,
}

impl Settled<'_> {
    /// Whether something happened to the key that only reconcile puts right.
    fn is_excused(&self, namespace: Namespace, key: &str) -> bool {
        let excused = &self.state.excused;
        let key_of = (namespace, key.to_owned());
        excused.half_re_exported.contains(&key_of)
            || excused.refused.contains(&key_of)
            || excused.given_up.iter().any(|index| self.ever_asked(index, key))
    }

    fn settings_key(&self, key: &str) -> Option<String> {
        let environment = self.environment;
        let (able, unable): (Vec<_>, Vec<_>) = environment
            .claimants(key)
            .into_iter()
            .partition(|(index, settings)| environment.exportable(index, settings));
        let past = self.state.kv.get(&(Namespace::Settings, key.to_owned()));
        let held = past.and_then(|past| past.last()).and_then(Option::as_ref);
        match (able.is_empty(), unable.is_empty()) {
            (false, true) => self.claimed(key, held, &able),
            (true, true) => self.unclaimed(key, past?, held?),
            // It keeps what it had.
            (true, false) => None,
            (false, false) => {
                (held.is_none() && !self.is_half_removed(key)).then(|| "is missing".to_owned())
            }
        }
    }

    /// Claimed only by items that can be exported: it holds one of them, as it is now.
    fn claimed(
        &self,
        key: &str,
        held: Option<&Rc<Held>>,
        able: &[(IndexRef, &Settings)],
    ) -> Option<String> {
        let Some(held) = held else {
            return (!self.is_half_removed(key)).then(|| "is missing".to_owned());
        };
        let Some(named) = &held.named else { return Some("holds a foreign value".to_owned()) };
        let is_right = able.iter().any(|(index, settings)| {
            *index == named.index && held.value == settings.value(index, &named.api_key)
        });
        // Without old images, nobody knows which shop id an item had before, and who waits for it.
        let unknown = !self.state.shape.old_images
            && (self.is_half_removed(key) || !self.are_all_faithful(key));
        let excused = unknown || self.gave_up_unseen(&named.index);
        (!is_right && !excused).then(|| format!("holds {named:?}, not what {} asks for", able[0].0))
    }

    /// Claimed by nobody: gone, unless something protected it when it was given up.
    fn unclaimed(&self, key: &str, past: &HeldPast, held: &Rc<Held>) -> Option<String> {
        let environment = self.environment;
        let Some(owner) = held.owner.as_ref().filter(|_| held.is_ours(environment.name)) else {
            let first = past.since(0).next()?.as_ref();
            return (first != Some(held)).then(|| "a foreign key was changed".to_owned());
        };
        // The index that gave the key up last, and when.
        let last = environment
            .indexes()
            .flat_map(|(index, past)| {
                let asked = past.spans().filter(|(_, _, image)| {
                    let settings = image.as_ref().and_then(|image| image.settings());
                    settings.is_some_and(|settings| settings.asks_for(&index, key))
                });
                asked.map(|(_, end, _)| (end, index.clone())).collect::<Vec<_>>()
            })
            .max();
        let Some((dropped, by)) = last else { return Some("nobody ever asked for it".to_owned()) };
        let unknown = !self.state.shape.old_images
            && (self.is_half_removed(key) || !self.is_plainly_removed(key, &by));
        // KV answered nothing, or another owner, for up to a minute.
        let misread = (Namespace::Settings, key.to_owned());
        let excused = unknown
            || self.state.excused.misread.contains(&misread)
            || self.was_protected(key, owner, dropped)
            || self.gave_up_unseen(&by);
        (!excused).then(|| format!("still holds {:?}, which {by} gave up at {dropped}", held.named))
    }

    /// Whether anything has protected the key at any time since it was given up.
    fn was_protected(&self, key: &str, owner: &IndexRef, dropped: u64) -> bool {
        let environment = self.environment;
        let own = environment.past_of(owner);
        let gone = own.is_none_or(|past| past.since(dropped).any(Option::is_none));
        let item = item_key(owner);
        environment.was_unable(owner, dropped)
            || environment.was_pointed_at(dropped, &item, key)
            || gone && environment.was_pointed_at(dropped, &item, &index_id(owner))
    }

    /// Whether an index may have given a key up in a record that is rejected, or that doesn't say which.
    fn gave_up_unseen(&self, index: &IndexRef) -> bool {
        let mut records = self.environment.shards.iter().flat_map(|shard| &shard.records);
        let item = item_key(index);
        let unreadable =
            records.any(|record| !record.is_readable && record.item.as_ref() == Some(&item));
        unreadable || self.environment.was_unable(index, 0)
    }

    /// Whether an invocation died or failed after it had deleted the key, or, without old images, the
    /// one that leads to it.
    fn is_half_removed(&self, key: &str) -> bool {
        let deleted = &self.state.excused.half_removed;
        let mut leads = self.askers(key).map(|(index, _)| index_id(&index));
        !self.state.shape.old_images
            && (deleted.contains(key) || leads.any(|id| deleted.contains(&id)))
    }

    /// Whether the key goes even without old images: all items that ever asked for it are gone, and
    /// KV always showed that they did.
    fn is_plainly_removed(&self, key: &str, by: &IndexRef) -> bool {
        let own = self.environment.past_of(by).map(|past| (by.clone(), past));
        self.askers(key).chain(own).all(|(index, past)| {
            past.last().is_some_and(Option::is_none) && self.is_faithful(&index, key)
        })
    }

    fn are_all_faithful(&self, key: &str) -> bool {
        self.askers(key).all(|(index, _)| self.is_faithful(&index, key))
    }

    /// Whether the value under the index id always showed that the index asks for the key: the index
    /// always did, no other value was ever under its id, and every response of KV showed it.
    fn is_faithful(&self, index: &IndexRef, key: &str) -> bool {
        let environment = self.environment;
        let id = index_id(index);
        let alone = self.askers(&id).all(|(asker, _)| asker == *index);
        let misread = (Namespace::Settings, id.clone());
        alone
            && !self.is_excused(Namespace::Settings, &id)
            && !self.state.excused.misread.contains(&misread)
            && environment.settings_since(index, 0).all(|settings| {
                settings.asks_for(index, key) && environment.exportable(index, settings)
            })
    }

    /// Returns the indexes that ever asked for a key.
    fn askers<'a>(&'a self, key: &'a str) -> impl Iterator<Item = (IndexRef, &'a ItemPast)> {
        self.environment.askers(key, 0)
    }

    fn ever_asked(&self, index: &IndexRef, key: &str) -> bool {
        let mut settings = self.environment.settings_since(index, 0);
        settings.any(|settings| settings.asks_for(index, key))
    }
}
