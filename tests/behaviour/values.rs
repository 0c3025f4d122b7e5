//! What is written to KV, byte for byte.

use serde_json::{Value, json};
use testbed::stack::SETTINGS;

use crate::helpers::*;

const INSERT: &str = include_str!("expected/stream-insert.json");
const ALIAS_OFF: &str = include_str!("expected/stream-alias-off.json");
const LEGACY_ALIAS: &str = include_str!("expected/stream-legacy-alias.json");

#[track_caller]
fn assert_settings(world: &World, key: &str, expected: &str) {
    let stored = world.stack.kv.get(SETTINGS, key).unwrap_or_else(|| panic!("{key} is missing"));
    assert_eq!(stored.value, expected.trim_end(), "{key}");
}

#[tokio::test]
async fn both_keys_of_an_index_hold_the_same_bytes() {
    let acct1 = ["acct1-main", "acme-outdoor.myshopify.com"];
    let rows = [
        ("stream-insert.json", acct1, INSERT),
        // An alias that is switched off is exported with its targets.
        ("stream-alias-off.json", acct1, ALIAS_OFF),
        // `read_alias` replaces `doc_reads`, and write aliases are not exported.
        ("stream-legacy-alias.json", ["acct4-products", "bright-toys.myshopify.com"], LEGACY_ALIAS),
    ];
    for (event, keys, expected) in rows {
        let world = World::start().await;
        assert_eq!(world.handle(&sample_event(event)).await.failures(), NOTHING);
        assert_eq!(world.setting_keys(), keys);
        keys.iter().for_each(|key| assert_settings(&world, key, expected));
    }
}

#[tokio::test]
async fn numbers_sets_and_binary_keep_their_values_through_the_stream_and_the_table() {
    let world = World::start().await;
    let search_config = json!({"M": {
        "int": {"N": "-9223372036854775808"}, "unsigned": {"N": "18446744073709551615"},
        "beyond": {"N": "18446744073709551616"}, "half": {"N": "0.5"}, "small": {"N": "1E-7"},
        "numbers": {"NS": ["10", "9", "-1"]}, "texts": {"SS": ["b", "B", "ä", "a"]},
        "bytes": {"B": "AAEC"}, "blobs": {"BS": ["Ag==", "AQ=="]},
        "nothing": {"NULL": true}, "empty": {"S": ""}, "Z": {"BOOL": false}, "\u{e9}\"": {"L": []},
    }});
    let expected = concat!(
        r#""search_config":{"Z":false,"beyond":1.8446744073709552e+19,"blobs":["AQ==","Ag=="],"#,
        r#""bytes":"AAEC","empty":"","half":0.5,"int":-9223372036854775808,"nothing":null,"numbers":[-1,9,10],"#,
        r#""small":1e-7,"texts":["B","a","b","ä"],"unsigned":18446744073709551615,"#,
        r#""é\"":[]}"#,
    );
    world.stack.table.put_item(&json!({
        "pk": {"S": "a"}, "sk": {"S": "INDEX#i"}, "index_endpoint": {"S": "https://h"},
        "search_config": search_config,
    }));

    world.deliver().await;
    let streamed = world.stack.kv.get(SETTINGS, "a-i").unwrap().value;
    world.stack.kv.delete(SETTINGS, "a-i");
    world.handle(&re_export("a", "i")).await;
    let re_exported = world.stack.kv.get(SETTINGS, "a-i").unwrap().value;

    assert_eq!(
        streamed,
        format!(
            r#"{{"system_account_id":"a","index_name":"i","marqo_api_key":"key-a","index_url":"https://h",{expected}}}"#
        )
    );
    assert_eq!(re_exported, streamed, "both ways give the same bytes");
}

#[tokio::test]
async fn a_record_beyond_the_limits_of_kv_is_rejected_before_anything_is_sent() {
    let world = World::start().await;
    let long = "x".repeat(600);
    let items = [
        (shop("a", "i1", &long), "shop_id"),
        (shop("a", "i2", "."), "shop_id"),
        (shop("a", "i3", ".."), "shop_id"),
        (index("a", &long), "index_name"),
        (query_config("a", &long, "q", 1), "index_name"),
        // 520 bytes are too many for a key, and 500 bytes of escapes are too many for the metadata.
        (index("a", &"\u{1}".repeat(200)), "system_account_id"),
    ];

    let records = items.iter().zip(1..).map(|((item, _), number)| written(number, item));
    let answered = world.batch_ok(records).await;
    assert_eq!(answered.stats.rejected, 6);
    let rejected = world.logs.of("record rejected");
    let paths: Vec<&Value> = rejected.iter().map(|line| &line["path"]).collect();
    assert_eq!(paths.len(), 6);
    for (path, (_, expected)) in paths[..5].iter().zip(&items) {
        assert_eq!(*path, expected);
    }
    assert_eq!(world.stack.kv.log().len(), 0);
}
