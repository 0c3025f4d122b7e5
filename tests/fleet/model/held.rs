//! What the namespaces hold: what they held at the beginning, and what was written and deleted since.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ecom_settings_exporter::kv::{Digest, Entry, Metadata, Source, Stamp, StoredValue};
use ecom_settings_exporter::ports::Namespace;

use super::{Drift, Fleet, ItemId, STALE};

/// The environment that has written everything.
pub const ENVIRONMENT: &str = "prod";

/// What a key holds.
#[derive(Clone)]
pub enum Held {
    /// What it held at the beginning: a version of an item.
    FromTheBeginning(ItemId, u32),
    /// What was written since.
    Written(StoredValue),
}

/// A few keys that follow each other in a namespace: those of one index.
pub type Block = BTreeMap<String, Held>;

type Changes = BTreeMap<String, Option<Held>>;

/// Both namespaces. The settings' blocks are the index ids of all indexes, then their shop ids; the
/// query configs' are those of each index.
#[derive(Default)]
pub struct Namespaces {
    changes: RefCell<BTreeMap<(Namespace, usize), Changes>>,
}

impl Held {
    pub fn digest(&self, fleet: &Fleet) -> Option<Digest> {
        match self {
            Self::FromTheBeginning(item, version) => {
                Some(Digest::of(fleet.value(*item, *version).as_bytes()))
            }
            Self::Written(_) => self.metadata(fleet)?.digest,
        }
    }

    pub fn metadata(&self, fleet: &Fleet) -> Option<Metadata> {
        match self {
            Self::FromTheBeginning(item, _) => Some(Metadata {
                index: fleet.index_ref(item.index),
                environment: Some(ENVIRONMENT.to_owned()),
                digest: self.digest(fleet),
            }),
            Self::Written(stored) => Metadata::parse(stored.metadata.as_deref()?.get()),
        }
    }

    pub fn stored(&self, fleet: &Fleet) -> StoredValue {
        match self {
            Self::FromTheBeginning(item, version) => {
                let stamp = Stamp {
                    exported_at: "2026-01-01T00:00:00.000Z".to_owned(),
                    source: Source::Stream,
                    environment: ENVIRONMENT.to_owned(),
                    changed_at: None,
                };
                let value = fleet.value(*item, *version);
                Entry::new(&value, &fleet.index_ref(item.index), &stamp).to_stored()
            }
            Self::Written(stored) => stored.clone(),
        }
    }
}

impl Namespaces {
    /// How many blocks a namespace has.
    pub fn blocks(fleet: &Fleet, namespace: Namespace) -> usize {
        match namespace {
            Namespace::Settings => 2 * fleet.indexes(),
            Namespace::QueryConfigs => fleet.indexes(),
        }
    }

    /// The block of a key.
    pub fn block_of(fleet: &Fleet, namespace: Namespace, key: &str) -> usize {
        let index = |start| fleet.index_in(key, start).expect("a key of the fleet");
        match namespace {
            Namespace::QueryConfigs => index("qcfg-".len()),
            Namespace::Settings if key.starts_with("shop-") => {
                fleet.indexes() + index("shop-".len())
            }
            Namespace::Settings => index(0),
        }
    }

    /// The keys of a block.
    pub fn block(&self, fleet: &Fleet, namespace: Namespace, number: usize) -> Block {
        let mut block = beginning(fleet, namespace, number);
        if let Some(changes) = self.changes.borrow().get(&(namespace, number)) {
            for (key, change) in changes {
                match change {
                    Some(held) => drop(block.insert(key.clone(), held.clone())),
                    None => drop(block.remove(key)),
                }
            }
        }
        block
    }

    pub fn set(&self, fleet: &Fleet, namespace: Namespace, key: &str, held: Option<Held>) {
        let block = Self::block_of(fleet, namespace, key);
        let mut changes = self.changes.borrow_mut();
        changes.entry((namespace, block)).or_default().insert(key.to_owned(), held);
    }

    pub fn get(&self, fleet: &Fleet, namespace: Namespace, key: &str) -> Option<Held> {
        let block = Self::block_of(fleet, namespace, key);
        self.block(fleet, namespace, block).remove(key)
    }
}

fn beginning(fleet: &Fleet, namespace: Namespace, number: usize) -> Block {
    let mut block = Block::new();
    match namespace {
        Namespace::Settings => {
            let item = ItemId::settings(number % fleet.indexes());
            let drift = fleet.drift(item);
            let is_shop_id = number >= fleet.indexes();
            if !fleet.has_come(item.index) {
                return block;
            }
            if !is_shop_id && drift != Some(Drift::Missing) {
                let key = fleet.index_ref(item.index).index_id();
                block.insert(key, Held::FromTheBeginning(item, 0));
            }
            if is_shop_id {
                let version = if drift == Some(Drift::Stale) { STALE } else { 0 };
                block.insert(fleet.shop_id(item.index), Held::FromTheBeginning(item, version));
            }
            if is_shop_id && drift == Some(Drift::Orphaned) {
                let key = fleet.previous_shop_id(item.index);
                block.insert(key, Held::FromTheBeginning(item, STALE));
            }
        }
        Namespace::QueryConfigs if !fleet.has_come(number) => {}
        Namespace::QueryConfigs => {
            let index_id = fleet.index_ref(number).index_id();
            for (hash, query) in fleet.hashes() {
                let item = ItemId::query_config(number, *query);
                let drift = fleet.drift(item);
                if drift == Some(Drift::Missing) {
                    continue;
                }
                let version = if drift == Some(Drift::Stale) { STALE } else { 0 };
                let key = format!("qcfg-{index_id}-{hash}");
                block.insert(key, Held::FromTheBeginning(item, version));
            }
        }
    }
    block
}
