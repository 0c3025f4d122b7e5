//! A query-config override: the item as it stands, named by its keys.

use std::collections::BTreeMap;

use super::map::NOT_AN_ATTRIBUTE;
use super::{Attribute, Map, Rejection};
use crate::index::ItemRef;
use crate::kv::check_key;
use crate::kv::limits::check_value_size;
use crate::kv::metadata::check_metadata_size;

/// Returns the KV value of the query config `item`: all attributes but `pk` and `sk`, ascending by
/// name. Its key and metadata fit KV, too.
pub fn query_config_value(item: &ItemRef, attributes: &Map) -> Result<String, Rejection> {
    check_key(&item.kv_key()).map_err(Rejection::over_limit("index_name"))?;
    check_metadata_size(&item.index).map_err(Rejection::over_limit("index_name"))?;
    let from_the_key = [
        ("system_account_id", Some(&item.index.account)),
        ("index_name", Some(&item.index.name)),
        ("normalized_query", item.query.as_ref()),
    ]
    .map(|(name, text)| (name, text.map(|text| Attribute::S(text.clone()))));
    let own = attributes.iter().filter(|(name, _)| !["pk", "sk"].contains(name));
    let mut fields: BTreeMap<&str, &Attribute> = own.collect();
    fields.extend(from_the_key.iter().filter_map(|(name, text)| Some((*name, text.as_ref()?))));
    let value = serde_json::to_string(&fields).map_err(|_| {
        let malformed = fields.iter().find(|(_, value)| serde_json::to_string(value).is_err());
        Rejection::new(malformed.map_or("(value)", |(name, _)| *name), NOT_AN_ATTRIBUTE)
    })?;
    check_value_size(value.len()).map_err(Rejection::over_limit("(value)"))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::IndexRef;
    use serde_json::{Value, json};

    fn value(name: &str, attributes: Value) -> Result<String, Rejection> {
        let index = IndexRef::parse("acct1", name).unwrap();
        let item = ItemRef { index, query: Some("red shoes".into()) };
        query_config_value(&item, &Map::from(attributes))
    }

    #[test]
    fn every_attribute_but_the_keys_ascending_and_names_come_from_the_keys() {
        let attributes = json!({
            "pk": {"S": "other"}, "sk": {"S": "INDEX#x"}, "zeta": {"NULL": true}, "empty": {"S": ""},
            "boost": {"N": "1.5"}, "index_name": {"S": "forged"}, "normalized_query": {"Q": "1"},
        });
        assert_eq!(
            value("main", attributes).unwrap(),
            r#"{"boost":1.5,"empty":"","index_name":"main","normalized_query":"red shoes","system_account_id":"acct1","zeta":null}"#
        );
    }

    #[test]
    fn a_rejection_names_its_path() {
        let rows = [
            ("main", json!({"ids": {"L": [{"N": "x"}]}}), "ids"),
            ("main", json!({"large": {"S": "x".repeat(26_214_400)}}), "(value)"),
            (&"n".repeat(437), json!({}), "index_name"),
            (&"\u{1}".repeat(200), json!({}), "index_name"),
        ];
        for (name, attributes, path) in rows {
            assert_eq!(value(name, attributes).unwrap_err().path, path);
        }
        assert!(value(&"n".repeat(436), json!({})).is_ok());
    }
}
