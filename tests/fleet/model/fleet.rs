//! The items of a fleet and what KV held of them when it began. Pure: all of it follows from numbers.

use std::cell::RefCell;
use std::fmt::Write;
use std::ops::Range;

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::kv::Digest;
use serde_json::value::RawValue;

/// The size of a fleet, and how far KV is from it.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub accounts: usize,
    /// Of each account.
    pub indexes: usize,
    /// Of each index.
    pub query_configs: usize,
    /// Cells that the accounts are spread over.
    pub cells: usize,
    /// One key in so many differs from the table; none where this is 0.
    pub drift: u64,
    /// Which keys those are.
    pub seed: u64,
    /// What an index's item has beside its names, in bytes.
    pub settings_bytes: usize,
    /// The same for a query config.
    pub query_config_bytes: usize,
    /// What a query has beside its number, in bytes.
    pub query_bytes: usize,
}

/// What the names and keys of an item take in the table, in bytes, roughly.
const BYTES_OF_NAMES: usize = 150;

/// A fleet.
pub struct Fleet {
    pub size: Size,
    /// Every index's queries, with the hash in their KV keys, in KV's order.
    hashes: Vec<(String, usize)>,
    settings_text: String,
    query_config_text: String,
    /// The sort keys of an account's items.
    sort_keys: Vec<String>,
    /// A query config as it was at the beginning. All have the same attributes: what names them is
    /// read from their keys.
    query_config: Option<Item>,
    /// Indexes that the table has lost, of which KV holds all keys.
    pub lost: RefCell<Range<usize>>,
    /// Indexes that neither the table nor KV has yet.
    pub to_come: RefCell<Range<usize>>,
}

/// An item, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemId {
    pub index: usize,
    /// `None` for the index's settings.
    pub query: Option<usize>,
}

impl ItemId {
    pub fn settings(index: usize) -> Self {
        Self { index, query: None }
    }

    pub fn query_config(index: usize, query: usize) -> Self {
        Self { index, query: Some(query) }
    }
}

impl Fleet {
    pub fn new(size: Size) -> Self {
        let mut hashes: Vec<(String, usize)> = (0..size.query_configs)
            .map(|query| (Digest::of(size.query_text(query).as_bytes()).to_string(), query))
            .collect();
        hashes.sort();
        let settings_text = "s".repeat(size.settings_bytes);
        let query_config_text = "q".repeat(size.query_config_bytes);
        let mut fleet = Self {
            size,
            hashes,
            settings_text,
            query_config_text,
            sort_keys: Vec::new(),
            query_config: None,
            lost: RefCell::default(),
            to_come: RefCell::default(),
        };
        fleet.sort_keys =
            (0..fleet.items_of_account()).map(|position| fleet.sort_key(position)).collect();
        if size.query_configs > 0 {
            fleet.query_config = Some(fleet.item(ItemId::query_config(0, 0), 0, false).1);
        }
        fleet
    }

    /// How many indexes all accounts have.
    pub fn indexes(&self) -> usize {
        self.size.accounts * self.size.indexes
    }

    /// Items, those that the table lacks included, by number: each index's settings, then its query
    /// configs.
    pub fn items_of_account(&self) -> usize {
        self.size.indexes * (1 + self.size.query_configs)
    }

    pub fn item_at(&self, position: usize) -> ItemId {
        let of_index = 1 + self.size.query_configs;
        ItemId { index: position / of_index, query: (position % of_index).checked_sub(1) }
    }

    pub fn position(&self, item: ItemId) -> usize {
        item.index * (1 + self.size.query_configs) + item.query.map_or(0, |query| query + 1)
    }

    pub fn account(&self, index: usize) -> String {
        account_name(index / self.size.indexes)
    }

    fn index_name(&self, index: usize) -> String {
        format!("i{:03}", index % self.size.indexes)
    }

    pub fn index_ref(&self, index: usize) -> IndexRef {
        IndexRef { account: self.account(index), name: self.index_name(index) }
    }

    pub fn shop_id(&self, index: usize) -> String {
        format!("shop-{}-{}.example", self.account(index), self.index_name(index))
    }

    /// The shop id that an index gave up.
    pub fn previous_shop_id(&self, index: usize) -> String {
        format!("shop-{}-{}.previous", self.account(index), self.index_name(index))
    }

    pub fn cell(&self, index: usize) -> String {
        format!("cell-{}", index / self.size.indexes % self.size.cells)
    }

    /// The queries of an index, each with the hash in its KV key, in KV's order.
    pub fn hashes(&self) -> &[(String, usize)] {
        &self.hashes
    }

    /// The index that a name holds from `start` on: `a0000001?i001`.
    pub fn index_in(&self, text: &str, start: usize) -> Option<usize> {
        let account: usize = text.get(start + 1..start + 8)?.parse().ok()?;
        let index: usize = text.get(start + 10..start + 13)?.parse().ok()?;
        (account < self.size.accounts && index < self.size.indexes)
            .then_some(account * self.size.indexes + index)
    }

    pub fn item_key(&self, item: ItemId) -> ItemKey {
        let sk = self.sort_keys[self.position(item) % self.items_of_account()].clone();
        ItemKey { pk: self.account(item.index), sk }
    }

    fn sort_key(&self, position: usize) -> String {
        let ItemId { index, query } = self.item_at(position);
        let name = self.index_name(index);
        match query {
            None => format!("INDEX#{name}"),
            Some(query) => format!("INDEX#{name}#QUERY#{}", self.size.query_text(query)),
        }
    }

    /// The item that a key names, whether the table has it or not.
    pub fn item_of(&self, key: &ItemKey) -> Option<ItemId> {
        let name = key.sk.get("INDEX#".len().."INDEX#i000".len())?;
        let index = self.index_in(&format!("{}-{name}", key.pk), 0)?;
        let query = match key.sk.split_once("#QUERY#") {
            None => None,
            Some((_, text)) => {
                let query = text.get(1..5)?.parse().ok()?;
                if query >= self.size.query_configs {
                    return None;
                }
                Some(query)
            }
        };
        Some(ItemId { index, query })
    }

    /// What DynamoDB counts for an item, in bytes.
    pub fn item_bytes(&self, item: ItemId) -> usize {
        let text = if item.query.is_none() { &self.settings_text } else { &self.query_config_text };
        BYTES_OF_NAMES + text.len()
    }

    /// A version of an item, with only what settling asks for where `claims`.
    pub fn item(&self, id: ItemId, version: u32, claims: bool) -> (ItemKey, Item) {
        if let (Some(item), Some(_), 0) = (&self.query_config, id.query, version) {
            return (self.item_key(id), item.clone());
        }
        let raw = RawValue::from_string(self.item_json(id, version, claims)).expect("JSON");
        Item::parse(raw).expect("an item with its key")
    }

    /// An item as DynamoDB writes it.
    pub fn item_json(&self, id: ItemId, version: u32, claims: bool) -> String {
        let ItemKey { pk, sk } = self.item_key(id);
        let index = id.index;
        let mut json = String::with_capacity(2 * BYTES_OF_NAMES + self.item_bytes(id));
        let _ = write!(json, r#"{{"pk":{{"S":"{pk}"}},"sk":{{"S":"{sk}"}}"#);
        match id.query {
            None => {
                let _ = write!(json, r#","shop_id":{{"S":"{}"}}"#, self.shop_id(index));
                if !claims {
                    let _ = write!(
                        json,
                        r#","index_endpoint":{{"S":"https://{pk}.example"}},"cell":{{"S":"{}"}},"search_config":{{"M":{{"version":{{"N":"{version}"}},"text":{{"S":"{}"}}}}}}"#,
                        self.cell(index),
                        self.settings_text
                    );
                }
            }
            Some(_) => {
                let _ = write!(
                    json,
                    r#","version":{{"N":"{version}"}},"text":{{"S":"{}"}}"#,
                    self.query_config_text
                );
            }
        }
        json.push('}');
        json
    }

    /// What KV should hold of a version of an item. Written out here, and not by the library, so that
    /// an audit without findings shows that both mean the same.
    pub fn value(&self, item: ItemId, version: u32) -> String {
        let (account, name) = (self.account(item.index), self.index_name(item.index));
        match item.query {
            None => format!(
                r#"{{"system_account_id":"{account}","index_name":"{name}","shop_id":"{}","marqo_api_key":"{}","index_url":"https://{account}.example","search_config":{{"text":"{}","version":{version}}}}}"#,
                self.shop_id(item.index),
                api_key(&account),
                self.settings_text
            ),
            Some(query) => format!(
                r#"{{"index_name":"{name}","normalized_query":"{}","system_account_id":"{account}","text":"{}","version":{version}}}"#,
                self.size.query_text(query),
                self.query_config_text
            ),
        }
    }
}

pub fn account_name(account: usize) -> String {
    format!("a{account:07}")
}

pub fn api_key(account: &str) -> String {
    format!("key-of-{account}")
}

impl Size {
    fn query_text(&self, query: usize) -> String {
        format!("q{query:04}{}", "x".repeat(self.query_bytes))
    }
}
