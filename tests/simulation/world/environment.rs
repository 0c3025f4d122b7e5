//! One deployment: a table with its stream, the API keys of its accounts, and what its operators
//! are about to do.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{Image, IndexRef, ItemKey, ItemRef, KvKey, Namespace, Past, Step, When};

/// What an item was at every step; `None` while there was none.
pub type ItemPast = Past<Option<Rc<Image>>>;

#[derive(Debug, Default)]
pub struct Environment {
    /// What the metadata of its entries names.
    pub name: &'static str,
    pub table: BTreeMap<ItemKey, ItemPast>,
    /// The items that have ever asked for each key.
    askers: BTreeMap<KvKey, BTreeSet<ItemKey>>,
    pub shards: Vec<Shard>,
    /// The API keys that each account has had.
    pub api_keys: BTreeMap<String, Past<String>>,
    /// Re-exports to come; whether each is of the query configs too.
    pub re_exports: Vec<(IndexRef, bool)>,
    pub reconciles: Vec<Reconcile>,
}

#[derive(Debug, Default)]
pub struct Shard {
    pub records: Vec<Record>,
    pub checkpoint: usize,
}

#[derive(Debug)]
pub struct Record {
    pub number: String,
    pub json: String,
    pub item: ItemKey,
    pub new: Option<Rc<Image>>,
}

/// A reconcile as it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconcile {
    pub apply: bool,
    pub account: Option<String>,
    pub delete_up_to: Option<u64>,
    pub rewrite_up_to: Option<u64>,
}

impl Environment {
    pub fn new(name: &'static str, shards: usize) -> Self {
        let shards = (0..shards).map(|_| Shard::default()).collect();
        Self { name, shards, ..Self::default() }
    }

    pub fn set_item(&mut self, step: Step, key: &ItemKey, image: Option<Rc<Image>>) {
        for asked in image.iter().flat_map(|image| &image.keys) {
            self.askers.entry(asked.clone()).or_default().insert(key.clone());
        }
        self.table.entry(key.clone()).or_default().push(step, image);
    }

    pub fn current(&self, key: &ItemKey) -> Option<&Rc<Image>> {
        self.table.get(key)?.last()?.as_ref()
    }

    /// Whether there was an index item.
    pub fn has_indexes(&self, when: When) -> bool {
        let is_settings = |image: &Rc<Image>| {
            image.keys.first().is_some_and(|key| key.namespace == Namespace::Settings)
        };
        self.table.values().any(|past| past.was(when, |it| it.as_ref().is_some_and(is_settings)))
    }

    /// Returns the items that have asked for a key at any time since `from`.
    pub fn askers<'a>(
        &'a self,
        key: &'a KvKey,
        from: Step,
    ) -> impl Iterator<Item = (&'a ItemKey, &'a ItemPast)> {
        let items = self.askers.get(key).into_iter().flatten();
        let pasts = items.map(|item| (item, &self.table[item]));
        pasts.filter(move |(_, past)| past.was(When::EverSince(from), |it| asks(it, key)))
    }

    /// Returns the items that ask for a key at present.
    pub fn claimants<'a>(
        &'a self,
        key: &'a KvKey,
    ) -> impl Iterator<Item = (&'a ItemKey, &'a Image)> {
        let askers = self.askers(key, Step::MAX - 1);
        askers.filter_map(|(item, past)| Some((item, &**past.last()?.as_ref()?)))
    }

    /// Returns what then protected a key of ours for which nobody asks: its owner's item can't be exported,
    /// or an active alias of another item names the key, or the owner, which has no item.
    pub fn protector(&self, when: When, key: &KvKey, owner: &IndexRef) -> Option<String> {
        let owner_key = ItemRef::from(owner.clone()).key();
        let own = self.table.get(&owner_key);
        let is_rejected =
            |image: &Option<Rc<Image>>| image.as_ref().is_some_and(|it| it.is_rejected());
        if own.is_some_and(|own| own.was(when, is_rejected)) {
            return Some(format!("{owner} can't be exported"));
        }
        let gone = own.is_none_or(|own| own.was(when, Option::is_none));
        let names = |name: &str| {
            let others = self.table.iter().filter(|(item, _)| **item != owner_key);
            let points = |image: &Option<Rc<Image>>| {
                image.as_ref().is_some_and(|image| image.targets.contains(name))
            };
            let mut pointers = others.filter(|(_, past)| past.was(when, points));
            pointers.next().map(|(item, _)| item)
        };
        let owner_id = owner.index_id();
        let pointer = names(&key.name).or_else(|| names(&owner_id).filter(|_| gone));
        pointer.map(|pointer| format!("{pointer} points at it"))
    }

    pub fn is_drained(&self) -> bool {
        self.re_exports.is_empty()
            && self.reconciles.is_empty()
            && self.shards.iter().all(|shard| shard.checkpoint == shard.records.len())
    }
}

/// Whether an item asks for a key.
pub fn asks(image: &Option<Rc<Image>>, key: &KvKey) -> bool {
    image.as_ref().is_some_and(|image| image.keys.contains(key))
}

impl Reconcile {
    pub fn repair() -> Self {
        Self { apply: true, ..Self::default() }
    }

    /// The payload, with the token of the run before it.
    pub fn payload(&self, token: Option<&str>) -> String {
        let mut fields = serde_json::json!({
            "apply": self.apply,
            "system_account_id": self.account,
            "delete_up_to": self.delete_up_to,
            "rewrite_up_to": self.rewrite_up_to,
            "continue": token,
        });
        fields.as_object_mut().unwrap().retain(|_, field| !field.is_null());
        serde_json::json!({"reconcile": fields}).to_string()
    }
}
