//! The table's items, and the values that KV must hold for them. Written from the specification
//! alone: of the exporter, only the key types are used.

use std::fmt::Write as _;
use std::rc::Rc;

use ecom_settings_exporter::item::{Item, ItemKey};
use serde_json::{Value, json};

use super::{Aliases, IndexRef, index_id, is_index_id};

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
pub enum Content {
    Settings(Settings),
    Query(u32),
    /// Anything else; its aliases count all the same.
    Other(Aliases),
}

impl Image {
    pub fn new(key: &ItemKey, content: Content) -> Rc<Self> {
        let mut attributes = match &content {
            Content::Settings(settings) => settings.attributes(),
            Content::Query(version) => json!({"boost": {"N": version.to_string()}}),
            Content::Other(aliases) => {
                let mut item = json!({"anything": {"S": "x"}});
                aliases.add_to(&mut item, false);
                item
            }
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
            Content::Query(_) | Content::Other(_) => None,
        }
    }

    /// The aliases that count: a query config has none.
    pub fn aliases(&self) -> Option<&Aliases> {
        match &self.content {
            Content::Settings(settings) => Some(&settings.aliases),
            Content::Other(aliases) => Some(aliases),
            Content::Query(_) => None,
        }
    }

    /// What tells it from all other images.
    pub fn version(&self) -> Option<u32> {
        match &self.content {
            Content::Settings(settings) => Some(settings.version),
            Content::Query(version) => Some(*version),
            Content::Other(_) => None,
        }
    }
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
        self.aliases.add_to(&mut item, self.flaw == Some(Flaw::BadWeight));
        item
    }

    fn url(&self) -> String {
        format!("https://index.example/{}", self.version)
    }

    /// Whether the item is one that KV can hold, given a cell and an API key.
    pub fn is_whole(&self) -> bool {
        match self.flaw {
            None => true,
            Some(Flaw::NoEndpoint) => false,
            Some(Flaw::BadWeight) => self.aliases.read_alias.is_some(),
        }
    }

    /// Whether the image asks for a KV key.
    pub fn asks_for(&self, index: &IndexRef, key: &str) -> bool {
        self.shop.as_deref() == Some(key) || is_index_id(&index.account, &index.name, key)
    }

    pub fn kv_keys(&self, index: &IndexRef) -> Vec<String> {
        let mut keys = vec![index_id(index)];
        keys.extend(self.shop.clone().filter(|shop| *shop != keys[0]));
        keys
    }

    /// The value that KV has to hold, byte for byte.
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
