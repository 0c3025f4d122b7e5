//! How much a repair may delete and rewrite, and how an operator allows more.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::Fault;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

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
            _ => {
                let key = query_config_key(account, "gone", &name);
                (key, held_query_config(account, "gone", &name))
            }
        };
        world.hold(namespace, &key, &value, Writer::Ours);
    }
}

/// Makes this many of the keys that items of account `a` ask for stale.
fn make_stale(world: &World, namespace: &str, count: usize) {
    for number in 0..count {
        let name = format!("i{:04}", number / 2);
        let query = format!("q{number:04}");
        let (key, value) = match namespace {
            SETTINGS if number % 2 == 0 => (format!("a-{name}"), held_settings("a", &name)),
            SETTINGS => (format!("{name}.example"), held_settings("a", &name)),
            _ => {
                let key = query_config_key("a", "i0000", &query);
                (key, held_query_config("a", "i0000", &query))
            }
        };
        world.hold(namespace, &key, &value, Writer::Ours);
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

/// Checks what a run refused, or that it refused nothing: in its answer, in its log and in its
/// counts.
#[track_caller]
fn assert_refused(world: &World, answered: &Answered, delete: u64, rewrite: u64) {
    let report = answered.ok();
    let (refused, applied) = (delete + rewrite, report["apply"] == true);
    let expected = json!({"delete": delete, "rewrite": rewrite});
    assert_eq!(report.get("refused"), Some(expected).filter(|_| refused > 0).as_ref(), "{report}");
    assert_eq!(report["complete"], !applied || refused == 0, "an audit compares all: {report}");
    let counted = answered.counted("RepairRefused").unwrap_or_default();
    assert_eq!(counted, if applied { refused } else { 0 });
    if applied && refused > 0 {
        let line = &world.logs.of("invocation")[0];
        assert_eq!(line["repair_refused"], refused, "{line}");
        let errors = world.logs.at("ERROR");
        for (refused, field) in [(delete, "delete_up_to"), (rewrite, "rewrite_up_to")] {
            let named = errors.iter().any(|error| error.to_string().contains(field));
            assert!(refused == 0 || named, "{field} in {errors:?}");
        }
    }
}

/// Runs a repair, and checks what it refused.
async fn repair_refusing(world: &World, more: Value, delete: u64, rewrite: u64) -> Answered {
    world.forget();
    let answered = world.handle(&repair_with(more)).await;
    assert_refused(world, &answered, delete, rewrite);
    answered
}

#[tokio::test]
async fn a_small_namespace_loses_a_hundred_orphans_but_none_of_a_hundred_and_one() {
    for (namespace, name) in NAMESPACES {
        for (count, refused) in [(100, 0), (101, 101)] {
            let _row = row(format!("{count} orphans in {namespace}"));
            let world = World::start().await;
            world.load([index("a", "missing"), query_config("a", "missing", "q", 1)]);
            orphans(&world, namespace, "z", count);

            let audited = world.handle(&audit()).await;
            assert_eq!(audited.ok()[name]["orphaned"], count);
            assert_refused(&world, &audited, refused, 0);
            let answered = repair_refusing(&world, json!({}), refused, 0).await;

            let stay = usize::try_from(refused).unwrap();
            assert_eq!(answered.ok()[name]["deleted"], count - stay);
            assert_eq!(world.deletes().is_empty(), stay > 0);
            assert!(world.setting("a-missing").is_some());
            assert!(world.query_config("a", "missing", "q").is_some());
            assert_eq!(world.stack.kv.keys(namespace).len(), 1 + stay);
        }
    }
}

#[tokio::test]
async fn each_namespace_has_its_own_brake_and_withheld_keys_do_not_count() {
    let world = World::start().await;
    world.load([pointing("a", "live", "z-gone-0000")]);
    orphans(&world, SETTINGS, "z", 101);
    orphans(&world, QUERY_CONFIGS, "z", 101);

    let answered = repair_refusing(&world, json!({}), 101, 0).await;

    assert_eq!(answered.ok()["settings"]["deleted"], 100);
    assert_eq!(answered.ok()["settings"]["withheld"], 1);
    assert_eq!(world.setting_keys(), ["a-live", "z-gone-0000"]);
    assert_eq!(world.query_config_keys().len(), 101);
}

#[tokio::test]
async fn a_larger_namespace_loses_two_percent_of_its_own_keys_and_gets_thirty_of_its_desired_ones()
{
    let world = World::start().await;
    world.load(shops(2_940));
    let filled = repair_refusing(&world, json!({}), 0, 0).await;
    assert_eq!(filled.ok()["settings"]["written"], 5_880, "missing keys have no brake");
    // A stranger's keys do not count for the size of the namespace.
    for number in 0..5_000 {
        world.stack.kv.put(SETTINGS, &format!("stranger-{number}"), "x", None);
    }

    orphans(&world, SETTINGS, "z", 120);
    let answered = repair_refusing(&world, json!({}), 0, 0).await;
    assert_eq!(answered.ok()["settings"]["deleted"], 120);
    make_stale(&world, SETTINGS, 1_764);
    let answered = repair_refusing(&world, json!({}), 0, 0).await;
    assert_eq!(answered.ok()["settings"]["written"], 1_764);

    orphans(&world, SETTINGS, "z", 121);
    make_stale(&world, SETTINGS, 1_765);
    repair_refusing(&world, json!({}), 121, 1_765).await;
    assert_eq!(writes_of(&world), []);
}

#[tokio::test]
async fn a_small_namespace_gets_a_thousand_rewrites_but_none_of_a_thousand_and_one() {
    let world = World::start().await;
    world.load(shops(501).chain(query_configs(1_001)));
    make_stale(&world, SETTINGS, 1_000);
    make_stale(&world, QUERY_CONFIGS, 1_001);
    world.load([query_config("a", "i0000", "missing", 1)]);
    orphans(&world, QUERY_CONFIGS, "z", 2);
    let held = world.stack.kv.snapshot(QUERY_CONFIGS);
    assert_refused(&world, &world.handle(&audit()).await, 0, 1_001);

    let answered = repair_refusing(&world, json!({}), 0, 1_001).await;

    assert_eq!(
        counts(answered.ok(), "settings"),
        json!({"desired": 1_002, "listed": 1_000, "missing": 2, "stale": 1_000, "written": 1_002})
    );
    assert_eq!(
        counts(answered.ok(), "query_configs"),
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
async fn a_request_raises_a_brake_for_one_run_and_never_lowers_it() {
    let world = World::start().await;
    world.load(shops(501));
    repair_refusing(&world, json!({}), 0, 0).await;
    for (orphaned, stale, raised, done) in [
        (50, 0, json!({"delete_up_to": 1}), true),
        (101, 0, json!({"delete_up_to": 100}), false),
        (101, 0, json!({"rewrite_up_to": 5_000}), false),
        (101, 0, json!({"delete_up_to": 101}), true),
        (101, 0, json!({}), false),
        (150, 0, json!({"delete_up_to": 1_000_000}), true),
        (0, 10, json!({"rewrite_up_to": 1}), true),
        (0, 1_001, json!({"rewrite_up_to": 1_000}), false),
        (0, 1_001, json!({"delete_up_to": 5_000}), false),
        (0, 1_001, json!({"rewrite_up_to": 1_001}), true),
        (0, 1_001, json!({}), false),
    ] {
        let _row = row(format!("{orphaned} orphans, {stale} stale keys, {raised}"));
        orphans(&world, SETTINGS, "z", orphaned);
        make_stale(&world, SETTINGS, stale);
        let [deletes, rewrites] = [orphaned, stale].map(|count| u64::try_from(count).unwrap());

        if done {
            let answered = repair_refusing(&world, raised, 0, 0).await;
            assert_eq!(answered.ok()["settings"]["deleted"], deletes);
            assert_eq!(answered.ok()["settings"]["written"], rewrites);
        } else {
            repair_refusing(&world, raised, deletes, rewrites).await;
            assert_eq!(writes_of(&world), []);
        }
    }
}

#[tokio::test]
async fn keys_taken_from_another_environment_count_as_rewrites() {
    let world = World::start().await;
    world.load(shops(501));
    world.handle(&repair()).await.ok();
    make_stale(&world, SETTINGS, 1_000);
    world.hold(SETTINGS, "i0500.example", &held_settings("a", "i0500"), Writer::OtherEnvironment);

    repair_refusing(&world, json!({"rewrite_up_to": 1_000}), 0, 1_001).await;
    assert_eq!(writes_of(&world), []);

    repair_refusing(&world, json!({"rewrite_up_to": 1_001}), 0, 0).await;
    assert_eq!(world.url_under("i0500.example").unwrap(), "https://i0500.example.com");
    assert_eq!(world.url_under("a-i0000").unwrap(), "https://i0000.example.com");
}

#[tokio::test]
async fn a_table_without_an_index_item_deletes_nothing_whatever_is_raised() {
    let no_indexes = vec![
        query_config("a", "i", "q", 1),
        json!({"pk": "a", "sk": "INDEX#DEFAULT_CONFIG"}),
        json!({"pk": "a", "sk": "SETTINGS"}),
    ];
    for items in [vec![], no_indexes] {
        for raised in [json!({}), json!({"delete_up_to": 1_000_000, "rewrite_up_to": 1_000_000})] {
            for scope in [json!({}), json!({"system_account_id": "a"})] {
                for places in [&[SETTINGS][..], &[QUERY_CONFIGS], &[SETTINGS, QUERY_CONFIGS]] {
                    let more = with(raised.clone(), scope.clone());
                    let _row = row(format!("{} items, {more}, {places:?}", items.len()));
                    let world = World::start().await;
                    world.load(items.clone());
                    places.iter().for_each(|place| orphans(&world, place, "a", 3));

                    let refused = 3 * u64::try_from(places.len()).unwrap();
                    repair_refusing(&world, more, refused, 0).await;

                    assert!(world.deletes().is_empty());
                }
            }
        }
    }
}

#[tokio::test]
async fn an_emptied_account_is_deleted_within_the_brake_while_the_table_has_other_items() {
    let both = &[SETTINGS, QUERY_CONFIGS][..];
    for (namespaces, count, refused) in
        [(&[QUERY_CONFIGS][..], 3, 0), (both, 100, 0), (both, 101, 202)]
    {
        let _row = row(format!("{count} orphans in {namespaces:?}"));
        let world = World::start().await;
        world.settled_with([index("b", "other")]).await;
        namespaces.iter().for_each(|namespace| orphans(&world, namespace, "a", count));
        let account = json!({"system_account_id": "a"});

        repair_refusing(&world, account.clone(), refused, 0).await;

        if refused > 0 {
            assert!(world.deletes().is_empty());
            let raised = with(account, json!({"delete_up_to": refused}));
            repair_refusing(&world, raised, 0, 0).await;
        }
        assert_eq!(world.setting_keys(), ["b-other"]);
        assert_eq!(world.query_config_keys(), NOTHING);
    }
}

#[tokio::test]
async fn the_share_of_the_desired_keys_waits_for_the_api_keys_of_a_slow_cell() {
    let world = World::start().await;
    let slow = (0..1_000).map(|number| {
        let more = json!({"cell": "slow", "shop_id": format!("{number}.slow")});
        index_with("slow", &format!("i{number:04}"), more)
    });
    world.load(shops(1_000).chain(slow));
    make_stale(&world, SETTINGS, 1_100);
    world.stack.api_keys.break_cell("slow", Fault::Delay(Duration::from_millis(1_500)));

    // 30 % of 4,000 desired keys, not of the 2,000 that are known first.
    let answered = repair_refusing(&world, json!({}), 0, 0).await;

    assert_eq!(answered.ok()["settings"]["written"], 4_000);
}
