//! Names and values that try to break out of their place, and what the services got.

use serde_json::{Value, json};
use testbed::stack::{ACCOUNT, DEFAULT_CELL, QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

const NAMES: [&str; 14] = [
    "../../admin",
    "a/b",
    "a?key=1&x=2",
    "a#fragment",
    "a\r\nX-Injected: 1",
    "a\nb",
    "%2e%2e%2fadmin",
    "%0d%0aX: 1",
    "a b+c",
    "größe 🦀",
    "a@evil.example:80/",
    "\\..\\admin",
    "a;b,c\"d'e",
    "{cell}{system_account_id}",
];

#[tokio::test]
async fn accounts_and_cells_stay_in_their_place_of_the_url_whatever_they_hold() {
    let world = World::start().await;
    let spied = spy(world.stack.api_keys.faults());
    let mut expected = Vec::new();
    let mut records = Vec::new();
    for name in NAMES {
        // The stand-in's default key contains the account's name, and not every name can be sent.
        world.stack.api_keys.set(name, "key");
        for (account, cell) in [(name, DEFAULT_CELL), ("plain", name), (name, name)] {
            let number = u32::try_from(records.len()).unwrap();
            let item = index_with(account, &format!("i{number}"), json!({"cell": cell}));
            records.push(written(number, &item));
            expected.push((cell.to_owned(), account.to_owned()));
        }
    }

    world.batch_ok(records).await;
    let mut asked: Vec<_> =
        world.stack.api_keys.log().into_iter().map(|asked| (asked.cell, asked.account)).collect();
    asked.sort();
    expected.sort();
    assert_eq!(asked, expected, "one request for each of these names");
    for request in spied.requests() {
        assert_eq!(request.path.split('/').count(), 6, "{}", request.path);
        assert!(request.query.is_empty(), "{}", request.query);
        let mut headers: Vec<_> = request.headers.keys().map(|name| name.as_str()).collect();
        headers.sort_unstable();
        assert_eq!(headers, ["accept", "host", "user-agent"]);
    }
}

#[tokio::test]
async fn keys_and_values_reach_kv_as_they_are_and_bring_no_others() {
    let world = World::start().await;
    let spied = spy(world.stack.kv.faults());
    let hostile = [
        r#"x","value":"stolen"},{"key":"victim"#,
        "line\nbreak\r\n",
        "quote\"back\\slash",
        "../bulk/delete",
        "nul\u{0}and\u{1f}",
        "\u{2028}\u{feff}größe 🦀",
        "[]",
    ];
    for (number, name) in (1..).zip(hostile) {
        let item = index_with(
            &format!("a{number}"),
            name,
            json!({
                "shop_id": name, "pixel_id": name, "index_endpoint": "https://h.example",
                "search_config": {name: name},
            }),
        );
        world.stack.table.put(&item);
        world.stack.table.put(&query_config(&format!("a{number}"), name, name, 1));
        world.stack.api_keys.set(&format!("a{number}"), r#"k","index_url":"https://evil.example"#);
    }

    world.deliver_ok().await;
    let mut expected: Vec<String> = (1..)
        .zip(hostile)
        .flat_map(|(number, name)| [name.to_owned(), format!("a{number}-{name}")])
        .collect();
    expected.sort();
    assert_eq!(world.setting_keys(), expected);
    for name in hostile {
        let value = world.setting(name).unwrap();
        assert_eq!(value["index_name"], name);
        assert_eq!(value["pixel_id"], name);
        assert_eq!(value["search_config"], json!({name: name}));
        assert_eq!(value["marqo_api_key"], r#"k","index_url":"https://evil.example"#);
        assert_eq!(value["index_url"], "https://h.example");
        let metadata = world.stack.kv.get(SETTINGS, name).unwrap().metadata.unwrap();
        assert_eq!(metadata["index_name"], name);
    }
    assert_eq!(world.query_config_keys().len(), hostile.len());

    for number in 1..=hostile.len() {
        world.stack.table.delete(&format!("a{number}"), &format!("INDEX#{}", hostile[number - 1]));
    }
    world.deliver_ok().await;
    assert_eq!(world.setting_keys(), NOTHING, "deletes find the same keys");

    let base =
        |namespace| format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces/{namespace}/bulk");
    for request in spied.requests() {
        let bulk = request.path.trim_end_matches("/delete").trim_end_matches("/get");
        assert!([base(SETTINGS), base(QUERY_CONFIGS)].contains(&bulk.to_owned()), "{bulk}");
        assert_eq!(request.query, "");
    }
}

#[tokio::test]
async fn a_re_export_of_hostile_names_asks_the_table_for_just_them() {
    let world = World::start().await;
    for name in NAMES.into_iter().filter(|name| !name.contains('#')) {
        world.stack.api_keys.set(name, "key");
        let endpoint = json!({"index_endpoint": "https://h.example"});
        world.stack.table.put(&index_with(name, name, endpoint));

        let answered = world.handle(&json!({"system_account_id": name, "index_name": name})).await;

        assert_eq!(answered.ok()["outcome"], "exported", "{name:?}");
        assert!(world.setting_keys().contains(&format!("{name}-{name}")));
    }
    assert_eq!(world.setting_keys().len(), NAMES.len() - 1);
}

/// A list within a list, this many levels deep.
fn nested(depth: usize) -> String {
    format!("{}{}", r#"{"L":["#.repeat(depth), "]}".repeat(depth))
}

#[tokio::test]
async fn nesting_without_end_rejects_its_record_alone() {
    let world = World::start().await;
    let deep = "DEEP";
    let records = [
        written(1, &index_with("a", "deep", json!({"search_config": deep}))),
        written(2, &query_config("a", "deep", "q", 1)),
        json!({"eventName": deep}),
        json!({"dynamodb": {"Keys": deep}}),
        json!(deep),
        written(3, &index("a", "good")),
    ];
    let event = testbed::stream::event(records).to_string();
    for depth in [200, 100_000] {
        let event = event
            .replace(r#"{"S":"DEEP"}"#, &nested(depth))
            .replace(r#""DEEP""#, &nested(depth))
            .replace(r#"{"N":"1"}"#, &nested(depth));

        let answered = world.handle_text(&event).await;

        assert_eq!(answered.failures(), NOTHING);
        assert_eq!(answered.stats.rejected, 5);
        assert_eq!(world.setting_keys(), ["a-good"]);
    }
    let deep: Value = json!({"Records": "DEEP"});
    let payload = deep.to_string().replace(r#""DEEP""#, &nested(100_000));
    assert_eq!(world.handle_text(&payload).await.error().kind, "InvalidPayload");
}

#[tokio::test]
async fn what_a_payload_holds_is_not_repeated_without_end_in_its_error() {
    let world = World::start().await;

    let answered = world.handle(&json!({"x".repeat(1_000_000): "y".repeat(1_000_000)})).await;

    assert_eq!(answered.error().kind, "InvalidPayload");
    assert!(answered.error().message.len() < 1_000);
    assert!(world.logs.text().len() < 5_000);
}
