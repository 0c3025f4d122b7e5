//! What the table says about a set of keys: who asks for them, who points at what they hold. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::index::IndexRef;
use crate::item::alias_targets::{AliasTarget, alias_targets};
use crate::item::keys::claimed_keys;
use crate::item::{Item, ItemKey, ItemKind};
use crate::kv::{StoredSettings, StoredValue};

/// What KV holds under a key.
#[derive(Debug, Clone, Default)]
pub struct Held {
    pub stored: Option<StoredValue>,
    /// What the value names, if it counts. Where KV answers nothing, which may be a minute old, what the
    /// key is known to have been written for: it is taken to hold that.
    pub named: BTreeSet<Named>,
}

/// An index that a value names, or is taken to name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    pub index: IndexRef,
    /// The shop ids that are named with it.
    pub shop_ids: BTreeSet<String>,
}

impl Held {
    /// What a value says of itself to the exporter of `environment`: a stranger's names nothing.
    pub fn new(stored: StoredValue, environment: &str) -> Self {
        let settings = StoredSettings::parse(&stored.value);
        let ours = settings.filter(|_| stored.counts_for(environment));
        let named = ours.map(|StoredSettings { index, shop_id, .. }| Named {
            index,
            shop_ids: shop_id.into_iter().collect(),
        });
        Self { named: named.into_iter().collect(), stored: Some(stored) }
    }

    /// What the value names, if there is one that counts.
    pub fn named_by_value(&self) -> Option<&Named> {
        self.named.first().filter(|_| self.stored.is_some())
    }
}

/// What the table says about a set of keys. Each map has all that a pass looks for from the start.
#[derive(Debug, Default)]
pub struct TableView {
    /// The items that ask for each key.
    claimants: BTreeMap<String, BTreeSet<IndexRef>>,
    /// The items whose active aliases point at each target that may mean a key, or what it holds.
    pointers: BTreeMap<AliasTarget, BTreeSet<ItemKey>>,
    /// Whether each index that a value names has an item.
    has_item: BTreeMap<IndexRef, bool>,
}

impl TableView {
    /// A view, of no items yet, for keys that hold this.
    pub fn for_keys(held: &BTreeMap<String, Held>) -> Self {
        let view = Self {
            claimants: held.keys().map(|key| (key.clone(), BTreeSet::new())).collect(),
            pointers: held
                .keys()
                .map(|key| (AliasTarget::ShopId(key.clone()), BTreeSet::new()))
                .collect(),
            ..Self::default()
        };
        held.values().flat_map(|held| &held.named).fold(view, Self::and_for)
    }

    /// A view that also looks for an index that no key may name.
    #[must_use]
    pub fn and_for(mut self, named: &Named) -> Self {
        for target in targets_of(named) {
            self.pointers.entry(target).or_default();
        }
        self.has_item.entry(named.index.clone()).or_default();
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
            if let Some(pointers) = self.pointers.get_mut(&target) {
                pointers.insert(key.clone());
            }
        }
        let ItemKind::IndexSettings(index) = kind else { return };
        for key in claimed_keys(&index, &item) {
            if let Some(claimants) = self.claimants.get_mut(&key) {
                claimants.insert(index.clone());
            }
        }
        if let Some(has_item) = self.has_item.get_mut(&index) {
            *has_item = true;
        }
    }

    /// The items that ask for `key`, the first by account and index first.
    pub fn claimants(&self, key: &str) -> impl Iterator<Item = &IndexRef> {
        self.claimants.get(key).into_iter().flatten()
    }

    /// The item that `key` is for: the one that KV's value names, else the first.
    pub fn claimant(&self, key: &str, held: &Held) -> Option<&IndexRef> {
        let claimants = self.claimants.get(key)?;
        let named = held.named_by_value().and_then(|named| claimants.get(&named.index));
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
                    let named = held.named.iter().map(|named| &named.index);
                    items.extend(named.filter(|index| self.has_item(index)).cloned());
                }
            }
        }
        items
    }

    pub fn has_item(&self, index: &IndexRef) -> bool {
        self.has_item.get(index).is_some_and(|has_item| *has_item)
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
    let mut targets = vec![AliasTarget::IndexId(index_id.clone()), AliasTarget::ShopId(index_id)];
    targets.extend(shop_ids.iter().cloned().map(AliasTarget::ShopId));
    targets
}
