//! One deployment: a table with its stream, the API keys of its accounts, and what its operators
//! are about to do.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{
    Image, IndexRef, ItemKey, Past, Settings, Step, index_of, is_index_id, item_key, query_kv_key,
    query_of,
};

/// What an item was at every step; `None` while there was none.
pub type ItemPast = Past<Option<Rc<Image>>>;

#[derive(Debug, Default)]
pub struct Environment {
    /// What the metadata of its entries names.
    pub name: &'static str,
    /// The cell of items that name none.
    pub default_cell: Option<&'static str>,
    pub table: BTreeMap<ItemKey, ItemPast>,
    pub shards: Vec<Shard>,
    /// The API keys that each account has had.
    pub api_keys: BTreeMap<String, Past<String>>,
    pub keyless: BTreeSet<String>,
    /// Re-exports to come; whether each is of the query configs too.
    pub re_exports: Vec<(IndexRef, bool)>,
    pub reconciles: Vec<Reconcile>,
}

#[derive(Debug, Default)]
pub struct Shard {
    pub records: Vec<Record>,
    pub checkpoint: usize,
}

#[derive(Debug, Default)]
pub struct Record {
    pub number: String,
    pub json: String,
    /// When the table took the change, to the second, where the record says it.
    pub created: Option<u64>,
    /// `None` for garbage.
    pub item: Option<ItemKey>,
    /// Whether its images can be read.
    pub is_readable: bool,
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

    pub fn current(&self, key: &ItemKey) -> Option<&Rc<Image>> {
        self.table.get(key)?.last()?.as_ref()
    }

    /// What an index is at present.
    pub fn current_settings(&self, index: &IndexRef) -> Option<&Settings> {
        self.current(&item_key(index)).and_then(|image| image.settings())
    }

    /// All indexes that ever existed, with all their images.
    pub fn indexes(&self) -> impl Iterator<Item = (IndexRef, &ItemPast)> {
        self.table.iter().filter_map(|(key, past)| Some((index_of(key)?, past)))
    }

    /// Whether there is an index item at present.
    pub fn has_indexes(&self) -> bool {
        self.indexes().any(|(_, past)| past.last().is_some_and(Option::is_some))
    }

    /// Whether an item was changed after this step.
    pub fn has_changed_since(&self, step: Step) -> bool {
        self.table.values().any(|past| past.changed() > step)
    }

    pub fn past_of(&self, index: &IndexRef) -> Option<&ItemPast> {
        self.table.get(&item_key(index))
    }

    /// What an index has been at any time since `from`.
    pub fn settings_since(&self, index: &IndexRef, from: Step) -> impl Iterator<Item = &Settings> {
        let images = self.past_of(index).into_iter().flat_map(move |past| past.since(from));
        images.flatten().filter_map(|image| image.settings())
    }

    /// Whether an index has been an item that can't be exported at any time since `from`.
    pub fn was_unable(&self, index: &IndexRef, from: Step) -> bool {
        self.settings_since(index, from).any(|settings| !self.exportable(index, settings))
    }

    /// Returns the indexes that have asked for a settings key at any time since `from`.
    pub fn askers(&self, key: &str, from: Step) -> impl Iterator<Item = (IndexRef, &ItemPast)> {
        let asked = move |item: &ItemKey, past: &ItemPast| {
            let name = item.sk.strip_prefix("INDEX#").unwrap_or_default();
            let is_id = is_index_id(&item.pk, name, key);
            past.since(from)
                .flatten()
                .filter_map(|image| image.settings())
                .any(|settings| is_id || settings.shop.as_deref() == Some(key))
        };
        self.table
            .iter()
            .filter(move |(item, past)| asked(item, past))
            .filter_map(|(item, past)| Some((index_of(item)?, past)))
    }

    /// Returns the items that ask for a settings key at present.
    pub fn claimants(&self, key: &str) -> Vec<(IndexRef, &Settings)> {
        let claimants = self.askers(key, Step::MAX - 1);
        claimants
            .filter_map(|(index, past)| Some((index, past.last()?.as_ref()?.settings()?)))
            .collect()
    }

    /// The query configs that a KV key can mean, by account and index, with all that they ever were.
    pub fn queries_of(&self, key: &str) -> Vec<(IndexRef, String, &ItemPast)> {
        let queries = self.table.iter().filter_map(|(item, past)| {
            let (index, query) = query_of(item)?;
            let rest = key.strip_prefix("qcfg-")?.strip_prefix(&*item.pk)?.strip_prefix('-')?;
            let is_its = rest.starts_with(&*index.name) && query_kv_key(&index, &query) == key;
            is_its.then_some((index, query, past))
        });
        let mut queries: Vec<_> = queries.collect();
        queries.sort_by(|(a, ..), (b, ..)| a.cmp(b));
        queries
    }

    /// Whether a record of it is not rejected by itself: it is whole, and has a cell.
    pub fn is_valid(&self, settings: &Settings) -> bool {
        settings.is_whole() && (settings.cell.is_some() || self.default_cell.is_some())
    }

    /// Whether the item can be exported: it is valid, and its account has an API key.
    pub fn exportable(&self, index: &IndexRef, settings: &Settings) -> bool {
        self.is_valid(settings) && !self.keyless.contains(&index.account)
    }

    /// Returns an item other than `but` whose active aliases have named `name` all the time since `from`.
    pub fn pointer(&self, from: Step, but: &ItemKey, name: &str) -> Option<&ItemKey> {
        let mut items = self.table.iter().filter(|(item, _)| *item != but);
        let pointer = items.find(|(item, past)| {
            past.all_since(from, |image| {
                let aliases = image.as_ref().and_then(|image| image.aliases());
                aliases.is_some_and(|aliases| aliases.name(&item.pk, name))
            })
        });
        pointer.map(|(item, _)| item)
    }

    /// Whether an active alias of an item other than `but` has named `name` at any time since `from`.
    pub fn was_pointed_at(&self, from: Step, but: &ItemKey, name: &str) -> bool {
        let mut items = self.table.iter().filter(|(item, _)| *item != but);
        items.any(|(item, past)| {
            let mut aliases = past.since(from).flatten().filter_map(|image| image.aliases());
            aliases.any(|aliases| aliases.name(&item.pk, name))
        })
    }

    pub fn is_drained(&self) -> bool {
        self.re_exports.is_empty()
            && self.reconciles.is_empty()
            && self.shards.iter().all(|shard| shard.checkpoint == shard.records.len())
    }
}

impl Reconcile {
    pub fn repair() -> Self {
        Self { apply: true, ..Self::default() }
    }

    /// The payload, with the token of the run before it.
    pub fn payload(&self, token: Option<&str>) -> String {
        let mut fields = serde_json::json!({"apply": self.apply});
        let mut add = |name: &str, value: Option<serde_json::Value>| {
            if let Some(value) = value {
                fields[name] = value;
            }
        };
        add("system_account_id", self.account.clone().map(Into::into));
        add("delete_up_to", self.delete_up_to.map(Into::into));
        add("rewrite_up_to", self.rewrite_up_to.map(Into::into));
        add("continue", token.map(Into::into));
        serde_json::json!({"reconcile": fields}).to_string()
    }
}
