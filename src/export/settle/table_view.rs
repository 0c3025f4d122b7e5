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

impl Named {
    /// What a value names to the exporter of `environment`; `None` for a stranger's.
    pub fn of(stored: &StoredValue, environment: &str) -> Option<Self> {
        let StoredSettings { index, shop_id, .. } = StoredSettings::parse(&stored.value)?;
        let named = Self { index, shop_ids: shop_id.into_iter().collect() };
        stored.counts_for(environment).then_some(named)
    }
}

impl Held {
    /// What a value says of itself to the exporter of `environment`.
    pub fn new(stored: StoredValue, environment: &str) -> Self {
        match Named::of(&stored, environment) {
            Some(named) => Self::Ours { named, stored },
            None => Self::Strangers,
        }
    }

    /// What the value takes, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Ours { stored, .. } => stored.value.len(),
            Self::Nothing(_) | Self::Strangers => 0,
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

impl Interest {
    fn add(&mut self, Named { index, shop_ids }: &Named) {
        let index_id = index.index_id();
        self.shop_ids.insert(index_id.clone());
        self.index_ids.insert(index_id);
        self.shop_ids.extend(shop_ids.iter().cloned());
        self.indexes.insert(index.clone());
    }
}

/// What the table says about a set of keys.
#[derive(Debug, Default)]
pub struct TableView {
    interest: Interest,
    claimants: BTreeMap<String, BTreeSet<IndexRef>>,
    /// The items whose active aliases point at each target.
    pointers: BTreeMap<AliasTarget, BTreeSet<ItemKey>>,
    existing: BTreeSet<IndexRef>,
}

impl TableView {
    /// A view, of no items yet, for keys that hold this.
    pub fn for_keys(held: &BTreeMap<String, Held>) -> Self {
        let mut interest = Interest::default();
        for (key, held) in held {
            interest.keys.insert(key.clone());
            interest.shop_ids.insert(key.clone());
            held.named().for_each(|named| interest.add(named));
        }
        Self { interest, ..Self::default() }
    }

    /// A view that also looks for an index that no key may name.
    #[must_use]
    pub fn and_for(mut self, named: &Named) -> Self {
        self.interest.add(named);
        self
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
        for key in claimed_keys(&index, &item) {
            if self.interest.keys.contains(&key) {
                self.claimants.entry(key).or_default().insert(index.clone());
            }
        }
        if self.interest.indexes.contains(&index) {
            self.existing.insert(index);
        }
    }

    /// The items that ask for `key`, the first by account and index first.
    pub fn claimants(&self, key: &str) -> impl Iterator<Item = &IndexRef> {
        self.claimants.get(key).into_iter().flatten()
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
        let mut targets = vec![AliasTarget::ShopId(key.to_owned())];
        if !self.has_item(&named.index) {
            targets.extend(targets_of(named));
        }
        self.pointers_at(&targets, &named.index)
    }

    /// The other items whose active aliases point at an index, by whatever name.
    pub fn pointers(&self, named: &Named) -> BTreeSet<ItemKey> {
        self.pointers_at(&targets_of(named), &named.index)
    }

    /// The items whose active aliases point at whatever lives under a name.
    pub fn pointers_at_name(&self, name: &str) -> BTreeSet<ItemKey> {
        let targets = [AliasTarget::IndexId(name.to_owned()), AliasTarget::ShopId(name.to_owned())];
        targets.iter().filter_map(|target| self.pointers.get(target)).flatten().cloned().collect()
    }

    fn pointers_at(&self, targets: &[AliasTarget], but: &IndexRef) -> BTreeSet<ItemKey> {
        let own = ItemKey::of_index(but);
        let pointers = targets.iter().filter_map(|target| self.pointers.get(target)).flatten();
        pointers.filter(|pointer| **pointer != own).cloned().collect()
    }
}

/// All by which an alias may point at an index.
fn targets_of(Named { index, shop_ids }: &Named) -> Vec<AliasTarget> {
    let index_id = index.index_id();
    let shop_ids = shop_ids.iter().cloned().map(AliasTarget::ShopId);
    let by_index_id =
        [AliasTarget::ShopId(index_id.clone()), AliasTarget::IndexId(index_id)].into_iter();
    by_index_id.chain(shop_ids).collect()
}
