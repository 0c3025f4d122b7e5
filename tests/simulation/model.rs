//! The table's items, and the values that KV must hold for them. Written from the specification
//! alone: of the exporter, only the key types are used.

use std::fmt::Write as _;
use std::rc::Rc;

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::item::{Item, ItemKey};
use serde_json::{Value, json};

/// An index-settings item at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Differs in every image of a history.
    pub version: u32,
    pub shop: Option<String>,
    pub flaw: Option<Flaw>,
    pub cell: Option<&'static str>,
    pub aliases: Aliases,
}

/// Why an item can't be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    NoEndpoint,
    BadWeight,
}

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

/// An item's content, with its renderings.
#[derive(Debug)]
pub struct Image {
    pub content: Content,
    /// DynamoDB JSON, as a stream record's image.
    pub json: String,
    /// As the table returns it.
    pub item: Item,
    /// As a scan for claims returns it.
    pub claims: Item,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "most items are settings")]
pub enum Content {
    Settings(Settings),
    Query(u32),
    Other,
}

impl Image {
    pub fn new(key: &ItemKey, content: Content) -> Rc<Self> {
        let mut attributes = match &content {
            Content::Settings(settings) => settings.attributes(),
            Content::Query(version) => json!({"boost": {"N": version.to_string()}}),
            Content::Other => json!({"anything": {"S": "x"}}),
        };
        attributes["pk"] = json!({"S": key.pk});
        attributes["sk"] = json!({"S": key.sk});
        let mut claims = attributes.clone();
        if let Value::Object(map) = &mut claims {
            let told = ["pk", "sk", "shop_id", "index_aliases", "read_alias", "add_docs_config"];
            map.retain(|name, _| told.contains(&name.as_str()));
        }
        let json = attributes.to_string();
        let (_, item) = Item::parse(serde_json::value::to_raw_value(&attributes).unwrap()).unwrap();
        let (_, claims) = Item::parse(serde_json::value::to_raw_value(&claims).unwrap()).unwrap();
        Rc::new(Self { content, json, item, claims })
    }

    pub fn settings(&self) -> Option<&Settings> {
        match &self.content {
            Content::Settings(settings) => Some(settings),
            _ => None,
        }
    }
}

pub fn index_id(index: &IndexRef) -> String {
    format!("{}-{}", index.account, index.name)
}

impl Settings {
    fn attributes(&self) -> Value {
        let mut item = json!({"index_endpoint": {"S": self.url()}});
        if self.flaw == Some(Flaw::NoEndpoint) {
            item = json!({"create_index_config": {"M": {"v": {"N": self.version.to_string()}}}});
        }
        if let Some(shop) = &self.shop {
            item["shop_id"] = json!({"S": shop});
        }
        if let Some(cell) = self.cell {
            item["cell"] = json!({"S": cell});
        }
        let Aliases { read_alias, doc_reads, doc_writes, analytics, write } = &self.aliases;
        if let Some(target) = read_alias {
            item["read_alias"] = json!({"S": target});
        }
        let mut blocks = json!({});
        let target = |id: &str| json!({"M": {"index_id": {"S": id}}});
        let list = |on: bool, targets: Value| json!({"M": {"enabled": {"BOOL": on}, "targets": {"L": targets}}});
        if let Some((on, id)) = doc_reads {
            let mut target = target(id);
            if self.flaw == Some(Flaw::BadWeight) {
                target["M"]["weight"] = json!({"N": "7"});
            }
            blocks["doc_reads"] = list(*on, json!([target]));
        } else if self.flaw == Some(Flaw::BadWeight) {
            blocks["doc_reads"] = json!({"S": "not a map"});
        }
        if let Some((on, id)) = doc_writes {
            blocks["doc_writes"] = list(*on, json!([target(id)]));
        }
        if let Some((on, id)) = analytics {
            blocks["analytics"] = json!({"M": {"enabled": {"BOOL": on}, "index_id": {"S": id}}});
        }
        if blocks != json!({}) {
            item["index_aliases"] = json!({"M": blocks});
        }
        let entry = write.as_ref().map(|write| match write {
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
        item
    }

    fn url(&self) -> String {
        format!("https://index.example/{}", self.version)
    }

    /// Whether the item can be exported, given an API key.
    pub fn is_valid(&self) -> bool {
        match self.flaw {
            None => true,
            Some(Flaw::NoEndpoint) => false,
            Some(Flaw::BadWeight) => self.aliases.read_alias.is_some(),
        }
    }

    /// Whether the image asks for a KV key.
    pub fn asks_for(&self, index: &IndexRef, key: &str) -> bool {
        index_id(index) == key || self.shop.as_deref() == Some(key)
    }

    pub fn kv_keys(&self, index: &IndexRef) -> Vec<String> {
        let mut keys = vec![index_id(index)];
        keys.extend(self.shop.clone().filter(|shop| *shop != keys[0]));
        keys
    }

    /// Whether the image, which is `owner`'s, has an active alias to `index`, or to its `shop`.
    pub fn points_at(&self, owner: &IndexRef, index: &IndexRef, shop: Option<&str>) -> bool {
        if owner == index {
            return false;
        }
        let id = index_id(index);
        let active = |block: &Option<(bool, String)>| {
            block.as_ref().is_some_and(|(on, target)| *on && *target == id)
        };
        let reads = match &self.aliases.read_alias {
            Some(target) => *target == id,
            None => active(&self.aliases.doc_reads),
        };
        let writes = match &self.aliases.write {
            None => false,
            Some(WriteAlias::IndexId(target)) => *target == id,
            Some(WriteAlias::ShopId(target)) => *target == id || Some(target.as_str()) == shop,
            Some(WriteAlias::Name { account, name }) => {
                format!("{}-{name}", account.as_ref().unwrap_or(&owner.account)) == id
            }
        };
        reads || writes || active(&self.aliases.doc_writes) || active(&self.aliases.analytics)
    }

    /// Whether a write alias of the image names `key` as a shop id.
    pub fn names_shop(&self, key: &str) -> bool {
        matches!(&self.aliases.write, Some(WriteAlias::ShopId(shop)) if shop == key)
    }

    /// The value that KV must hold, byte for byte.
    pub fn value(&self, index: &IndexRef, api_key: &str) -> String {
        let mut out =
            format!(r#"{{"system_account_id":"{}","index_name":"{}""#, index.account, index.name);
        if let Some(shop) = &self.shop {
            write!(out, r#","shop_id":"{shop}""#).unwrap();
        }
        write!(out, r#","marqo_api_key":"{api_key}","index_url":"{}""#, self.url()).unwrap();
        let mut blocks = Vec::new();
        if let Some((on, id)) = &self.aliases.analytics {
            blocks.push(format!(
                r#""analytics":{{"enabled":{on},"index_id":"{id}","internal":false}}"#
            ));
        }
        let reads = match &self.aliases.read_alias {
            Some(target) => Some((true, target)),
            None => self.aliases.doc_reads.as_ref().map(|(on, target)| (*on, target)),
        };
        if let Some((on, id)) = reads {
            blocks.push(format!(
                r#""doc_reads":{{"enabled":{on},"targets":[{{"index_id":"{id}","internal":false,"weight":1.0}}]}}"#
            ));
        }
        if !blocks.is_empty() {
            write!(out, r#","index_aliases":{{{}}}"#, blocks.join(",")).unwrap();
        }
        out.push('}');
        out
    }
}

/// The query-config value that KV must hold, byte for byte.
pub fn query_value(index: &IndexRef, query: &str, version: u32) -> String {
    format!(
        r#"{{"boost":{version},"index_name":"{}","normalized_query":"{query}","system_account_id":"{}"}}"#,
        index.name, index.account
    )
}

/// The version that a settings value was rendered from.
pub fn version_of(value: &Value) -> Option<u32> {
    value["index_url"].as_str()?.rsplit('/').next()?.parse().ok()
}
