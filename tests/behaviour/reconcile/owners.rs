//! Keys that another environment wrote.

use serde_json::json;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::drift::*;
use crate::helpers::*;

#[tokio::test]
async fn a_key_of_another_environment_that_no_item_asks_for_is_foreign() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    let query = |name| query_config_key("a", name, "q");
    for (name, writer) in [
        ("ours", Writer::Ours),
        ("earlier", Writer::EarlierVersion),
        ("theirs", Writer::OtherEnvironment),
        ("old", Writer::Predecessor),
    ] {
        world.hold(SETTINGS, &format!("a-{name}"), &held_settings("a", name), writer);
        world.hold(QUERY_CONFIGS, &query(name), &held_query_config("a", name, "q"), writer);
    }

    let report = world.handle(&audit()).await.ok().clone();

    assert_eq!(
        counts(&report, "settings"),
        json!({"desired": 1, "listed": 5, "orphaned": 2, "foreign": 2})
    );
    assert_eq!(counts(&report, "query_configs"), json!({"listed": 4, "orphaned": 2, "foreign": 2}));
    for payload in [repair(), repair_with(json!({"delete_up_to": 1_000}))] {
        world.handle(&payload).await.ok();
        assert_eq!(world.setting_keys(), ["a-i", "a-old", "a-theirs"]);
        let mut kept = [query("old"), query("theirs")];
        kept.sort();
        assert_eq!(world.query_config_keys(), kept);
    }
}

#[tokio::test]
async fn a_key_of_another_environment_that_an_item_asks_for_is_conflicting_until_it_may_be_rewritten()
 {
    for scope in [json!({}), json!({"system_account_id": "a"})] {
        let world = World::start().await;
        world.settled_with([shop("a", "i", "s.example"), query_config("a", "i", "q", 1)]).await;
        let query = query_config_key("a", "i", "q");
        // One key has the value that the item asks for, the others have not.
        let same = world.setting("a-i").unwrap();
        world.hold(SETTINGS, "a-i", &same, Writer::OtherEnvironment);
        world.hold(SETTINGS, "s.example", &held_settings("a", "i"), Writer::OtherEnvironment);
        let other = held_query_config("a", "i", "q");
        world.hold(QUERY_CONFIGS, &query, &other, Writer::OtherEnvironment);

        for more in [json!({}), json!({"delete_up_to": 1_000}), json!({"apply": false})] {
            let payload = repair_with(with(scope.clone(), more));
            let _row = row(&payload);
            let report = world.handle(&payload).await.ok().clone();
            assert_eq!(
                counts(&report, "settings"),
                json!({"desired": 2, "listed": 2, "conflicting": 2})
            );
            assert_eq!(
                counts(&report, "query_configs"),
                json!({"desired": 1, "listed": 1, "conflicting": 1})
            );
            let mut examples = ["a-i", "s.example", &query];
            examples.sort_unstable();
            assert_eq!(sorted(&report["examples"]["conflicting"]), examples);
            assert_eq!(report["complete"], true);
            assert_eq!(writes_of(&world), []);
        }

        let rewrite = repair_with(with(scope.clone(), json!({"rewrite_up_to": 1})));
        world.handle(&rewrite).await.ok();
        assert_eq!(
            writes_of(&world),
            [
                write(KvVerb::PutBulk, QUERY_CONFIGS, &[&query]),
                write(KvVerb::PutBulk, SETTINGS, &["a-i", "s.example"]),
            ],
            "{scope}"
        );
        for stored in world.snapshots().into_iter().flat_map(|stored| stored.into_values()) {
            assert_eq!(stored.metadata.unwrap()["environment"], "local", "{scope}");
        }
        let report = world.handle(&audit()).await.ok().clone();
        assert_eq!(counts(&report, "settings"), json!({"desired": 2, "listed": 2}));
        assert_eq!(counts(&report, "query_configs"), json!({"desired": 1, "listed": 1}));
    }
}
