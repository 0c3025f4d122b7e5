//! Values of random items.

use ecom_settings_exporter::item::{Change, Content, StreamRecord};
use ecom_settings_exporter::kv::{Entry, Source, Stamp, rfc3339};
use fastrand::Rng;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::published::{METADATA, QUERY_CONFIG, SETTINGS, check, published, validator};

/// Values in each of the two namespaces.
const VALUES: u64 = 50_000;

#[test]
fn the_settings_of_random_items_match_their_schema() {
    let rejected = check_values(settings_record);
    assert!(rejected > VALUES / 100, "only {rejected} items were broken");
}

#[test]
fn the_query_configs_of_random_items_match_their_schema() {
    assert_eq!(check_values(query_config_record), 0, "any attribute can be exported");
}

/// Whether an index with this URL is exported, and whether its schema takes the URL.
fn exported_and_published(schema: &jsonschema::Validator, url: &str) -> (bool, bool) {
    let item = Map::from_iter([("index_endpoint".to_owned(), json!({"S": url}))]);
    let record = record(&mut Rng::with_seed(0), "", item).to_string();
    let Content::Settings(record) =
        StreamRecord::read(serde_json::from_str(&record).unwrap()).content
    else {
        panic!("no record of an index: {record}");
    };
    (record.change.is_ok(), schema.is_valid(&json!(url)))
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
    for bad in [
        "h",
        "//h",
        "ftp://h",
        "http:h",
        "http:/h",
        "http://",
        "http:///h",
        "http://?q",
        "http://:80",
        "http://u@",
        "http://u@:80",
        "http://h:x",
        "http://h:1:2",
        "http://[::1",
        "http://h]",
        "http://[h]",
        "http://a<b",
        "http://a>b",
        "http://a|b",
        "http://a^b",
        "http://h\\p",
    ] {
        assert_eq!(exported_and_published(&schema, bad), (false, false), "{bad}");
    }
}

/// Checks the values of random records. Returns how many records were rejected besides.
fn check_values(record: fn(&mut Rng) -> Value) -> u64 {
    let mut rejected = 0;
    let mut checked = 0;
    while checked < VALUES {
        let mut rng = Rng::with_seed(checked + rejected);
        let record = record(&mut rng).to_string();
        let json: &RawValue = serde_json::from_str(&record).unwrap();
        let change = match StreamRecord::read(json).content {
            Content::Settings(record) => record.change.map(|change| match change {
                Change::Upsert(item) => {
                    (SETTINGS, record.index, item.value(&api_key(&mut rng).into()))
                }
                Change::Remove => panic!("a removal"),
            }),
            Content::QueryConfig(record) => record.change.map(|change| match change {
                Change::Upsert(item) => (QUERY_CONFIG, record.query_config.index, item.value),
                Change::Remove => panic!("a removal"),
            }),
            _ => panic!("no record of an item: {record}"),
        };
        let Ok((schema, index, value)) = change else {
            rejected += 1;
            continue;
        };
        checked += 1;
        let parsed = serde_json::from_str(&value).unwrap();
        assert_eq!(check(schema, &parsed), Ok(()), "{record}");
        let entry = Entry::new(&value, &index, &stamp(&mut rng));
        let metadata = serde_json::from_str(entry.to_stored().metadata.unwrap().get()).unwrap();
        assert_eq!(check(METADATA, &metadata), Ok(()), "{record}");
    }
    rejected
}

fn settings_record(rng: &mut Rng) -> Value {
    let mut item = Map::new();
    item.insert("index_endpoint".into(), json!({"S": url(rng)}));
    for name in ["shop_id", "cell", "pixel_id", "read_alias", "unknown"] {
        some(rng, &mut item, name, |rng| json!({"S": text(rng)}));
    }
    let maps = [
        "search_config",
        "collections_config",
        "feature_flags",
        "agentic_config",
        "query_override_sharding",
        "add_docs_config",
    ];
    for name in maps {
        some(rng, &mut item, name, |rng| map(rng, 3));
    }
    some(rng, &mut item, "index_aliases", aliases);
    record(rng, "", item)
}

fn query_config_record(rng: &mut Rng) -> Value {
    let mut item = Map::new();
    for _ in 0..rng.usize(..6) {
        item.insert(text(rng), attribute(rng, 3));
    }
    let query = format!("#QUERY#{}q", text(rng));
    record(rng, &query, item)
}

fn record(rng: &mut Rng, query: &str, mut item: Map<String, Value>) -> Value {
    let keys = json!({
        "pk": {"S": format!("a{}", text(rng))},
        "sk": {"S": format!("INDEX#i{}{query}", text(rng).replace('#', ""))},
    });
    item.extend(keys.as_object().unwrap().clone());
    json!({
        "eventName": "MODIFY", "eventSource": "aws:dynamodb",
        "dynamodb": {"Keys": keys, "NewImage": item, "SequenceNumber": "1"},
    })
}

fn aliases(rng: &mut Rng) -> Value {
    let mut blocks = Map::new();
    some(rng, &mut blocks, "doc_writes", |rng| map(rng, 2));
    some(rng, &mut blocks, "doc_reads", |rng| {
        let mut block = Map::new();
        some(rng, &mut block, "enabled", flag);
        some(
            rng,
            &mut block,
            "targets",
            |rng| json!({"L": (0..rng.usize(..4)).map(|_| target(rng)).collect::<Vec<_>>()}),
        );
        json!({"M": block})
    });
    some(rng, &mut blocks, "analytics", |rng| {
        let mut block = Map::new();
        some(rng, &mut block, "enabled", flag);
        some(rng, &mut block, "internal", flag);
        some(rng, &mut block, "index_id", |rng| json!({"S": text(rng)}));
        json!({"M": block})
    });
    json!({"M": blocks})
}

fn target(rng: &mut Rng) -> Value {
    let mut target = Map::new();
    target.insert("index_id".into(), json!({"S": text(rng)}));
    some(rng, &mut target, "enabled", flag);
    some(rng, &mut target, "internal", flag);
    // Now and then above 1, which is rejected.
    some(rng, &mut target, "weight", |rng| json!({"N": (rng.f64() * 1.02).to_string()}));
    json!({"M": target})
}

/// The attribute half of the time; sometimes NULL, and rarely of a type that is wrong.
fn some(rng: &mut Rng, map: &mut Map<String, Value>, name: &str, make: impl Fn(&mut Rng) -> Value) {
    let value = match rng.u8(..100) {
        0 => attribute(rng, 1),
        1..10 => json!({"NULL": true}),
        10..60 => make(rng),
        _ => return,
    };
    map.insert(name.to_owned(), value);
}

fn attribute(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(..if depth == 0 { 7 } else { 9 }) {
        0 => json!({"S": text(rng)}),
        1 => json!({"N": number(rng)}),
        2 => flag(rng),
        3 => json!({"NULL": true}),
        4 => json!({"SS": [text(rng), text(rng)]}),
        5 => json!({"NS": [number(rng), number(rng)]}),
        6 => json!({"B": "AAEC"}),
        7 => map(rng, depth),
        _ => {
            json!({"L": (0..rng.usize(..3)).map(|_| attribute(rng, depth - 1)).collect::<Vec<_>>()})
        }
    }
}

fn map(rng: &mut Rng, depth: usize) -> Value {
    let depth = depth.saturating_sub(1);
    let fields = (0..rng.usize(..4)).map(|_| (text(rng), attribute(rng, depth)));
    json!({"M": fields.collect::<Map<_, _>>()})
}

fn flag(rng: &mut Rng) -> Value {
    json!({"BOOL": rng.bool()})
}

fn number(rng: &mut Rng) -> String {
    match rng.u8(..3) {
        0 => rng.i64(..).to_string(),
        1 => rng.u64(..).to_string(),
        _ => (rng.f64() - 0.5).to_string(),
    }
}

fn text(rng: &mut Rng) -> String {
    const CHARACTERS: [char; 16] =
        ['a', 'Z', '0', '-', '.', '_', '#', ' ', '"', '\\', '/', '\n', 'ü', '靴', '👟', '\u{2028}'];
    (0..rng.usize(..12)).map(|_| *rng.choice(&CHARACTERS).unwrap()).collect()
}

fn url(rng: &mut Rng) -> String {
    let ends = ["", "/", ":8443/a?b=c#d", "/%20", "[", "/ü", " "];
    format!(
        "{}://h{}.example{}",
        rng.choice(["http", "https", "HTTPS"]).unwrap(),
        rng.u8(..),
        rng.choice(ends).unwrap()
    )
}

fn api_key(rng: &mut Rng) -> String {
    let length = if rng.u8(..50) == 0 { 1_024 } else { rng.usize(1..40) };
    (0..length).map(|_| char::from(rng.u8(b'!'..=b'~'))).collect()
}

fn stamp(rng: &mut Rng) -> Stamp {
    Stamp {
        exported_at: "2026-11-22T10:00:12.345Z".to_owned(),
        source: *rng.choice(&[Source::Stream, Source::ReExport, Source::Reconcile]).unwrap(),
        environment: "prod".to_owned(),
        changed_at: rfc3339(rng.f64() * 3e11).filter(|_| rng.bool()),
    }
}
