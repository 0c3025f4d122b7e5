//! The schema's pattern of an index's URL takes just what the exporter takes. The fuzz tests check the
//! values of random items against the schemas.

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::item::{IndexSettings, Item};
use serde_json::json;
use serde_json::value::to_raw_value;

use super::published::{SETTINGS, published, validator};

/// Whether an index with this URL is exported, and whether its schema takes the URL.
fn exported_and_published(schema: &jsonschema::Validator, url: &str) -> (bool, bool) {
    let item = json!({"pk": {"S": "a"}, "sk": {"S": "INDEX#i"}, "index_endpoint": {"S": url}});
    let (_, item) = Item::parse(to_raw_value(&item).unwrap()).unwrap();
    let index = IndexRef::parse("a", "i").unwrap();
    let decoded = IndexSettings::decode(&index, &item.attributes());
    (decoded.is_ok(), schema.is_valid(&json!(url)))
}

/// `\s` is not the same in every language: ECMA's has U+FEFF, which the exporter takes.
#[test]
fn the_schema_takes_the_urls_that_the_exporter_takes() {
    let schema = validator(&published(SETTINGS)["properties"]["index_url"]);
    for character in (0..=0xFFFF).filter_map(char::from_u32) {
        let (exported, valid) =
            exported_and_published(&schema, &format!("https://h.example/{character}"));
        assert_eq!(exported, valid, "U+{:04X}", u32::from(character));
    }
    for good in [
        "http://h",
        "HTTPS://h.example:0443?q",
        "http://u:p@[::1]:1/#f",
        "http://u@v@h:",
        "http://ü.example/\u{feff}",
        "http://h%41/",
    ] {
        assert_eq!(exported_and_published(&schema, good), (true, true), "{good}");
    }
    let bad = "h //h ftp://h http:h http:/h http:// http:///h http://?q http://:80 http://u@ \
               http://u@:80 http://h:x http://h:1:2 http://[::1 http://h] http://[h] http://a<b \
               http://a>b http://a|b http://a^b http://h\\p";
    for bad in bad.split(' ').filter(|url| !url.is_empty()) {
        assert_eq!(exported_and_published(&schema, bad), (false, false), "{bad}");
    }
}
