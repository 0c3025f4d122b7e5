//! An item of the table at one moment. Its value, its keys and what its aliases point at are the exporter's:
//! unit tests decide them. What follows from them is the checks' own.

use std::collections::BTreeSet;
use std::rc::Rc;

use ecom_settings_exporter::item::{
    CLAIM_PATHS, IndexSettings, Item, alias_targets, claimed_keys, query_config_value,
};
use serde_json::{Value, json};

use super::{DEFAULT_CELL, ItemKey, ItemRef, KvKey};

#[derive(Debug)]
pub struct Image {
    /// What tells it from all other images of a history.
    pub version: u32,
    /// DynamoDB JSON.
    pub attributes: Value,
    pub item: Item,
    /// As a scan for claims returns it.
    pub claims: Item,
    /// The KV keys that it asks for, even if it can't be exported.
    pub keys: Vec<KvKey>,
    /// What its active aliases name.
    pub targets: BTreeSet<String>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Settings(Box<IndexSettings>),
    QueryConfig(String),
    Rejected,
}

const URL: &str = "https://index.example/";

impl Image {
    /// Returns an item with these attributes and this version. One without an endpoint can't be exported.
    pub fn new(item: &ItemRef, version: u32, mut attributes: Value) -> Rc<Self> {
        let ItemKey { pk, sk } = item.key();
        attributes["pk"] = json!({"S": pk});
        attributes["sk"] = json!({"S": sk});
        if item.query.is_some() {
            attributes["boost"] = json!({"N": version.to_string()});
        } else if attributes.get("index_endpoint").is_some() {
            attributes["index_endpoint"] = json!({"S": format!("{URL}{version}")});
        }
        let mut claims = attributes.clone();
        let roots = CLAIM_PATHS.iter().filter_map(|path| path.split('.').next());
        let told: Vec<&str> = roots.chain(["pk", "sk"]).collect();
        claims.as_object_mut().unwrap().retain(|name, _| told.contains(&name.as_str()));
        let parse = |json: &Value| {
            let json = serde_json::value::to_raw_value(json).unwrap();
            Item::parse(json).unwrap().1
        };
        let (parsed, claims) = (parse(&attributes), parse(&claims));
        let map = parsed.attributes();
        let (content, keys, targets) = match item.query {
            None => {
                let settings = IndexSettings::decode(&item.index, &map).map(Box::new);
                let targets = alias_targets(&item.index.account, &map);
                let targets = targets.iter().map(|target| target.name().to_owned()).collect();
                (settings.map(Content::Settings), claimed_keys(item, &map), targets)
            }
            Some(_) => {
                let value = query_config_value(item, &map).map(Content::QueryConfig);
                (value, vec![item.kv_key()], BTreeSet::new())
            }
        };
        let namespace = item.namespace();
        let keys = keys.into_iter().map(|name| KvKey { namespace, name }).collect();
        let content = content.unwrap_or(Content::Rejected);
        Rc::new(Self { version, attributes, item: parsed, claims, keys, targets, content })
    }

    /// The cell that is asked for its API key.
    pub fn cell(&self) -> &str {
        self.attributes["cell"]["S"].as_str().unwrap_or(DEFAULT_CELL)
    }

    pub fn is_rejected(&self) -> bool {
        matches!(self.content, Content::Rejected)
    }

    /// The value that KV has to hold, given the API key.
    pub fn value(&self, api_key: &str) -> Option<String> {
        match &self.content {
            Content::Settings(settings) => Some(settings.value(&api_key.to_owned().into())),
            Content::QueryConfig(value) => Some(value.clone()),
            Content::Rejected => None,
        }
    }
}

/// The version of the image that a value was made from.
pub fn version_of(value: &Value) -> Option<u32> {
    let settings = value["index_url"].as_str().and_then(|url| url.strip_prefix(URL)?.parse().ok());
    settings.or_else(|| value["boost"].as_u64()?.try_into().ok())
}
