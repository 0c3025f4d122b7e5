//! Aliases of items, in the simulation's own words.

use serde_json::{Value, json};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases {
    pub read_alias: Option<String>,
    pub doc_reads: Option<(bool, String)>,
    pub doc_writes: Option<(bool, String)>,
    pub analytics: Option<(bool, String)>,
    pub write: Option<WriteAlias>,
}

/// An entry of `add_docs_config.index_write_aliases`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteAlias {
    IndexId(String),
    ShopId(String),
    Name { account: Option<String>, name: String },
}

impl Aliases {
    /// Adds the attributes that hold the aliases. A bad weight makes the item one that can't be
    /// exported.
    pub fn add_to(&self, item: &mut Value, bad_weight: bool) {
        if let Some(target) = &self.read_alias {
            item["read_alias"] = json!({"S": target});
        }
        let mut blocks = json!({});
        let target = |id: &str| json!({"M": {"index_id": {"S": id}}});
        let list = |on: bool, targets: Value| json!({"M": {"enabled": {"BOOL": on}, "targets": {"L": targets}}});
        if let Some((on, id)) = &self.doc_reads {
            let mut target = target(id);
            if bad_weight {
                target["M"]["weight"] = json!({"N": "7"});
            }
            blocks["doc_reads"] = list(*on, json!([target]));
        } else if bad_weight {
            blocks["doc_reads"] = json!({"S": "not a map"});
        }
        if let Some((on, id)) = &self.doc_writes {
            blocks["doc_writes"] = list(*on, json!([target(id)]));
        }
        if let Some((on, id)) = &self.analytics {
            blocks["analytics"] = json!({"M": {"enabled": {"BOOL": on}, "index_id": {"S": id}}});
        }
        if blocks != json!({}) {
            item["index_aliases"] = json!({"M": blocks});
        }
        let entry = self.write.as_ref().map(|write| match write {
            WriteAlias::IndexId(id) => json!({"index_id": {"S": id}}),
            WriteAlias::ShopId(shop) => json!({"shop_id": {"S": shop}}),
            WriteAlias::Name { account: None, name } => json!({"index_name": {"S": name}}),
            WriteAlias::Name { account: Some(account), name } => {
                json!({"system_account_id": {"S": account}, "index_name": {"S": name}})
            }
        });
        if let Some(entry) = entry {
            let list = json!({"L": [{"M": entry}]});
            item["add_docs_config"] = json!({"M": {"index_write_aliases": list}});
        }
    }

    /// Whether an active one of them names `name`: an index id or a shop id. They are an item's of
    /// `account`.
    pub fn name(&self, account: &str, name: &str) -> bool {
        let active = |block: &Option<(bool, String)>| {
            block.as_ref().is_some_and(|(on, target)| *on && target == name)
        };
        let reads = match &self.read_alias {
            Some(target) => target == name,
            None => active(&self.doc_reads),
        };
        let writes = match &self.write {
            None => false,
            Some(WriteAlias::IndexId(target) | WriteAlias::ShopId(target)) => target == name,
            Some(WriteAlias::Name { account: named, name: index }) => {
                format!("{}-{index}", named.as_deref().unwrap_or(account)) == name
            }
        };
        reads || writes || active(&self.doc_writes) || active(&self.analytics)
    }
}
