//! An index's settings: the KV value, complete but for the API key, and the keys it goes under.

use super::aliases::Aliases;
use super::{Draft, Encoded, Image, IndexRef, Rejection, json};
use crate::digest::Digest;
use crate::limits::check_key;

/// An index-settings item, decoded and encoded again, short of its API key.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexSettings {
    /// The index.
    pub index: IndexRef,
    /// The primary KV key, where the index has one.
    pub shop_id: Option<String>,
    /// Whose gateway knows the API key; the default cell's where absent.
    pub cell: Option<String>,
    /// What is exported all the same but is worth a look.
    pub warnings: Vec<String>,
    /// The value's JSON up to where the API key's string stands.
    head: String,
    /// The value's JSON from behind the API key's string.
    tail: String,
}

impl IndexSettings {
    /// Decodes the item of `index`.
    pub fn decode(index: &IndexRef, image: &Image<'_>) -> Result<Self, Rejection> {
        let shop_id = image.optional_string("shop_id")?;
        check_key(&index.index_id()).map_err(|reason| Rejection::new("index_name", reason))?;
        if let Some(shop_id) = &shop_id {
            check_key(shop_id).map_err(|reason| Rejection::new("shop_id", reason))?;
        }
        let endpoint = index_endpoint(image)?;
        let cell = image.optional_string("cell")?;
        let aliases = Aliases::decode(image)?;

        let mut head = String::with_capacity(128 + index.account.len() + index.index.len());
        head.push('{');
        push_text(&mut head, "system_account_id", &index.account);
        head.push(',');
        push_text(&mut head, "index_name", &index.index);
        if let Some(shop_id) = &shop_id {
            head.push(',');
            push_text(&mut head, "shop_id", shop_id);
        }
        head.push_str(",\"marqo_api_key\":");

        let mut tail = String::with_capacity(128 + endpoint.len() + image.json_bytes());
        tail.push(',');
        push_text(&mut tail, "index_url", &endpoint);
        for (name, label) in [
            ("search_config", ",\"search_config\":"),
            ("collections_config", ",\"collections_config\":"),
            ("feature_flags", ",\"feature_flags\":"),
            ("agentic_config", ",\"agentic_config\":"),
        ] {
            image.push_optional_map(&mut tail, label, name)?;
        }
        if let Some(pixel_id) = image.optional_string("pixel_id")? {
            tail.push(',');
            push_text(&mut tail, "pixel_id", &pixel_id);
        }
        if let Some(aliases) = &aliases.json {
            tail.push_str(",\"index_aliases\":");
            tail.push_str(aliases);
        }
        let label = ",\"query_override_sharding\":";
        image.push_optional_map(&mut tail, label, "query_override_sharding")?;
        tail.push('}');
        Ok(Self { index: index.clone(), shop_id, cell, warnings: aliases.warnings, head, tail })
    }

    /// The KV keys of the settings, the primary one first: two, or one where they are equal or
    /// where there is no shop id.
    pub fn kv_keys(&self) -> Vec<String> {
        let index_id = self.index.index_id();
        match &self.shop_id {
            Some(shop_id) if *shop_id != index_id => vec![shop_id.clone(), index_id],
            _ => vec![index_id],
        }
    }

    /// Whether `key` is one of the KV keys.
    pub fn asks_for(&self, key: &str) -> bool {
        self.shop_id.as_deref() == Some(key) || self.index.has_index_id(key)
    }

    /// The size of the value short of the API key, in bytes.
    pub fn bytes_without_key(&self) -> usize {
        self.head.len() + self.tail.len() + 2
    }

    /// Whether both give the same value under the same keys, given the same API key.
    pub fn same_in_kv(&self, other: &Self) -> bool {
        self.head == other.head && self.tail == other.tail && self.index == other.index
    }

    /// The value encoded but for its API key: most of the work, and it can be done while the key is
    /// awaited.
    pub fn draft(&self) -> Draft {
        Draft::new(&self.head, &self.tail)
    }

    /// The whole value, in the order that the proxy's readers know. `draft` is this one's.
    pub fn value(&self, draft: Draft, api_key: &str) -> Encoded {
        draft.complete(&self.head, api_key, &self.tail)
    }

    /// The digest of the whole value.
    pub fn digest(&self, api_key: &str) -> Digest {
        let mut key = String::with_capacity(api_key.len() + 2);
        json::push_string(&mut key, api_key);
        Digest::of_parts(&[&self.head, &key, &self.tail].map(|part| part.as_bytes()))
    }
}

/// The shop id that an image names, if that much of it can be read.
pub fn readable_shop_id(image: &Image<'_>) -> Option<String> {
    image.optional_string("shop_id").ok().flatten()
}

fn index_endpoint(image: &Image<'_>) -> Result<String, Rejection> {
    const PATH: &str = "index_endpoint";
    let reject = |reason: &'static str| Err(Rejection::new(PATH, reason));
    let Some(text) = image.string(PATH)? else { return reject("is required") };
    if !is_plain_url(&text) && !is_http_url(&text) {
        return reject("must be an absolute http or https URL");
    }
    Ok(text.into_owned())
}

fn is_http_url(text: &str) -> bool {
    // The URL parser forgives what the proxy's fetch would stumble over or read otherwise:
    // surrounding blanks, line breaks, backslashes, a missing `//`.
    let forgiven = text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\');
    let prefixed = ["http://", "https://"].iter().any(|prefix| {
        text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && !text[prefix.len()..].starts_with(['/', '?', '#'])
    });
    prefixed && !forgiven && url::Url::parse(text).is_ok_and(|url| url.has_host())
}

/// Whether a URL is written as nearly all endpoints are, so that it takes no parser to see that it
/// is one: a name in small ASCII letters, and perhaps a path of characters that mean themselves.
fn is_plain_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let end = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
    let (host, path) = rest.as_bytes().split_at(end);
    let mut labels = host.split(|byte| *byte == b'.');
    let is_label = |label: &[u8]| {
        !label.is_empty()
            && !label.starts_with(b"xn--")
            && label.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    // A host whose last label is a number has to be an IPv4 address.
    matches!(labels.clone().next_back(), Some([b'a'..=b'z', ..]))
        && labels.all(is_label)
        && path.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(byte))
}

fn push_text(out: &mut String, name: &str, value: &str) {
    json::push_string(out, name);
    out.push(':');
    json::push_string(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Cursor;
    use proptest::prelude::*;

    fn value(settings: &IndexSettings, api_key: &str) -> String {
        let encoded = settings.value(settings.draft(), api_key);
        assert_eq!(encoded.digest(), settings.digest(api_key));
        serde_json::from_str(encoded.literal()).unwrap()
    }

    fn decode(image: &str) -> Result<IndexSettings, Rejection> {
        let index = IndexRef::parse("acct1", "main").unwrap();
        let image = Image::read(&mut Cursor::new(image)).unwrap();
        IndexSettings::decode(&index, &image)
    }

    #[test]
    fn the_value_byte_for_byte() {
        let settings = decode(
            r#"{"query_override_sharding":{"M":{"shards":{"N":"4"}}},"pixel_id":{"S":"px-1"},
            "agentic_config":{"M":{}},"feature_flags":{"M":{"b":{"BOOL":true},"a":{"NULL":true}}},
            "collections_config":{"M":{"k":{"L":[{"N":"1"},{"N":"1.5"}]}}},"search_config":{"M":{}},
            "shop_id":{"S":"example.myshopify.com"},"index_endpoint":{"S":"https://x.example/idx?a=1"},
            "cell":{"S":"cell-1"},"pk":{"S":"acct1"},"sk":{"S":"INDEX#main"},
            "create_index_config":{"BROKEN":1},"add_docs_config":{"M":{}},"unknown":{"S":"x"},
            "index_aliases":{"M":{"analytics":{"M":{"enabled":{"BOOL":false}}}}},"read_alias":{"S":"acct1-v2"}}"#,
        )
        .unwrap();
        assert_eq!(
            value(&settings, "k\"1"),
            concat!(
                r#"{"system_account_id":"acct1","index_name":"main","shop_id":"example.myshopify.com","#,
                r#""marqo_api_key":"k\"1","index_url":"https://x.example/idx?a=1","search_config":{},"#,
                r#""collections_config":{"k":[1,1.5]},"feature_flags":{"a":null,"b":true},"#,
                r#""agentic_config":{},"pixel_id":"px-1","index_aliases":{"analytics":{"enabled":false,"#,
                r#""index_id":null,"internal":false},"doc_reads":{"enabled":true,"targets":[{"index_id":"#,
                r#""acct1-v2","internal":false,"weight":1.0}]}},"query_override_sharding":{"shards":4}}"#
            )
        );
        assert_eq!(settings.kv_keys(), ["example.myshopify.com", "acct1-main"]);
        assert!(settings.kv_keys().iter().all(|key| settings.asks_for(key)));
        assert!(!settings.asks_for("acct1") && !settings.asks_for("acct1-main2"));
        assert_eq!(settings.cell.as_deref(), Some("cell-1"));
    }

    #[test]
    fn absent_null_and_empty_fields_are_left_out() {
        let settings = decode(
            r#"{"index_endpoint":{"S":"http://h"},"shop_id":{"S":""},"pixel_id":{"NULL":true},
            "cell":{"S":""},"search_config":{"NULL":true},"read_alias":{"S":""}}"#,
        )
        .unwrap();
        assert_eq!(
            value(&settings, "k"),
            r#"{"system_account_id":"acct1","index_name":"main","marqo_api_key":"k","index_url":"http://h"}"#
        );
        assert_eq!(settings.kv_keys(), ["acct1-main"]);
        assert_eq!(settings.cell, None);
    }

    #[test]
    fn one_key_where_the_shop_id_is_the_index_id() {
        let settings =
            decode(r#"{"index_endpoint":{"S":"http://h"},"shop_id":{"S":"acct1-main"}}"#).unwrap();
        assert_eq!(settings.kv_keys(), ["acct1-main"]);
        assert!(value(&settings, "k").contains(r#""shop_id":"acct1-main""#));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let rows = [
            (r#"{}"#.to_owned(), "index_endpoint"),
            (r#"{"index_endpoint":{"S":""}}"#.to_owned(), "index_endpoint"),
            (r#"{"index_endpoint":{"NULL":true}}"#.to_owned(), "index_endpoint"),
            (r#"{"index_endpoint":{"N":"1"}}"#.to_owned(), "index_endpoint"),
            (with(r#""shop_id":{"S":"."}"#), "shop_id"),
            (with(r#""shop_id":{"S":".."}"#), "shop_id"),
            (with(&format!(r#""shop_id":{{"S":"{}"}}"#, "s".repeat(513))), "shop_id"),
            (with(r#""shop_id":{"N":"1"}"#), "shop_id"),
            (with(r#""cell":{"BOOL":true}"#), "cell"),
            (with(r#""pixel_id":{"M":{}}"#), "pixel_id"),
            (with(r#""search_config":{"S":"{}"}"#), "search_config"),
            (with(r#""agentic_config":{"M":{"a":{"L":[{"N":"1e999"}]}}}"#), "agentic_config.a[0]"),
            (with(r#""feature_flags":{"Q":{}}"#), "feature_flags"),
        ];
        for (image, path) in rows {
            assert_eq!(decode(&image).unwrap_err().path, path, "{image}");
        }
        assert!(decode(&with(&format!(r#""shop_id":{{"S":"{}"}}"#, "s".repeat(512)))).is_ok());
    }

    fn with(attribute: &str) -> String {
        format!(r#"{{"index_endpoint":{{"S":"http://h"}},{attribute}}}"#)
    }

    #[test]
    fn only_absolute_http_urls_are_endpoints() {
        let endpoint = |url: &str| {
            decode(&format!(r#"{{"index_endpoint":{{"S":{}}}}}"#, serde_json::json!(url)))
        };
        for good in ["http://h", "https://h:8443/p?q#f", "HTTPS://H.example/", "http://[::1]:1/"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "h.example",
            "/path",
            "//h/p",
            "ftp://h",
            "http:h",
            "http:/h",
            "http://",
            "https:///p",
            " http://h",
            "http://h\n",
            "http://h /p",
            "http:\\\\h",
            "javascript:alert(1)",
            "http://h:x",
        ] {
            assert_eq!(endpoint(bad).unwrap_err().path, "index_endpoint", "{bad}");
        }
    }

    #[test]
    fn most_urls_take_no_parser() {
        for plain in ["https://index-1.search.example.com/v1", "http://h", "https://a.b1/"] {
            assert!(is_plain_url(plain), "{plain}");
        }
        for other in ["http://1.2.3.4", "http://h:1", "http://xn--a.b", "http://a..b", "http://h/?"]
        {
            assert!(!is_plain_url(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_url_that_takes_no_parser_is_one(
            url in prop_oneof!["https?://[a-z0-9.-]{0,12}(/[a-zA-Z0-9._~%/-]{0,8})?", "https?://(0x|xn--|[a-f0-9]|[.]|-){0,8}", ".*"],
        ) {
            prop_assert!(!is_plain_url(&url) || is_http_url(&url));
        }
    }
}
