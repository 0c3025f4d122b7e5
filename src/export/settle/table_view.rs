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
    /// The index that the value names; `None` where there is no value of ours.
    pub index: Option<IndexRef>,
    /// The shop id that the value names.
    pub shop_id: Option<String>,
    /// The value, where it is ours.
    pub stored: Option<StoredValue>,
}

impl Held {
    /// What a value says of itself.
    pub fn new(stored: Option<StoredValue>) -> Self {
        match stored.as_ref().and_then(|stored| StoredSettings::parse(&stored.value)) {
            Some(settings) => {
                Self { index: Some(settings.index), shop_id: settings.shop_id, stored }
            }
            None => Self::default(),
        }
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
    pointers: BTreeMap<AliasTarget, BTreeSet<IndexRef>>,
    existing: BTreeSet<IndexRef>,
}

impl TableView {
    /// A view, of no items yet, for keys that hold this.
    pub fn for_keys(held: &BTreeMap<String, Held>) -> Self {
        let mut interest = Interest::default();
        for (key, held) in held {
            interest.keys.insert(key.clone());
            interest.shop_ids.insert(key.clone());
            if let Some(index) = &held.index {
                let index_id = index.index_id();
                interest.shop_ids.insert(index_id.clone());
                interest.index_ids.insert(index_id);
                interest.shop_ids.extend(held.shop_id.clone());
                interest.indexes.insert(index.clone());
            }
        }
        Self { interest, ..Self::default() }
    }

    /// Takes in an item of the table; anything but an index item is passed over.
    pub fn add(&mut self, key: &ItemKey, item: &Item) {
        let ItemKind::IndexSettings(index) = key.kind() else { return };
        let item = item.attributes();
        for key in claimed_keys(&index, &item) {
            if self.interest.keys.contains(&key) {
                self.claimants.entry(key).or_default().insert(index.clone());
            }
        }
        for target in alias_targets(&index.account, &item) {
            let of_interest = match &target {
                AliasTarget::IndexId(index_id) => self.interest.index_ids.contains(index_id),
                AliasTarget::ShopId(shop_id) => self.interest.shop_ids.contains(shop_id),
            };
            if of_interest {
                self.pointers.entry(target).or_default().insert(index.clone());
            }
        }
        if self.interest.indexes.contains(&index) {
            self.existing.insert(index);
        }
    }

    /// The item that `key` is for: the one that KV's value names, else the first.
    pub fn claimant(&self, key: &str, held: &Held) -> Option<&IndexRef> {
        let claimants = self.claimants.get(key)?;
        let named = held.index.as_ref().and_then(|index| claimants.get(index));
        named.or_else(|| claimants.first())
    }

    /// The items that decisions need whole: those that keys are for, and those that the values of
    /// unclaimed keys name.
    pub fn items_to_read(&self, held: &BTreeMap<String, Held>) -> BTreeSet<IndexRef> {
        held.iter()
            .filter_map(|(key, held)| {
                self.claimant(key, held)
                    .or_else(|| held.index.as_ref().filter(|index| self.has_item(index)))
            })
            .cloned()
            .collect()
    }

    /// Whether the table has an item for the index.
    pub fn has_item(&self, index: &IndexRef) -> bool {
        self.existing.contains(index)
    }

    /// The other indexes whose active aliases point at the index that a value names.
    pub fn pointers_at(&self, index: &IndexRef, shop_id: Option<&str>) -> BTreeSet<IndexRef> {
        let index_id = index.index_id();
        let by_shop_id = |shop_id: &str| AliasTarget::ShopId(shop_id.to_owned());
        let targets = [
            Some(AliasTarget::IndexId(index_id.clone())),
            Some(by_shop_id(&index_id)),
            shop_id.map(by_shop_id),
        ];
        targets.iter().flatten().flat_map(|target| self.pointing(target, index)).collect()
    }

    /// The indexes other than `index` whose write aliases name the key as a shop id.
    pub fn write_aliases_of(&self, key: &str, index: &IndexRef) -> BTreeSet<IndexRef> {
        self.pointing(&AliasTarget::ShopId(key.to_owned()), index).collect()
    }

    fn pointing<'a>(
        &'a self,
        target: &AliasTarget,
        index: &'a IndexRef,
    ) -> impl Iterator<Item = IndexRef> + use<'a> {
        let pointers = self.pointers.get(target).into_iter().flatten();
        pointers.filter(move |pointer| *pointer != index).cloned()
    }
}
