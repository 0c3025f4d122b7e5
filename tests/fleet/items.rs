//! A fleet: the items of its table by number, and what KV should hold of them. Pure.

use ecom_settings_exporter::index::{IndexRef, ItemRef};
use ecom_settings_exporter::item::{Item, ItemKey};
use serde_json::value::RawValue;

/// The size of a fleet, and how far KV is from it.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub accounts: usize,
    /// Of each account.
    pub indexes: usize,
    /// Of each index.
    pub query_configs: usize,
    /// One item in this many differs from KV; none where this is 0.
    pub drift: usize,
    /// The text in an index's item and in a query config, in bytes.
    pub settings_bytes: usize,
    pub query_config_bytes: usize,
}

/// How KV differs from the table at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// KV lacks the key; of settings, that of the index id.
    Missing,
    /// KV holds an old version; of settings, under the shop id.
    Stale,
    /// KV has a key that no item asks for: the shop id that an index gave up, or a query config's.
    Orphaned,
}

/// An item, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemId {
    pub index: usize,
    /// `None` for the index's settings.
    pub query: Option<usize>,
}

/// What is in the table, or was written to KV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub id: ItemId,
    pub version: u32,
}

impl Size {
    /// Returns the numbers of all items.
    pub fn items(self) -> impl Iterator<Item = ItemId> {
        let queries = move || [None].into_iter().chain((0..self.query_configs).map(Some));
        (0..self.accounts * self.indexes)
            .flat_map(move |index| queries().map(move |query| ItemId { index, query }))
    }

    pub fn drift(self, id: ItemId) -> Option<Drift> {
        let number = id.index * (1 + self.query_configs) + id.query.map_or(0, |query| query + 1);
        let drifts = self.drift > 0 && number.is_multiple_of(self.drift);
        let kinds = [Drift::Missing, Drift::Stale, Drift::Orphaned];
        drifts.then(|| kinds[number / self.drift % 3])
    }

    pub fn item_ref(self, id: ItemId) -> ItemRef {
        let account = format!("a{:07}", id.index / self.indexes);
        let index = IndexRef { account, name: format!("i{:03}", id.index % self.indexes) };
        ItemRef { index, query: id.query.map(|query| format!("q{query:04}")) }
    }

    /// Returns the KV keys of an item. The first is that of its index id, or a query config's only one.
    pub fn kv_keys(self, id: ItemId) -> Vec<String> {
        let item = self.item_ref(id);
        let shop_id = id.query.is_none().then(|| shop_id(&item.index));
        [item.kv_key()].into_iter().chain(shop_id).collect()
    }

    /// Returns what the table holds; of an index only its shop id where `claims`.
    pub fn item(self, Version { id, version }: Version, claims: bool) -> (ItemKey, Item) {
        let item = self.item_ref(id);
        let ItemKey { pk, sk } = item.key();
        let names = format!(r#""pk":{{"S":"{pk}"}},"sk":{{"S":"{sk}"}}"#);
        let text = self.text(id);
        let json = match id.query {
            None => {
                let shop_id = shop_id(&item.index);
                let claims_json = format!(r#"{names},"shop_id":{{"S":"{shop_id}"}}"#);
                match claims {
                    true => format!("{{{claims_json}}}"),
                    false => format!(
                        r#"{{{claims_json},"index_endpoint":{{"S":"https://{pk}.example"}},"cell":{{"S":"{}"}},"search_config":{{"M":{{"version":{{"N":"{version}"}},"text":{{"S":"{text}"}}}}}}}}"#,
                        self.cell(id)
                    ),
                }
            }
            Some(_) => {
                format!(r#"{{{names},"version":{{"N":"{version}"}},"text":{{"S":"{text}"}}}}"#)
            }
        };
        Item::parse(RawValue::from_string(json).expect("JSON")).expect("an item with its key")
    }

    /// Returns what DynamoDB counts for an item, in bytes, roughly.
    pub fn bytes(self, id: ItemId) -> usize {
        150 + self.text_bytes(id)
    }

    /// Returns what KV should hold. Written out here, and not by the library, so that an audit without
    /// findings shows that both mean the same.
    pub fn value(self, Version { id, version }: Version) -> String {
        let ItemRef { index: IndexRef { account, name }, query } = self.item_ref(id);
        let text = self.text(id);
        match query {
            None => format!(
                r#"{{"system_account_id":"{account}","index_name":"{name}","shop_id":"{}","marqo_api_key":"{}","index_url":"https://{account}.example","search_config":{{"text":"{text}","version":{version}}}}}"#,
                self.kv_keys(id)[1],
                api_key(&account),
            ),
            Some(query) => format!(
                r#"{{"index_name":"{name}","normalized_query":"{query}","system_account_id":"{account}","text":"{text}","version":{version}}}"#,
            ),
        }
    }

    fn text(self, id: ItemId) -> String {
        "x".repeat(self.text_bytes(id))
    }

    fn text_bytes(self, id: ItemId) -> usize {
        if id.query.is_none() { self.settings_bytes } else { self.query_config_bytes }
    }

    /// Returns one of five cells, by account.
    pub fn cell(self, id: ItemId) -> String {
        format!("cell-{}", id.index / self.indexes % 5)
    }
}

fn shop_id(index: &IndexRef) -> String {
    format!("shop-{}-{}.example", index.account, index.name)
}

pub fn api_key(account: &str) -> String {
    format!("key-of-{account}")
}
