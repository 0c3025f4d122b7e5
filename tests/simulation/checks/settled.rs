//! At rest, KV is what the table asks for, except for what only a reconcile can know.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::world::{
    Content, Environment, Held, Image, IndexRef, ItemPast, Named, Namespace, Owner, Past, Settings,
    State, index_id, query_kv_key, query_of, query_value,
};

type HeldPast = Past<Option<Rc<Held>>>;

/// Checks both namespaces.
pub fn check(state: &mut State) {
    if state.violation.is_some() {
        return;
    }
    let settled = Settled { state, environment: &state.environments[0] };
    let problems: Vec<String> = settings_keys(state)
        .iter()
        .filter(|key| !settled.is_excused(Namespace::Settings, key))
        .filter_map(|key| Some(format!("{key:?} {}", settled.settings_key(key)?)))
        .chain(
            query_keys(state)
                .iter()
                .filter(|key| !settled.is_excused(Namespace::QueryConfigs, key))
                .filter_map(|key| query_config(state, key, false)),
        )
        .collect();
    for problem in problems {
        state.violate("at rest, KV is what the table asks for", problem);
    }
}

/// The settings keys that KV has or a table asks for.
pub fn settings_keys(state: &State) -> BTreeSet<String> {
    let asked = state.environments.iter().flat_map(|environment| {
        environment.indexes().filter_map(|(index, _)| {
            environment.current_settings(&index).map(|settings| settings.kv_keys(&index))
        })
    });
    held_keys(state, Namespace::Settings).chain(asked.flatten()).collect()
}

/// The query-config keys that KV has or a table asks for.
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
        Some(held) if values.is_empty() => reconciled && held.owner == Owner::Untold,
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
            || excused.misread.contains(&key_of)
            || excused.refused.contains(&key_of)
            || excused.left_to_reconcile.iter().any(|index| self.ever_asked(index, key))
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
            (true, false) => self.kept(key, past, held, &unable[0].0),
            (false, false) => held.is_none().then(|| "is missing".to_owned()),
        }
    }

    /// Claimed only by items that can be exported: it holds one of them, as it is now.
    fn claimed(
        &self,
        key: &str,
        held: Option<&Rc<Held>>,
        able: &[(IndexRef, &Settings)],
    ) -> Option<String> {
        let old_images = self.state.shape.old_images;
        // Without old images, the retry of a removal may not know what the first try settled.
        let unknown = !old_images && self.state.excused.half_settled.contains(key);
        let Some(held) = held.filter(|_| !unknown) else {
            return (!unknown).then(|| "is missing".to_owned());
        };
        let Some(named) = &held.named else { return Some("holds a foreign value".to_owned()) };
        match able.iter().find(|(index, _)| *index == named.index) {
            Some((index, settings)) if held.value == settings.value(index, &named.api_key) => None,
            // Without old images, nobody knows which shop id an item had before, and who waits
            // for it.
            _ if !old_images && !self.are_all_faithful(key) => None,
            // After a broken edit, KV keeps the good version before it, under any key.
            _ if self.environment.was_unable(&named.index, 0) && self.asked_once(key, named) => {
                None
            }
            None if self.was_given_up_by_a_broken_edit(key) => None,
            _ => Some(format!("holds {named:?}, not what {} asks for", able[0].0)),
        }
    }

    /// Whether an item that kept the key gave it up in a version that can't be exported: its record is
    /// rejected, and settles nothing.
    fn was_given_up_by_a_broken_edit(&self, key: &str) -> bool {
        self.askers(key).any(|(index, _)| {
            let versions: Vec<&Settings> = self.environment.settings_since(&index, 0).collect();
            versions.windows(2).any(|pair| {
                pair[0].asks_for(&index, key)
                    && !pair[1].asks_for(&index, key)
                    && !self.environment.exportable(&index, pair[1])
            })
        })
    }

    /// Claimed only by items that can't be exported: it holds what it held.
    fn kept(
        &self,
        key: &str,
        past: Option<&HeldPast>,
        held: Option<&Rc<Held>>,
        index: &IndexRef,
    ) -> Option<String> {
        let environment = self.environment;
        let excused = &self.state.excused;
        let half_re_exported = (Namespace::Settings, index_id(index));
        if self.askers(key).count() > 1
            || excused.half_re_exported.contains(&half_re_exported)
            || excused.put_back_over.contains(key)
        {
            return None;
        }
        if environment.keyless.contains(&index.account) {
            let first = past.and_then(|past| past.since(0).next()?.as_ref());
            let changed = || "changed for an account without an API key".to_owned();
            return (held != first).then(changed);
        }
        let images: Vec<&Option<Rc<Image>>> = environment.past_of(index)?.since(0).collect();
        let lacks_a_cell = |image: &Rc<Image>| {
            image.settings().is_some_and(|settings| settings.is_whole() && settings.cell.is_none())
        };
        // A re-export has the API key already, and needs no cell for what changed meanwhile.
        if self.state.shape.re_exports
            && environment.default_cell.is_none()
            && images.iter().copied().flatten().any(lacks_a_cell)
        {
            return None;
        }
        // The last good image, unless the item was gone after it.
        let good = images.iter().rposition(|image| {
            let settings = image.as_ref().and_then(|image| image.settings());
            settings.is_some_and(|settings| environment.exportable(index, settings))
        })?;
        let settings = images[good].as_ref()?.settings()?;
        if images[good..].iter().any(|image| image.is_none()) || !settings.asks_for(index, key) {
            return None;
        }
        let holds = held.and_then(|held| held.named.as_ref()).map(|named| named.version);
        (holds != Some(settings.version))
            .then(|| format!("holds {holds:?}, not the last good version {}", settings.version))
    }

    /// Claimed by nobody: gone, unless something protected it when it was settled.
    fn unclaimed(&self, key: &str, past: &HeldPast, held: &Rc<Held>) -> Option<String> {
        let environment = self.environment;
        let Some(named) = held.named_for(environment.name) else {
            let first = past.since(0).next()?.as_ref();
            return (first != Some(held)).then(|| "a foreign key was changed".to_owned());
        };
        // The index that gave the key up last, and when.
        let last = environment
            .indexes()
            .flat_map(|(index, past)| {
                let asked = past.spans().filter(|(_, _, image)| {
                    image.as_ref().is_some_and(|image| asks(image, &index, key))
                });
                asked.map(|(_, end, _)| (end, index.clone())).collect::<Vec<_>>()
            })
            .max();
        let Some((dropped, by)) = last else { return Some("nobody ever asked for it".to_owned()) };
        let moved = !self.state.shape.old_images && !self.is_plainly_removed(key, &by);
        let kept = self.was_kept(key, named, dropped);
        (!kept && !moved && !self.environment.was_unable(&by, 0))
            .then(|| format!("still holds {named:?}, which {by} gave up at {dropped}"))
    }

    /// Whether anything has protected the key at any time since it was given up.
    fn was_kept(&self, key: &str, named: &Named, dropped: u64) -> bool {
        let own = self.environment.past_of(&named.index);
        let gone = own.is_none_or(|past| past.since(dropped).any(Option::is_none));
        let unable = self.environment.was_unable(&named.index, dropped);
        let naming = named.naming();
        let pointed_at = self.environment.table.iter().any(|(item, past)| {
            let another = crate::world::item_key(&named.index) != *item;
            another
                && past.since(dropped).flatten().filter_map(|image| image.aliases()).any(
                    |aliases| {
                        aliases.name_shop(key)
                            || gone && aliases.point_at(&item.pk, &named.index, naming.shops.iter())
                    },
                )
        });
        unable || pointed_at
    }

    /// The indexes that ever asked for a key.
    fn askers<'a>(&'a self, key: &'a str) -> impl Iterator<Item = (IndexRef, &'a ItemPast)> {
        self.environment.indexes().filter(move |(index, _)| self.ever_asked(index, key))
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
    /// always did, no other value was ever under its id, and every answer of KV showed it.
    fn is_faithful(&self, index: &IndexRef, key: &str) -> bool {
        let environment = self.environment;
        let id = index_id(index);
        let mut settings = environment.settings_since(index, 0);
        let alone = self.askers(&id).all(|(asker, _)| asker == *index);
        alone
            && !self.is_excused(Namespace::Settings, &id)
            && !self.state.excused.hidden.contains(&id)
            && settings.all(|settings| {
                settings.asks_for(index, key) && environment.exportable(index, settings)
            })
    }

    fn ever_asked(&self, index: &IndexRef, key: &str) -> bool {
        let mut settings = self.environment.settings_since(index, 0);
        settings.any(|settings| settings.asks_for(index, key))
    }

    fn asked_once(&self, key: &str, Named { index, version, .. }: &Named) -> bool {
        let mut settings = self.environment.settings_since(index, 0);
        settings.any(|settings| settings.asks_for(index, key) && settings.version == *version)
    }
}

fn asks(image: &Rc<Image>, index: &IndexRef, key: &str) -> bool {
    image.settings().is_some_and(|settings| settings.asks_for(index, key))
}
