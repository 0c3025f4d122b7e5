//! Reconcile: what it finds, what it mends, and what it leaves alone, through the real services.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Request;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};
use testbed::table::to_item;

use crate::helpers::*;

/// The verb, the namespace and the keys, in order, of a request that changes KV.
type Write = (KvVerb, String, Vec<String>);

fn audit() -> Value {
    json!({"reconcile": {}})
}

fn repair() -> Value {
    json!({"reconcile": {"apply": true}})
}

fn of_account(account: &str, apply: bool) -> Value {
    json!({"reconcile": {"apply": apply, "system_account_id": account}})
}

/// The counts of a namespace that are not zero.
#[track_caller]
fn counts(report: &Value, namespace: &str) -> Value {
    let counts = report[namespace].as_object().expect("a report has both namespaces");
    counts
        .iter()
        .filter(|(_, count)| **count != 0)
        .map(|(name, n)| (name.clone(), n.clone()))
        .collect()
}

fn writes(world: &World) -> Vec<Write> {
    let log = world.stack.kv.log().into_iter().filter(|request| request.verb.writes());
    let mut writes: Vec<Write> = log
        .map(|mut request| {
            request.keys.sort();
            (request.verb, request.namespace, request.keys)
        })
        .collect();
    writes.sort();
    writes
}

fn write(verb: KvVerb, namespace: &str, keys: &[&str]) -> Write {
    (verb, namespace.to_owned(), keys.iter().map(|key| (*key).to_owned()).collect())
}

/// The values of a namespace, without what tells when and how they were written.
fn values(world: &World, namespace: &str) -> BTreeMap<String, String> {
    let pairs = world.stack.kv.snapshot(namespace).into_iter();
    pairs.map(|(key, stored)| (key, stored.value)).collect()
}

/// Changes the table past the stream.
fn load(world: &World, items: impl IntoIterator<Item = Value>) {
    world.stack.table.load(items.into_iter().map(|item| to_item(&item)));
}

/// Changes the value under a key by hand; `keep` says whether its metadata stays.
fn edit(world: &World, namespace: &str, key: &str, keep: bool) {
    let stored = world.stack.kv.get(namespace, key).unwrap();
    let mut metadata = stored.metadata.filter(|_| keep);
    if let Some(metadata) = &mut metadata {
        metadata["digest"] = json!("0".repeat(64));
    }
    let mut value: Value = serde_json::from_str(&stored.value).unwrap();
    value["edited"] = json!(true);
    world.stack.kv.put(namespace, key, &value.to_string(), metadata);
}

/// A world with every class of drift, and what a repair has to write.
async fn drifted() -> World {
    let world = World::start().await;
    world
        .settled_with([
            shop("a", "right", "right.example"),
            shop("a", "lost", "lost.example"),
            shop("a", "old", "old.example"),
            shop("a", "edited", "edited.example"),
            shop("a", "orphan", "orphan.example"),
            shop("a", "kept", "kept.example"),
            shop("a", "first", "shared.example"),
            shop("b", "second", "shared.example"),
            shop("a", "broken", "broken.example"),
            index_with("b", "live", json!({"read_alias": "a-kept"})),
            index_with("b", "lonely", json!({"read_alias": "z-gone"})),
            query_config("a", "right", "right", 1),
            query_config("a", "right", "lost", 1),
            query_config("a", "right", "old", 1),
            query_config("a", "right", "orphan", 1),
        ])
        .await;
    let kv = &world.stack.kv;
    kv.delete(SETTINGS, "lost.example");
    kv.delete(QUERY_CONFIGS, &query_config_key("a", "right", "lost"));
    edit(&world, SETTINGS, "a-old", true);
    edit(&world, QUERY_CONFIGS, &query_config_key("a", "right", "old"), true);
    edit(&world, SETTINGS, "edited.example", false);
    kv.put(SETTINGS, "stranger", "a stranger's", None);
    kv.put(SETTINGS, "stranger with metadata", "{}", Some(json!({"by": "another tool"})));
    kv.put(QUERY_CONFIGS, "stranger", "a stranger's", None);
    load(
        &world,
        [index_with("a", "broken", json!({"index_endpoint": 7, "shop_id": "broken.example"}))],
    );
    for sk in ["INDEX#orphan", "INDEX#kept", "INDEX#right#QUERY#orphan"] {
        world.stack.table.delete("a", sk);
    }
    world.forget();
    world
}

#[tokio::test]
async fn an_audit_names_every_class_of_drift_and_writes_nothing() {
    let world = drifted().await;
    let before = [SETTINGS, QUERY_CONFIGS].map(|namespace| world.stack.kv.snapshot(namespace));

    let answered = world.handle(&audit()).await;

    let report = answered.ok();
    assert_eq!(
        counts(report, "settings"),
        json!({
            "desired": 13, "listed": 20, "missing": 1, "stale": 2, "orphaned": 2, "withheld": 2,
            "dangling": 1, "foreign": 2, "conflicting": 1, "rejected": 1,
        })
    );
    assert_eq!(
        counts(report, "query_configs"),
        json!({"desired": 3, "listed": 4, "missing": 1, "stale": 1, "orphaned": 1, "foreign": 1})
    );
    let query_config = |query| query_config_key("a", "right", query);
    assert_eq!(
        report["examples"],
        json!({
            "missing": ["lost.example", query_config("lost")],
            "stale": ["a-old", "edited.example", query_config("old")],
            "orphaned": ["a-orphan", "orphan.example", query_config("orphan")],
            "withheld": ["a-kept", "kept.example"],
            "dangling": ["z-gone"],
            "foreign": ["stranger", "stranger with metadata"],
            "conflicting": ["shared.example"],
            "rejected": ["a-broken"],
        })
    );
    assert_eq!((&report["apply"], &report["complete"]), (&json!(false), &json!(true)));
    assert_eq!(answered.tally.drifted_keys, Some(8));
    assert_eq!(answered.tally.dangling_aliases, Some(1));
    assert_eq!(writes(&world), []);
    let after = [SETTINGS, QUERY_CONFIGS].map(|namespace| world.stack.kv.snapshot(namespace));
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_repair_mends_exactly_what_differs_and_the_next_run_finds_nothing() {
    let world = drifted().await;

    let report = world.handle(&repair()).await.ok().clone();

    let query_config = |query| query_config_key("a", "right", query);
    let mut lost_and_old = [query_config("lost"), query_config("old")];
    lost_and_old.sort();
    assert_eq!(
        writes(&world),
        [
            write(
                KvVerb::PutBulk,
                QUERY_CONFIGS,
                &[lost_and_old[0].as_str(), lost_and_old[1].as_str()],
            ),
            write(KvVerb::PutBulk, SETTINGS, &["a-old", "edited.example", "lost.example"]),
            write(KvVerb::DeleteBulk, QUERY_CONFIGS, &[query_config("orphan").as_str()]),
            write(KvVerb::DeleteBulk, SETTINGS, &["a-orphan", "orphan.example"]),
        ]
    );
    for (namespace, written, deleted) in [("settings", 3, 2), ("query_configs", 2, 1)] {
        let counts = &report[namespace];
        assert_eq!((&counts["written"], &counts["deleted"]), (&json!(written), &json!(deleted)));
        assert_eq!(counts["failed"], 0);
    }
    assert_eq!(world.url_under("a-old").unwrap(), "https://old.example.com");
    let metadata = world.stack.kv.get(SETTINGS, "edited.example").unwrap().metadata.unwrap();
    assert_eq!(metadata["source"], "reconcile");

    world.forget();
    let again = world.handle(&repair()).await;
    assert_eq!(
        counts(again.ok(), "settings"),
        json!({
            "desired": 13, "listed": 19, "withheld": 2, "dangling": 1, "foreign": 2,
            "conflicting": 1, "rejected": 1,
        })
    );
    assert_eq!(
        counts(again.ok(), "query_configs"),
        json!({"desired": 3, "listed": 4, "foreign": 1})
    );
    assert_eq!(again.tally.drifted_keys, Some(0));
    assert_eq!(writes(&world), []);
}

#[tokio::test]
async fn empty_namespaces_are_filled_with_what_the_stream_would_have_written() {
    let items = || {
        let shops = (0..30).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example")));
        let overrides = (0..30).map(|n| query_config("a", "i0", &format!("q{n}"), n));
        shops.chain(overrides).chain([index("b", "direct")])
    };
    let streamed = World::start().await;
    streamed.settled_with(items()).await;
    let world = World::start().await;
    load(&world, items());

    let report = world.handle(&repair()).await.ok().clone();

    for namespace in [SETTINGS, QUERY_CONFIGS] {
        assert_eq!(values(&world, namespace), values(&streamed, namespace), "{namespace}");
        assert_eq!(world.puts(namespace).len(), 1, "{namespace}");
    }
    assert_eq!(counts(&report, "settings"), json!({"desired": 61, "missing": 61, "written": 61}));
    assert_eq!(
        counts(&report, "query_configs"),
        json!({"desired": 30, "missing": 30, "written": 30})
    );
}

#[tokio::test]
async fn a_report_holds_at_most_twenty_names_of_a_class() {
    let world = World::start().await;
    let numbered = |what: &str| (0..25).map(|n| format!("{what}{n}")).collect::<Vec<_>>();
    world.settled_with(numbered("orphan").iter().map(|name| index("a", name))).await;
    for name in numbered("orphan") {
        world.stack.table.delete("a", &format!("INDEX#{name}"));
        world.stack.kv.put(SETTINGS, &format!("stranger-{name}"), "x", None);
    }
    load(&world, numbered("missing").iter().map(|name| index("a", name)));
    load(
        &world,
        numbered("rejected").iter().map(|name| index_with("a", name, json!({"index_endpoint": 7}))),
    );
    load(
        &world,
        numbered("alias")
            .iter()
            .map(|name| index_with("a", name, json!({"read_alias": format!("z-{name}")}))),
    );

    let report = world.handle(&audit()).await.ok().clone();

    for (class, count) in
        [("missing", 50), ("orphaned", 25), ("foreign", 25), ("rejected", 25), ("dangling", 25)]
    {
        assert_eq!(report["settings"][class], count, "{class}");
        assert_eq!(report["examples"][class].as_array().unwrap().len(), 20, "{class}");
    }
    let fields = |object: &Value| {
        object.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        fields(&report),
        names(&["apply", "settings", "query_configs", "examples", "complete"])
    );
    let classes = names(&[
        "desired",
        "listed",
        "missing",
        "stale",
        "orphaned",
        "withheld",
        "dangling",
        "foreign",
        "conflicting",
        "rejected",
        "written",
        "deleted",
        "failed",
    ]);
    assert_eq!(fields(&report["settings"]), classes);
    assert_eq!(fields(&report["query_configs"]), classes);
}

#[tokio::test]
async fn a_contested_key_that_kv_lacks_goes_to_the_first_by_account_and_index() {
    let world = World::start().await;
    load(
        &world,
        [shop("b", "a", "s.example"), shop("a", "z", "s.example"), shop("a", "y", "s.example")],
    );

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(report["settings"]["conflicting"], 1);
    assert_eq!(world.url_under("s.example").unwrap(), "https://y.example.com");
    assert_eq!(
        writes(&world),
        [write(KvVerb::PutBulk, SETTINGS, &["a-y", "a-z", "b-a", "s.example"])]
    );
}

#[tokio::test]
async fn an_item_that_cannot_be_exported_keeps_its_keys_as_they_are() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    world.stack.api_keys.remove("c");
    let held = world.stack.kv.snapshot(SETTINGS);
    load(
        &world,
        [
            // Its shop id can't be read any more, what KV holds under it stays all the same.
            index_with("a", "i", json!({"shop_id": 7})),
            // First by account and index, so the second has to wait.
            index_with("b", "broken", json!({"shop_id": "t.example", "index_endpoint": "x"})),
            shop("b", "good", "t.example"),
            index("c", "keyless"),
        ],
    );

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(
        counts(&report, "settings"),
        json!({"desired": 2, "listed": 2, "missing": 1, "conflicting": 1, "rejected": 3, "written": 1})
    );
    let held_now = world.stack.kv.snapshot(SETTINGS);
    assert!(held.iter().all(|(key, stored)| held_now.get(key) == Some(stored)));
    assert_eq!(world.setting_keys(), ["a-i", "b-good", "s.example"]);
    let rejected = world.logs.of("an item can't be exported: what KV holds of it stays");
    let paths: Vec<_> = rejected
        .iter()
        .map(|line| (line["index_name"].as_str().unwrap(), line["path"].as_str().unwrap()))
        .collect();
    assert!(paths.contains(&("i", "shop_id")), "{paths:?}");
    assert!(paths.contains(&("broken", "index_endpoint")), "{paths:?}");
    assert!(paths.contains(&("keyless", "system_account_id")), "{paths:?}");
}

#[tokio::test]
async fn an_alias_dangles_whatever_the_account_and_counts_once() {
    let world = World::start().await;
    let reads = |target: &str| json!({"index_aliases": {"doc_reads": {"enabled": true, "targets": [{"index_id": target}]}}});
    let writes_to = |entry: Value| json!({"add_docs_config": {"index_write_aliases": [entry]}});
    world.stack.kv.put(SETTINGS, "x-foreign", "a stranger's", None);
    load(
        &world,
        [
            index_with("a", "one", json!({"read_alias": "z-gone"})),
            index_with("b", "two", reads("z-gone")),
            index_with(
                "b",
                "three",
                writes_to(json!({"system_account_id": "y", "index_name": "gone"})),
            ),
            index_with("b", "itself", json!({"read_alias": "b-itself"})),
            index_with(
                "b",
                "off",
                json!({"index_aliases": {"analytics": {"enabled": false, "index_id": "w-gone"}}}),
            ),
            // Has an item, though of another account; has a key.
            index_with("a", "there", json!({"read_alias": "b-two"})),
            index_with("a", "held", json!({"read_alias": "x-foreign"})),
            // An item that can't be exported is an item.
            index_with("b", "broken", json!({"index_endpoint": 7})),
            index_with("a", "to-broken", json!({"read_alias": "b-broken"})),
        ],
    );

    for (payload, dangling) in [
        (audit(), vec!["y-gone", "z-gone"]),
        (of_account("a", false), vec!["z-gone"]),
        (of_account("b", false), vec!["y-gone", "z-gone"]),
        (of_account("c", false), vec![]),
    ] {
        let answered = world.handle(&payload).await;
        let report = answered.ok();
        assert_eq!(report["settings"]["dangling"], dangling.len(), "{payload}");
        let examples = report["examples"].get("dangling").cloned().unwrap_or_else(|| json!([]));
        assert_eq!(examples, json!(dangling), "{payload}");
        assert_eq!(answered.tally.dangling_aliases, u64::try_from(dangling.len()).ok());
    }
    assert_eq!(writes(&world), []);
}

#[tokio::test]
async fn a_run_of_one_account_touches_no_key_of_another() {
    let world = World::start().await;
    let accounts = ["a", "a-b", "b"];
    let names = |account: &str| [format!("{account}.lost"), format!("{account}.orphan")];
    let items = accounts.into_iter().flat_map(|account| {
        let [lost, orphan] = names(account);
        [
            shop(account, "lost", &lost),
            shop(account, "orphan", &orphan),
            query_config(account, "lost", "lost", 1),
            query_config(account, "lost", "orphan", 1),
        ]
    });
    world.settled_with(items).await;
    for account in accounts {
        let [lost, _] = names(account);
        world.stack.kv.delete(SETTINGS, &lost);
        edit(&world, SETTINGS, &format!("{account}-lost"), false);
        world.stack.kv.delete(QUERY_CONFIGS, &query_config_key(account, "lost", "lost"));
        world.stack.table.delete(account, "INDEX#orphan");
        world.stack.table.delete(account, "INDEX#lost#QUERY#orphan");
    }
    world.stack.kv.put(SETTINGS, "stranger", "x", None);
    world.forget();

    let answered = world.handle(&of_account("a", true)).await;

    let lost = query_config_key("a", "lost", "lost");
    let orphan = query_config_key("a", "lost", "orphan");
    assert_eq!(
        writes(&world),
        [
            write(KvVerb::PutBulk, QUERY_CONFIGS, &[lost.as_str()]),
            write(KvVerb::PutBulk, SETTINGS, &["a-lost", "a.lost"]),
            write(KvVerb::DeleteBulk, QUERY_CONFIGS, &[orphan.as_str()]),
            write(KvVerb::DeleteBulk, SETTINGS, &["a-orphan", "a.orphan"]),
        ]
    );
    assert_eq!(
        counts(answered.ok(), "settings"),
        json!({"desired": 2, "listed": 3, "missing": 1, "stale": 1, "orphaned": 2, "written": 2, "deleted": 2})
    );
    assert_eq!(
        counts(answered.ok(), "query_configs"),
        json!({"desired": 1, "listed": 1, "missing": 1, "orphaned": 1, "written": 1, "deleted": 1})
    );
}

#[tokio::test]
async fn a_run_of_one_account_leaves_a_contested_key_with_the_account_that_kv_names() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example"), shop("b", "j", "s.example")]).await;
    assert_eq!(world.url_under("s.example").unwrap(), "https://j.example.com");

    for apply in [false, true] {
        let report = world.handle(&of_account("a", apply)).await.ok().clone();
        assert_eq!(
            counts(&report, "settings"),
            json!({"desired": 2, "listed": 2, "conflicting": 1})
        );
    }
    assert_eq!(writes(&world), []);

    // Once the other one asks for it no more, it is the account's.
    load(&world, [index("b", "j")]);
    let report = world.handle(&of_account("a", false)).await.ok().clone();
    assert_eq!(report["examples"]["stale"], json!(["s.example"]));
    assert_eq!(writes(&world), []);
    let report = world.handle(&of_account("a", true)).await.ok().clone();
    assert_eq!(
        counts(&report, "settings"),
        json!({"desired": 2, "listed": 2, "stale": 1, "written": 1})
    );
    assert_eq!(writes(&world), [write(KvVerb::PutBulk, SETTINGS, &["s.example"])]);
    assert_eq!(world.url_under("s.example").unwrap(), "https://i.example.com");
}

/// An index with another address, its version.
fn version(number: u32) -> Value {
    let version =
        json!({"shop_id": "s.example", "index_endpoint": format!("https://v{number}.example.com")});
    index_with("a", "i", version)
}

#[tokio::test]
async fn a_change_between_the_scan_and_the_write_is_not_left_overwritten() {
    for (moment, rounds) in
        [("before the read", 1), ("before the write", 2), ("after the write", 2)]
    {
        let world = World::start().await;
        load(&world, [version(1), query_config("a", "i", "q", 1)]);
        let (table, kv) = (world.stack.table.clone(), world.stack.kv.clone());
        let change = move || {
            for item in [version(2), query_config("a", "i", "q", 2)] {
                table.put(&item);
            }
            kv.put(SETTINGS, "a-i", "the stream's", None);
        };
        match moment {
            "before the read" => {
                // One item is read by another operation than several.
                let reads = |request: &Request| {
                    matches!(request.operation(), Some("GetItem" | "BatchGetItem"))
                };
                world.stack.table.faults().add(Rule::when(reads, Fault::before(change)));
            }
            "before the write" => {
                world.stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::before(change)));
            }
            _ => world.stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::after(change))),
        }

        let report = world.handle(&repair()).await.ok().clone();

        for key in ["a-i", "s.example"] {
            let expected = "https://v2.example.com";
            assert_eq!(world.url_under(key).as_deref(), Some(expected), "{moment}");
        }
        let stored = world.stack.kv.get(QUERY_CONFIGS, &query_config_key("a", "i", "q")).unwrap();
        assert_eq!(stored.json()["boost"], 2, "{moment}");
        assert_eq!(world.puts(SETTINGS).len(), rounds, "{moment}");
        assert_eq!(report["settings"]["written"], 2, "{moment}");
        assert_eq!(report["settings"]["failed"], 0, "{moment}");
    }
}

#[tokio::test]
async fn what_still_changes_after_five_rounds_counts_as_failed() {
    let world = World::start().await;
    load(&world, [version(0), index("a", "quiet")]);
    let (table, count) = (world.stack.table.clone(), Arc::new(AtomicU32::new(0)));
    let change = move || table.put(&version(count.fetch_add(1, Ordering::Relaxed) + 1));
    world.stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::before(change)).forever());

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(world.puts(SETTINGS).len(), 5);
    assert_eq!(report["settings"]["failed"], 2);
    assert_eq!(report["settings"]["written"], 1);
    assert_eq!(report["examples"]["failed"], json!(["a-i", "s.example"]));
    let failed = world.logs.of("a key could not be judged or repaired");
    assert_eq!(failed.len(), 2);
    assert!(failed.iter().all(|line| line["error"].as_str().unwrap().contains("still changes")));
}

#[tokio::test]
async fn keys_that_were_written_for_an_item_that_goes_or_moves_meanwhile_are_settled() {
    let world = World::start().await;
    load(&world, [shop("a", "goes", "goes.example"), shop("a", "moves", "moves.example")]);
    let table = world.stack.table.clone();
    let change = move || {
        table.delete("a", "INDEX#goes");
        table.put(&shop("a", "moves", "moved.example"));
    };
    world.stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::before(change)));

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(world.setting_keys(), ["a-moves"]);
    assert_eq!(world.setting("a-moves").unwrap()["shop_id"], "moved.example");
    assert_eq!(report["settings"]["deleted"], 3);
    assert_eq!(report["settings"]["written"], 1);
    assert_eq!(world.handle(&repair()).await.ok()["settings"]["missing"], 1);
    assert_eq!(world.setting_keys(), ["a-moves", "moved.example"]);
}

#[tokio::test]
async fn a_stale_listing_harms_nothing_that_is_right() {
    let world = World::start().await;
    world
        .settled_with([
            shop("a", "changed", "changed.example"),
            shop("a", "removed", "removed.example"),
            shop("a", "moved", "from.example"),
            query_config("a", "changed", "changed", 1),
            query_config("a", "changed", "removed", 1),
        ])
        .await;
    for namespace in [SETTINGS, QUERY_CONFIGS] {
        world.stack.kv.freeze_listing(namespace);
    }
    world.stack.table.put(&index_with(
        "a",
        "changed",
        json!({"shop_id": "changed.example", "pixel_id": "new"}),
    ));
    world.stack.table.put(&query_config("a", "changed", "changed", 2));
    world.stack.table.put(&shop("a", "new", "new.example"));
    world.stack.table.put(&query_config("a", "changed", "new", 1));
    world.stack.table.delete("a", "INDEX#removed");
    world.stack.table.delete("a", "INDEX#changed#QUERY#removed");
    assert_eq!(world.deliver().await.failures(), NOTHING);
    let right = [SETTINGS, QUERY_CONFIGS].map(|namespace| values(&world, namespace));
    world.forget();

    let report = world.handle(&repair()).await.ok().clone();

    let now = [SETTINGS, QUERY_CONFIGS].map(|namespace| values(&world, namespace));
    assert_eq!(now, right);
    assert_eq!(report["settings"]["deleted"], 0);
    assert_eq!(report["query_configs"]["deleted"], 0);
    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty());
    for namespace in [SETTINGS, QUERY_CONFIGS] {
        world.stack.kv.catch_up(namespace);
    }
    assert_eq!(world.handle(&audit()).await.tally.drifted_keys, Some(0));
}

#[tokio::test]
async fn a_listing_that_shows_a_key_before_its_item_was_written_deletes_nothing() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example"), query_config("a", "i", "q", 1)]).await;
    let items = [version(1), query_config("a", "i", "q", 1)];
    world.stack.table.delete("a", "INDEX#i");
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    let table = world.stack.table.clone();
    let back = move || items.iter().for_each(|item| table.put(item));
    world.stack.kv.faults().add(Rule::on("GET", "/keys", Fault::before(back)));

    let report = world.handle(&repair()).await.ok().clone();

    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty());
    assert_eq!(world.setting_keys(), ["a-i", "s.example"]);
    assert_eq!(report["settings"]["orphaned"], 0);
    assert_eq!(report["query_configs"]["deleted"], 0);
}

#[tokio::test]
async fn an_orphan_that_is_asked_for_again_between_look_and_delete_is_written() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example"), query_config("a", "i", "q", 1)]).await;
    world.stack.table.delete("a", "INDEX#i");
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    for (namespace, item) in
        [(SETTINGS, version(2)), (QUERY_CONFIGS, query_config("a", "i", "q", 2))]
    {
        let table = world.stack.table.clone();
        let path = format!("/{namespace}/bulk/delete");
        let claim = Fault::before(move || table.put(&item));
        world.stack.kv.faults().add(Rule::on("POST", path, claim));
    }

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(world.url_under("a-i").unwrap(), "https://v2.example.com");
    assert_eq!(world.url_under("s.example").unwrap(), "https://v2.example.com");
    let stored = world.stack.kv.get(QUERY_CONFIGS, &query_config_key("a", "i", "q")).unwrap();
    assert_eq!(stored.json()["boost"], 2);
    assert_eq!(report["settings"]["orphaned"], 2);
    assert_eq!(report["settings"]["deleted"], 0);
    assert_eq!(report["query_configs"]["deleted"], 0);
}

#[tokio::test]
async fn an_orphan_that_an_alias_points_at_between_look_and_delete_is_put_back() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    let held = world.stack.kv.snapshot(SETTINGS);
    world.stack.table.delete("a", "INDEX#i");
    let table = world.stack.table.clone();
    let point = move || table.put(&index_with("a", "live", json!({"read_alias": "a-i"})));
    world.stack.kv.faults().add(Rule::on("POST", "/bulk/delete", Fault::before(point)));

    let answered = world.handle(&repair()).await;

    assert_eq!(world.stack.kv.snapshot(SETTINGS), held);
    assert_eq!(answered.tally.deletes_restored, 2);
    assert_eq!(answered.ok()["settings"]["deleted"], 0);
}

#[tokio::test]
async fn fifty_orphans_take_the_same_passes_over_the_table_as_one() {
    let mut passes = Vec::new();
    for count in [1, 50] {
        let world = World::start().await;
        world
            .settled_with((0..50).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example"))))
            .await;
        for n in 0..count {
            world.stack.table.delete("a", &format!("INDEX#i{n}"));
        }
        world.forget();

        let report = world.handle(&repair()).await.ok().clone();

        assert_eq!(report["settings"]["deleted"], 2 * count);
        assert!(world.stack.table.log().iter().all(|request| request.consistent));
        passes.push(world.stack.table.operations()["Scan"]);
    }
    assert_eq!(passes[0], passes[1]);
}

#[tokio::test]
async fn without_api_keys_nothing_is_judged_or_harmed_and_the_rest_is_mended() {
    let world = World::start().await;
    world
        .settled_with([
            shop("a", "i", "s.example"),
            index_with("b", "i", json!({"cell": "cell-2"})),
            query_config("a", "i", "q", 1),
        ])
        .await;
    let held = world.stack.kv.snapshot(SETTINGS);
    world.stack.kv.delete(SETTINGS, "b-i");
    world.stack.kv.delete(QUERY_CONFIGS, &query_config_key("a", "i", "q"));
    edit(&world, SETTINGS, "a-i", false);
    load(&world, [index("a", "new")]);
    world.stack.api_keys.break_cell(testbed::stack::DEFAULT_CELL, Fault::status(503));

    let answered = world.handle(&repair()).await;

    let report = answered.ok();
    assert_eq!(
        counts(report, "settings"),
        json!({"desired": 4, "listed": 2, "missing": 1, "written": 1, "failed": 3})
    );
    assert_eq!(counts(report, "query_configs"), json!({"desired": 1, "missing": 1, "written": 1}));
    assert_eq!(world.setting_keys(), ["a-i", "b-i", "s.example"]);
    assert_eq!(world.stack.kv.get(SETTINGS, "s.example").as_ref(), held.get("s.example"));
    assert!(world.setting("a-i").unwrap()["edited"].as_bool().unwrap());
    assert_eq!(world.logs.warnings().len(), 1, "{:?}", world.logs.warnings());

    world.stack.api_keys.faults().clear();
    world.handle(&repair()).await;
    assert_eq!(world.handle(&audit()).await.tally.drifted_keys, Some(0));
    assert_eq!(world.setting_keys(), ["a-i", "a-new", "b-i", "s.example"]);
}

#[tokio::test]
async fn a_key_rotated_at_its_source_is_stale_and_written() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example"), shop("b", "i", "t.example")]).await;
    world.stack.api_keys.set("a", "rotated");

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(report["examples"]["stale"], json!(["a-i", "s.example"]));
    assert_eq!(writes(&world), [write(KvVerb::PutBulk, SETTINGS, &["a-i", "s.example"])]);
    assert_eq!(world.setting("s.example").unwrap()["marqo_api_key"], "rotated");
}

#[tokio::test]
async fn a_listing_that_fails_ends_with_an_error_that_says_how_far_it_came() {
    let world = World::start().await;
    load(&world, [index("a", "i")]);
    for number in 0..1_500 {
        world.stack.kv.put(SETTINGS, &format!("stranger-{number}"), "x", None);
    }
    let down = Rule::on("GET", "/keys", Fault::status(503));
    world.stack.kv.faults().add(down.after(1).forever());

    let answered = world.handle(&repair()).await;

    assert_eq!(answered.error().kind, "ReconcileIncomplete");
    let message = &answered.error().message;
    assert!(message.contains("Settings stopped after 1000 keys"), "{message}");
    assert!(message.contains("503") && message.contains("nothing was written"), "{message}");
    assert_eq!(writes(&world), []);
    assert_eq!(answered.tally.drifted_keys, None);
    assert_eq!(world.stack.kv.log_of(KvVerb::ListKeys).len(), 1 + 4, "three more tries");
}

#[tokio::test]
async fn a_table_that_fails_ends_with_an_error_and_nothing_written() {
    let world = World::start().await;
    load(&world, [index("a", "i")]);
    let down = Rule::operation("Scan", Fault::aws(500, "InternalServerError", "down")).forever();
    world.stack.table.faults().add(down);

    let answered = world.handle(&repair()).await;

    assert_eq!(answered.error().kind, "ReconcileIncomplete");
    assert!(answered.error().message.contains("nothing was written"), "{:?}", answered.error());
    assert!(world.stack.kv.log().is_empty());
}

#[tokio::test]
async fn a_refused_token_ends_with_cloudflare_auth_rejected() {
    let world = World::start().await;
    world.stack.kv.set_token("another");

    for payload in [audit(), repair(), of_account("a", true)] {
        assert_eq!(world.handle(&payload).await.error().kind, "CloudflareAuthRejected");
    }
}

/// Shorter than one request's time-out.
const TIME: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_scan_or_a_listing_that_hangs_ends_with_an_error_before_the_deadline() {
    for (hangs, says) in [("table", "pass over the table"), ("listing", "listing of Settings")] {
        let world = World::start().await;
        load(&world, [index("a", "i")]);
        match hangs {
            "table" => world.stack.table.faults().add(Rule::any(Fault::Hang).forever()),
            _ => world.stack.kv.faults().add(Rule::any(Fault::Hang).forever()),
        }

        let answered = world.handle_within(&repair(), TIME).await;

        assert_eq!(answered.error().kind, "ReconcileIncomplete");
        let message = &answered.error().message;
        assert!(message.contains(says) && message.contains("time is up"), "{message}");
    }
}

#[tokio::test]
async fn a_repair_that_runs_out_of_time_reports_how_far_it_came() {
    let hanging: [(&str, Rule); 3] = [
        ("put", Rule::on("PUT", "/settings/bulk", Fault::Hang).forever()),
        ("delete", Rule::on("POST", "/settings/bulk/delete", Fault::Hang).forever()),
        ("get", Rule::on("POST", "/settings/bulk/get", Fault::Hang).forever()),
    ];
    for (what, rule) in hanging {
        let world = World::start().await;
        world.settled_with([index("a", "orphan")]).await;
        world.stack.table.delete("a", "INDEX#orphan");
        load(&world, [index("a", "missing")]);
        world.stack.kv.faults().add(rule);

        let answered = world.handle_within(&repair(), TIME).await;

        let report = answered.ok();
        assert_eq!(report["complete"], false, "{what}: {report}");
        assert!(report["stopped"].as_str().unwrap().contains("time is up"), "{what}: {report}");
        let settings = &report["settings"];
        let open = settings["missing"].as_u64().unwrap() + settings["orphaned"].as_u64().unwrap()
            - settings["written"].as_u64().unwrap()
            - settings["deleted"].as_u64().unwrap();
        assert!(open > 0 || settings["failed"].as_u64().unwrap() > 0, "{what}: {report}");

        world.stack.kv.faults().clear();
        assert_eq!(world.handle(&repair()).await.ok()["complete"], true, "{what}");
        assert_eq!(world.setting_keys(), ["a-missing"], "{what}");
    }
}

#[tokio::test]
async fn keys_that_kv_does_not_take_are_failed_by_name() {
    let world = World::start().await;
    world.settled_with([shop("a", "gone", "gone.example")]).await;
    world.stack.table.delete("a", "INDEX#gone");
    load(&world, [shop("a", "i", "s.example")]);
    let fails = |key: &str| key.ends_with(".example");
    for rule in [
        Rule::on("PUT", "/bulk", Fault::unsuccessful(fails, 200)),
        Rule::on("POST", "/bulk/delete", Fault::unsuccessful(fails, 200)),
    ] {
        world.stack.kv.faults().add(rule.forever());
    }

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(
        counts(&report, "settings"),
        json!({
            "desired": 2, "listed": 2, "missing": 2, "orphaned": 2, "written": 1, "deleted": 1,
            "failed": 2,
        })
    );
    assert_eq!(world.setting_keys(), ["a-i", "gone.example"]);
}
