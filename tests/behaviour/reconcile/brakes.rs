//! How much a repair may delete and rewrite, and how an operator allows more.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::Fault;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};
use testbed::table::to_item;

use super::drift::*;
use crate::helpers::*;

/// Both namespaces, as KV and as a report call them.
const NAMESPACES: [(&str, &str); 2] = [(SETTINGS, "settings"), (QUERY_CONFIGS, "query_configs")];

/// Puts so many keys of `account` into a namespace that no item asks for.
fn orphans(world: &World, namespace: &str, account: &str, count: usize) {
    for number in 0..count {
        let name = format!("gone-{number:04}");
        let (key, value) = match namespace {
            SETTINGS => (format!("{account}-{name}"), held_settings(account, &name)),
            _ => (query_config_key(account, "gone", &name), {
                held_query_config(account, "gone", &name)
            }),
        };
        world.hold(namespace, &key, &value, Writer::Ours);
    }
}

/// Makes this many of the keys that items of account `a` ask for stale.
fn make_stale(world: &World, namespace: &str, count: usize) {
    for number in 0..count {
        let name = format!("i{:04}", number / 2);
        match (namespace, number % 2) {
            (SETTINGS, 0) => {
                let key = format!("a-{name}");
                world.hold(SETTINGS, &key, &held_settings("a", &name), Writer::Ours);
            }
            (SETTINGS, _) => {
                let key = format!("{name}.example");
                world.hold(SETTINGS, &key, &held_settings("a", &name), Writer::Ours);
            }
            _ => {
                let query = format!("q{number:04}");
                let value = held_query_config("a", "i0000", &query);
                world.hold(
                    namespace,
                    &query_config_key("a", "i0000", &query),
                    &value,
                    Writer::Ours,
                );
            }
        }
    }
}

/// So many indexes of account `a`, each with a shop id: two keys each.
fn shops(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|number| {
        let name = format!("i{number:04}");
        shop("a", &name, &format!("{name}.example"))
    })
}

/// So many query configs of a/i0000.
fn query_configs(count: usize) -> impl Iterator<Item = Value> {
    (0..count).map(|number| query_config("a", "i0000", &format!("q{number:04}"), 1))
}

/// Checks what a run refused: in its answer, in its log and in its counts.
#[track_caller]
fn assert_refused(world: &World, answered: &Answered, delete: u64, rewrite: u64) {
    let report = answered.ok();
    assert_eq!(report["refused"], json!({"delete": delete, "rewrite": rewrite}), "{report}");
    let errors: Vec<String> = world
        .logs
        .lines()
        .iter()
        .filter(|line| line["level"] == "ERROR")
        .map(Value::to_string)
        .collect();
    if report["apply"] == true {
        assert_eq!(report["complete"], false, "{report}");
        let line = &world.logs.of("invocation")[0];
        assert_eq!(line["repair_refused"], delete + rewrite, "{line}");
        assert_eq!(answered.counted("RepairRefused"), Some(delete + rewrite));
        for (refused, field) in [(delete, "delete_up_to"), (rewrite, "rewrite_up_to")] {
            let named = errors.iter().any(|error| error.contains(field));
            assert!(refused == 0 || named, "{field} in {errors:?}");
        }
    } else {
        assert_eq!(report["complete"], true, "an audit compares all the same: {report}");
        assert_eq!(answered.counted("RepairRefused").unwrap_or_default(), 0);
    }
}

/// Checks that a run refused nothing.
#[track_caller]
fn assert_nothing_refused(answered: &Answered) {
    let report = answered.ok();
    assert_eq!(report.get("refused"), None, "{report}");
    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(answered.counted("RepairRefused").unwrap_or_default(), 0);
}

#[tokio::test]
async fn a_small_namespace_loses_a_hundred_orphans_but_none_of_a_hundred_and_one() {
    for (namespace, name) in NAMESPACES {
        for (count, refused) in [(100, 0), (101, 101)] {
            let world = World::start().await;
            load(&world, [index("a", "missing"), query_config("a", "missing", "q", 1)]);
            orphans(&world, namespace, "z", count);

            let audited = world.handle(&audit()).await;
            assert_eq!(audited.ok()[name]["orphaned"], count);
            match refused {
                0 => assert_nothing_refused(&audited),
                _ => assert_refused(&world, &audited, refused, 0),
            }
            world.forget();
            let answered = world.handle(&repair()).await;

            let report = answered.ok();
            match refused {
                0 => {
                    assert_nothing_refused(&answered);
                    assert_eq!(report[name]["deleted"], count);
                }
                _ => {
                    assert_refused(&world, &answered, refused, 0);
                    assert_eq!(report[name]["deleted"], 0);
                    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty());
                }
            }
            assert!(world.setting_keys().contains(&"a-missing".to_owned()));
            assert!(world.query_config_keys().contains(&query_config_key("a", "missing", "q")));
            let left = world.stack.kv.keys(namespace).len();
            assert_eq!(left, 1 + usize::try_from(refused).unwrap());
        }
    }
}

#[tokio::test]
async fn each_namespace_has_its_own_brake_and_withheld_keys_do_not_count() {
    let world = World::start().await;
    load(&world, [index_with("a", "live", json!({"read_alias": "z-gone-0000"}))]);
    orphans(&world, SETTINGS, "z", 101);
    orphans(&world, QUERY_CONFIGS, "z", 101);

    let answered = world.handle(&repair()).await;

    assert_refused(&world, &answered, 101, 0);
    assert_eq!(answered.ok()["settings"]["deleted"], 100);
    assert_eq!(answered.ok()["settings"]["withheld"], 1);
    assert_eq!(world.setting_keys(), ["a-live", "z-gone-0000"]);
    assert_eq!(world.query_config_keys().len(), 101);
}

#[tokio::test]
async fn a_larger_namespace_loses_up_to_two_percent_of_its_own_keys() {
    let world = World::start().await;
    load(&world, shops(2_940));
    let filled = world.handle(&repair()).await;
    assert_nothing_refused(&filled);
    assert_eq!(filled.ok()["settings"]["written"], 5_880, "missing keys have no brake");
    // A stranger's keys do not count for the size of the namespace.
    for number in 0..5_000 {
        world.stack.kv.put(SETTINGS, &format!("stranger-{number}"), "x", None);
    }

    orphans(&world, SETTINGS, "z", 120);
    let answered = world.handle(&repair()).await;
    assert_nothing_refused(&answered);
    assert_eq!(answered.ok()["settings"]["deleted"], 120);

    orphans(&world, SETTINGS, "z", 121);
    world.forget();
    let answered = world.handle(&repair()).await;
    assert_refused(&world, &answered, 121, 0);
    assert_eq!(writes(&world), []);
}

#[tokio::test]
async fn a_small_namespace_gets_a_thousand_rewrites_but_none_of_a_thousand_and_one() {
    let world = World::start().await;
    load(&world, shops(501).chain(query_configs(1_001)));
    make_stale(&world, SETTINGS, 1_000);
    make_stale(&world, QUERY_CONFIGS, 1_001);
    load(&world, [query_config("a", "i0000", "missing", 1)]);
    orphans(&world, QUERY_CONFIGS, "z", 2);
    let held = world.stack.kv.snapshot(QUERY_CONFIGS);
    assert_refused(&world, &world.handle(&audit()).await, 0, 1_001);
    world.forget();

    let answered = world.handle(&repair()).await;

    assert_refused(&world, &answered, 0, 1_001);
    let report = answered.ok();
    assert_eq!(
        counts(report, "settings"),
        json!({"desired": 1_002, "listed": 1_000, "missing": 2, "stale": 1_000, "written": 1_002})
    );
    assert_eq!(
        counts(report, "query_configs"),
        json!({
            "desired": 1_002, "listed": 1_003, "missing": 1, "stale": 1_001, "orphaned": 2,
            "written": 1, "deleted": 2,
        })
    );
    let now = world.stack.kv.snapshot(QUERY_CONFIGS);
    let kept = held.iter().filter(|(key, stored)| now.get(*key) == Some(stored)).count();
    assert_eq!((kept, now.len()), (1_001, 1_002));
}

#[tokio::test]
async fn a_larger_namespace_gets_rewrites_of_up_to_thirty_percent_of_its_desired_keys() {
    let world = World::start().await;
    load(&world, shops(2_000));
    assert_eq!(world.handle(&repair()).await.ok()["settings"]["written"], 4_000);

    make_stale(&world, SETTINGS, 1_200);
    let answered = world.handle(&repair()).await;
    assert_nothing_refused(&answered);
    assert_eq!(answered.ok()["settings"]["written"], 1_200);

    make_stale(&world, SETTINGS, 1_201);
    world.forget();
    let answered = world.handle(&repair()).await;
    assert_refused(&world, &answered, 0, 1_201);
    assert_eq!(writes(&world), []);
}

#[tokio::test]
async fn delete_up_to_raises_the_brake_for_one_run_and_never_lowers_it() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    let rows = [
        (50, json!({"delete_up_to": 1}), true),
        (101, json!({"delete_up_to": 100}), false),
        (101, json!({"rewrite_up_to": 5_000}), false),
        (101, json!({"delete_up_to": 101}), true),
        (101, json!({}), false),
        (150, json!({"delete_up_to": 1_000_000}), true),
    ];
    for (count, raised, deleted) in rows {
        orphans(&world, SETTINGS, "z", count);
        world.forget();

        let answered = world.handle(&repair_with(raised.clone())).await;

        if deleted {
            assert_nothing_refused(&answered);
            assert_eq!(world.setting_keys(), ["a-i"], "{raised}");
        } else {
            assert_refused(&world, &answered, u64::try_from(count).unwrap(), 0);
            assert_eq!(world.setting_keys().len(), 1 + count, "{raised}");
        }
    }
}

#[tokio::test]
async fn rewrite_up_to_raises_the_brake_for_one_run_and_never_lowers_it() {
    let world = World::start().await;
    load(&world, shops(501));
    assert_nothing_refused(&world.handle(&repair()).await);
    let rows = [
        (10, json!({"rewrite_up_to": 1}), true),
        (1_001, json!({"rewrite_up_to": 1_000}), false),
        (1_001, json!({"delete_up_to": 5_000}), false),
        (1_001, json!({"rewrite_up_to": 1_001}), true),
        (1_001, json!({}), false),
    ];
    for (count, raised, written) in rows {
        make_stale(&world, SETTINGS, count);
        world.forget();

        let answered = world.handle(&repair_with(raised.clone())).await;

        if written {
            assert_nothing_refused(&answered);
            assert_eq!(answered.ok()["settings"]["written"], count, "{raised}");
        } else {
            assert_refused(&world, &answered, 0, u64::try_from(count).unwrap());
            assert_eq!(writes(&world), [], "{raised}");
        }
    }
}

#[tokio::test]
async fn keys_taken_from_another_environment_count_as_rewrites() {
    let world = World::start().await;
    load(&world, shops(501));
    world.handle(&repair()).await.ok();
    make_stale(&world, SETTINGS, 1_000);
    world.hold(SETTINGS, "i0500.example", &held_settings("a", "i0500"), Writer::OtherEnvironment);
    world.forget();

    let answered = world.handle(&repair_with(json!({"rewrite_up_to": 1_000}))).await;
    assert_refused(&world, &answered, 0, 1_001);
    assert_eq!(writes(&world), []);

    let answered = world.handle(&repair_with(json!({"rewrite_up_to": 1_001}))).await;
    assert_nothing_refused(&answered);
    assert_eq!(world.url_under("i0500.example").unwrap(), "https://i0500.example.com");
    assert_eq!(world.url_under("a-i0000").unwrap(), "https://i0000.example.com");
}

#[tokio::test]
async fn a_limit_that_is_not_a_whole_number_is_an_invalid_payload() {
    let world = World::start().await;
    for field in ["delete_up_to", "rewrite_up_to"] {
        for wrong in [
            json!("100"),
            json!(-1),
            json!(1.5),
            json!(true),
            json!(null),
            json!([100]),
            json!({"n": 100}),
        ] {
            let answered = world.handle(&repair_with(json!({field: wrong}))).await;

            let LambdaError { kind, message } = answered.error();
            assert_eq!(kind, "InvalidPayload", "{field}: {wrong}");
            assert!(message.contains(&format!("{field} must be")), "{message}");
        }
        world.handle(&json!({"reconcile": {field: 0}})).await.ok();
    }
    let outside = json!({"reconcile": {}, "delete_up_to": 1});
    assert_eq!(world.handle(&outside).await.error().kind, "InvalidPayload");
}

#[tokio::test]
async fn a_table_without_an_index_item_deletes_nothing_whatever_is_raised() {
    let no_index_items = [
        vec![],
        vec![
            query_config("a", "i", "q", 1),
            json!({"pk": "a", "sk": "INDEX#DEFAULT_CONFIG"}),
            json!({"pk": "a", "sk": "SETTINGS"}),
        ],
    ];
    let raised = json!({"delete_up_to": 1_000_000, "rewrite_up_to": 1_000_000});
    for items in no_index_items {
        for more in [json!({}), raised.clone()] {
            for scope in [json!({}), json!({"system_account_id": "a"})] {
                for places in [&[SETTINGS][..], &[QUERY_CONFIGS], &[SETTINGS, QUERY_CONFIGS]] {
                    let world = World::start().await;
                    load(&world, items.clone());
                    places.iter().for_each(|place| orphans(&world, place, "a", 3));
                    let mut payload = repair_with(more.clone());
                    let fields = payload["reconcile"].as_object_mut().unwrap();
                    fields.extend(scope.as_object().unwrap().clone());

                    let answered = world.handle(&payload).await;

                    let refused = 3 * u64::try_from(places.len()).unwrap();
                    assert_refused(&world, &answered, refused, 0);
                    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty(), "{payload}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_emptied_account_is_deleted_within_the_brake_while_the_table_has_other_items() {
    for (count, refused) in [(100, 0), (101, 202)] {
        let world = World::start().await;
        world.settled_with([index("b", "other")]).await;
        for (namespace, _) in NAMESPACES {
            orphans(&world, namespace, "a", count);
        }
        world.forget();

        let answered = world.handle(&of_account("a", true)).await;

        if refused > 0 {
            assert_refused(&world, &answered, refused, 0);
            assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty());
            let more = json!({"system_account_id": "a", "delete_up_to": refused});
            assert_nothing_refused(&world.handle(&repair_with(more)).await);
        } else {
            assert_nothing_refused(&answered);
        }
        assert_eq!(world.setting_keys(), ["b-other"]);
        assert_eq!(world.query_config_keys(), NOTHING);
    }
}

#[tokio::test]
async fn query_configs_alone_of_an_emptied_account_are_deleted_while_the_table_has_other_items() {
    let world = World::start().await;
    world.stack.table.load([to_item(&index("b", "other"))]);
    orphans(&world, QUERY_CONFIGS, "a", 3);

    let answered = world.handle(&of_account("a", true)).await;

    assert_nothing_refused(&answered);
    assert_eq!(world.query_config_keys(), NOTHING);
}

#[tokio::test]
async fn the_share_of_the_desired_keys_waits_for_the_api_keys_of_a_slow_cell() {
    let world = World::start().await;
    let slow = (0..1_000).map(|number| {
        index_with(
            "slow",
            &format!("i{number:04}"),
            json!({"cell": "slow", "shop_id": format!("{number}.slow")}),
        )
    });
    load(&world, shops(1_000).chain(slow));
    make_stale(&world, SETTINGS, 1_100);
    world.stack.api_keys.break_cell("slow", Fault::Delay(Duration::from_millis(1_500)));

    let report = world.handle(&repair()).await.ok().clone();

    // 30 % of 4,000 desired keys, not of the 2,000 that are known first.
    assert_eq!(report.get("refused"), None, "{report}");
    assert_eq!(report["settings"]["written"], 4_000, "{report}");
}
