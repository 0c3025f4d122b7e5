//! A query-config override: the item as it stands, named by its keys.

use super::{Image, QueryConfigRef, Rejection, json};

/// What the query-config namespace gets for one override.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryConfig {
    /// The JSON value.
    pub value: String,
}

impl QueryConfig {
    /// Decodes the item of `query_config`.
    pub fn decode(query_config: &QueryConfigRef, image: &Image<'_>) -> Result<Self, Rejection> {
        let named_by_keys = [
            ("system_account_id", &query_config.index.account),
            ("index_name", &query_config.index.index),
            ("normalized_query", &query_config.query),
        ];
        let mut names: Vec<&str> =
            image.names().filter(|name| *name != "pk" && *name != "sk").collect();
        names.extend(named_by_keys.map(|(name, _)| name));
        names.sort_unstable();
        names.dedup();
        let mut value = String::with_capacity(512);
        for (position, name) in names.into_iter().enumerate() {
            value.push(if position == 0 { '{' } else { ',' });
            json::push_string(&mut value, name);
            value.push(':');
            match named_by_keys.iter().find(|(key, _)| *key == name) {
                Some((_, text)) => json::push_string(&mut value, text),
                None => image.push_attribute(&mut value, name)?,
            }
        }
        value.push('}');
        Ok(Self { value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Cursor;
    use crate::record::IndexRef;

    fn decode(image: &str) -> Result<QueryConfig, Rejection> {
        let query_config = QueryConfigRef {
            index: IndexRef::parse("acct1", "main").unwrap(),
            query: "red shoes".into(),
        };
        let image = Image::read(&mut Cursor::new(image)).unwrap();
        QueryConfig::decode(&query_config, &image)
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
        assert_eq!(error.path, "ids[0]");
    }
}
