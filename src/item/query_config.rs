//! A query-config override: the item as it stands, named by its keys.

use std::collections::BTreeMap;
use std::fmt;

use super::fields::NOT_AN_ATTRIBUTE;
use super::{Attribute, Map, QueryConfigRef, Rejection};
use crate::kv::check_key;
use crate::kv::limits::check_value_size;
use crate::kv::metadata::check_metadata_size;

/// What the query-config namespace gets for one override. `Debug` shows the size only.
#[derive(Clone, PartialEq, Eq)]
pub struct QueryConfig {
    pub key: String,
    /// All attributes but `pk` and `sk`, ascending by name.
    pub value: String,
}

impl fmt::Debug for QueryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueryConfig({} bytes)", self.value.len())
    }
}

impl QueryConfig {
    pub fn decode(config: &QueryConfigRef, item: &Map<'_>) -> Result<Self, Rejection> {
        let key = config.kv_key();
        check_key(&key).map_err(Rejection::over_limit("index_name"))?;
        check_metadata_size(&config.index).map_err(Rejection::over_limit("index_name"))?;
        let from_the_keys = [
            ("system_account_id", &config.index.account),
            ("index_name", &config.index.name),
            ("normalized_query", &config.query),
        ]
        .map(|(name, text)| (name, Attribute::S(text.as_str().into())));
        let mut fields: BTreeMap<&str, &Attribute<'_>> =
            item.iter().filter(|(name, _)| !["pk", "sk"].contains(name)).collect();
        fields.extend(from_the_keys.iter().map(|(name, text)| (*name, text)));
        let value = serde_json::to_string(&fields).map_err(|_| {
            let malformed = fields.iter().find(|(_, value)| serde_json::to_string(value).is_err());
            Rejection::new(malformed.map_or("(value)", |(name, _)| *name), NOT_AN_ATTRIBUTE)
        })?;
        check_value_size(value.len()).map_err(Rejection::over_limit("(value)"))?;
        Ok(Self { key, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::IndexRef;

    fn decode(item: &str) -> Result<QueryConfig, Rejection> {
        let query_config = QueryConfigRef {
            index: IndexRef::parse("acct1", "main").unwrap(),
            query: "red shoes".into(),
        };
        let item = serde_json::value::RawValue::from_string(item.to_owned()).unwrap();
        QueryConfig::decode(&query_config, &Map::read(&item).unwrap())
    }

    #[test]
    fn every_attribute_but_the_keys_ascending_and_names_come_from_the_keys() {
        let value = decode(
            r#"{"pk":{"S":"other"},"sk":{"S":"INDEX#x"},"zeta":{"NULL":true},"boost":{"N":"1.5"},
                "empty":{"S":""},"index_name":{"S":"forged"},"normalized_query":{"N":"1"}}"#,
        )
        .unwrap()
        .value;
        assert_eq!(
            value,
            r#"{"boost":1.5,"empty":"","index_name":"main","normalized_query":"red shoes","system_account_id":"acct1","zeta":null}"#
        );
    }

    #[test]
    fn a_malformed_attribute_is_rejected_with_its_path() {
        let error = decode(r#"{"ids":{"L":[{"N":"x"}]}}"#).unwrap_err();
        assert_eq!(error.path, "ids");
    }
}
