//! What the table says about a set of keys: who asks for them, who points at what they hold. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::index::IndexRef;
use crate::item::alias_targets::{AliasTarget, alias_targets};
use crate::item::keys::claimed_keys;
use crate::item::{Item, ItemKey, ItemKind};
use crate::kv::{StoredSettings, StoredValue};

/// What KV holds under a key.
#[derive(Debug, Clone)]
pub enum Held {
    /// Nothing, by an answer that may be a minute old: the key is taken to hold what it is known to
    /// have been written for.
    Nothing(BTreeSet<Named>),
    /// A stranger's value.
    Strangers,
    /// A value that counts.
    Ours {
        /// What it names.
        named: Named,
        /// The value.
        stored: StoredValue,
    },
}

/// An index that a value names, or is taken to name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// The index.
    pub index: IndexRef,
    /// The shop ids that are named with it.
    pub shop_ids: BTreeSet<String>,
}

impl Held {
    /// What a value says of itself to the exporter of `environment`.
    pub fn new(stored: StoredValue, environment: &str) -> Self {
        let settings = StoredSettings::parse(&stored.value);
        match settings.filter(|_| stored.counts_for(environment)) {
            Some(StoredSettings { index, shop_id, .. }) => {
                let named = Named { index, shop_ids: shop_id.into_iter().collect() };
                Self::Ours { named, stored }
            }
            None => Self::Strangers,
        }
    }

    /// What the value names, or is taken to name.
    pub fn named(&self) -> impl Iterator<Item = &Named> {
        let (one, several) = match self {
            Self::Ours { named, .. } => (Some(named), None),
            Self::Nothing(named) => (None, Some(named)),
            Self::Strangers => (None, None),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }
}

/// What a pass over the table has to look for.
#[derive(Debug, Default)]
struct Interest {
    /// Keys that items may ask for.
    keys: BTreeSet<String>,
    /// Index ids that the keys' values name, which aliases may point at.
    index_ids: BTreeSet<String>,
    /// Shop ids under which an `index_write_aliases` entry may mean one of them.
    shop_ids: BTreeSet<String>,
    /// The indexes that the keys' values name.
    indexes: BTreeSet<IndexRef>,
}

/// What the table says about a set of keys.
#[derive(Debug, Default)]
pub struct TableView {
    interest: Interest,
    claimants: BTreeMap<String, BTreeSet<IndexRef>>,
    /// The items whose active aliases point at each target.
    pointers: BTreeMap<AliasTarget, BTreeSet<ItemKey>>,
    existing: BTreeSet<IndexRef>,
    has_indexes: bool,
}

impl TableView {
    /// A view, of no items yet, for keys that hold this.
    pub fn for_keys(held: &BTreeMap<String, Held>) -> Self {
        let mut interest = Interest::default();
        for (key, held) in held {
            interest.keys.insert(key.clone());
            interest.shop_ids.insert(key.clone());
            for Named { index, shop_ids } in held.named() {
                let index_id = index.index_id();
                interest.shop_ids.insert(index_id.clone());
                interest.index_ids.insert(index_id);
                interest.shop_ids.extend(shop_ids.iter().cloned());
                interest.indexes.insert(index.clone());
            }
        }
        Self { interest, ..Self::default() }
    }

    /// Takes in an item of the table. The aliases of every item count but those of query configs.
    pub fn add(&mut self, key: &ItemKey, item: &Item) {
        let kind = key.kind();
        if matches!(kind, ItemKind::QueryConfig(_)) {
            return;
        }
        let item = item.attributes();
        for target in alias_targets(&key.pk, &item) {
            let of_interest = match &target {
                AliasTarget::IndexId(index_id) => self.interest.index_ids.contains(index_id),
                AliasTarget::ShopId(shop_id) => self.interest.shop_ids.contains(shop_id),
            };
            if of_interest {
                self.pointers.entry(target).or_default().insert(key.clone());
            }
        }
        let ItemKind::IndexSettings(index) = kind else { return };
        self.has_indexes = true;
        for key in claimed_keys(&index, &item) {
            if self.interest.keys.contains(&key) {
                self.claimants.entry(key).or_default().insert(index.clone());
            }
        }
        if self.interest.indexes.contains(&index) {
            self.existing.insert(index);
        }
    }

    /// Whether the table has any index item.
    pub fn has_indexes(&self) -> bool {
        self.has_indexes
    }

    /// The item that `key` is for: the one that KV's value names, else the first.
    pub fn claimant(&self, key: &str, held: &Held) -> Option<&IndexRef> {
        let claimants = self.claimants.get(key)?;
        let named = match held {
            Held::Ours { named, .. } => claimants.get(&named.index),
            Held::Nothing(_) | Held::Strangers => None,
        };
        named.or_else(|| claimants.first())
    }

    /// The items that decisions need whole: those that keys are for, and those that the values of
    /// unclaimed keys name.
    pub fn items_to_read(&self, held: &BTreeMap<String, Held>) -> BTreeSet<IndexRef> {
        let mut items = BTreeSet::new();
        for (key, held) in held {
            match self.claimant(key, held) {
                Some(claimant) => drop(items.insert(claimant.clone())),
                None => {
                    let named = held.named().map(|named| &named.index);
                    items.extend(named.filter(|index| self.has_item(index)).cloned());
                }
            }
        }
        items
    }

    /// Whether the table has an item for the index.
    pub fn has_item(&self, index: &IndexRef) -> bool {
        self.existing.contains(index)
    }

    /// The other items that protect a key that no item asks for: their active aliases point at the
    /// index that its value names, if that has no item of its own, or name the key as a shop id.
    pub fn protectors(&self, key: &str, named: &Named) -> BTreeSet<ItemKey> {
        let by_shop_id = |shop_id: &str| AliasTarget::ShopId(shop_id.to_owned());
        let mut targets = vec![by_shop_id(key)];
        if !self.has_item(&named.index) {
            let index_id = named.index.index_id();
            targets.push(by_shop_id(&index_id));
            targets.push(AliasTarget::IndexId(index_id));
            targets.extend(named.shop_ids.iter().map(|shop_id| by_shop_id(shop_id)));
        }
        let own = ItemKey::of_index(&named.index);
        let pointers = targets.iter().filter_map(|target| self.pointers.get(target)).flatten();
        pointers.filter(|pointer| **pointer != own).cloned().collect()
    }
}
