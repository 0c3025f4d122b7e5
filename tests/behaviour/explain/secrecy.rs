//! No API key and no settings value in an explanation or in the log of it.

use serde_json::{Value, json};
use testbed::faults::Fault;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::asking::trying;
use crate::helpers::*;

const CANARY: &str = "CANARY";

/// An item with a canary in every value that is no name.
fn item(shop_id: &str, canary: &str) -> Value {
    let targets = json!([{"index_id": "a-v2", "weight": 0.5, "note": canary}]);
    index_with(
        "a",
        "i",
        json!({
            "shop_id": shop_id, "index_endpoint": format!("https://{canary}.example.com"),
            "pixel_id": canary, "search_config": {"limit": canary, "list": [canary, {"x": canary}]},
            "collections_config": {"deep": {"deeper": canary}}, "feature_flags": {"flag": canary},
            "agentic_config": {"prompt": canary}, "query_override_sharding": {"s": canary},
            "index_aliases": {"doc_reads": {"enabled": true, "targets": targets}},
        }),
    )
}

#[tokio::test]
async fn no_value_shows_whatever_is_asked_and_whoever_wrote_it() {
    let world = World::start().await;
    world.stack.api_keys.set("a", &format!("{CANARY}-api-key"));
    let mut override_ = query_config("a", "i", "q", 1);
    override_["filter"] = json!(format!("{CANARY}-1"));
    world.settled_with([item("s.example", &format!("{CANARY}-1")), override_.clone()]).await;
    override_["filter"] = json!({"now": format!("{CANARY}-2")});
    world.stack.table.put(&override_);
    let metadata = json!({
        "digest": CANARY, "exported_at": CANARY, "changed_at": {"at": CANARY}, "source": CANARY,
        "system_account_id": "a", "index_name": "i", "environment": {"name": CANARY},
    });
    let strange = format!(
        r#"{{"system_account_id":"a","index_name":"i","shop_id":["{CANARY}"],"x":"{CANARY}"}}"#
    );
    world.stack.kv.put(SETTINGS, "t.example", &strange, Some(metadata.clone()));
    world.stack.kv.put(SETTINGS, "u.example", CANARY, Some(metadata));
    world.stack.kv.put(SETTINGS, "v.example", &format!(r#"["{CANARY}"]"#), Some(json!(CANARY)));
    let query = query_config_key("a", "i", "q");
    assert!(world.stack.kv.get(QUERY_CONFIGS, &query).unwrap().value.contains(CANARY));

    let items = [
        item("s.example", &format!("{CANARY}-2")),
        item("t.example", &format!("{CANARY}-2")),
        index_with("a", "i", json!({"index_endpoint": CANARY, "search_config": CANARY})),
    ];
    let keys = ["s.example", "t.example", "u.example", "v.example", "a-i", &query];
    let mut seen = 0;
    for item in items {
        world.stack.table.put(&item);
        for fault in [None, Some(Fault::status(503))] {
            if let Some(fault) = fault {
                world.break_api_keys(fault);
            }
            for payload in keys.iter().map(|key| explain_key(key)).chain([explain_index("a", "i")])
            {
                let answered = world.handle(&payload).await;
                let said = format!("{:?}", answered.result);
                assert!(!said.contains(CANARY), "{payload}: {said}");
                seen += usize::from(said.contains("search_config.limit"));
            }
            world.stack.api_keys.faults().clear();
        }
        world.stack.table.put(&json!({"pk": "a", "sk": "INDEX#i#QUERY#q", "boost": 1}));
    }
    assert!(seen > 0, "the paths should show");
    assert!(!world.logs.text().contains(CANARY), "{}", world.logs.text());
}

#[tokio::test]
async fn values_show_where_they_are_asked_for_but_no_secret_and_nothing_in_the_log() {
    let world = World::start().await;
    world.stack.api_keys.set("a", CANARY);
    let item = |limit: &str, secret: u8| {
        let secret = format!("{CANARY}-{secret}");
        let config =
            json!({"limit": limit, "token": secret, "x": {"Passwords": [secret]}, "note": CANARY});
        index_with("a", "i", json!({"shop_id": "s.example", "search_config": config}))
    };
    world.settled_with([item("ten", 1)]).await;
    world.load([item("twenty", 2)]);
    world.stack.api_keys.set("a", &format!("{CANARY}-rotated"));

    for payload in [
        trying(&item("twenty", 3)),
        json!({"explain": {"system_account_id": "a", "index_name": "i", "values": true}}),
        json!({"explain": {"key": "a-i", "values": true}}),
        json!({"explain": {"system_account_id": "a"}}),
        json!({"explain": {"item": {"pk": {"S": "a"}, "x": {"S": CANARY}}}}),
        json!({"explain": {"key": "a-i", "values": CANARY}}),
    ] {
        let answered = world.handle(&payload).await;
        let said = format!("{:?}", answered.result);
        assert!(!said.contains(CANARY), "{payload}: {said}");
        let shows = payload["explain"]["values"] == true;
        for shown in ["ten", "twenty", "****"] {
            assert_eq!(said.contains(&format!("\"{shown}\"")), shows, "{payload}: {said}");
        }
    }
    let log = world.logs.text();
    assert!(["CANARY", "twenty", "****"].iter().all(|text| !log.contains(text)), "{log}");
}
