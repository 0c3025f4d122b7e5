//! The owner of a key: what its metadata says, and what happens to another environment's keys.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use testbed::faults::Fault;
use testbed::proxy::digest;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

/// 2026-11-20T14:00:05Z, when the invocations here begin.
const BEGAN: u64 = 1_795_183_205;

/// A world whose clock stands still, and a spy on its KV.
async fn stopped_world() -> (World, Spy) {
    let world = World::start().await;
    world.clock.stop_at(UNIX_EPOCH + Duration::from_secs(BEGAN));
    let spied = spy(world.stack.kv.faults());
    (world, spied)
}

/// The metadata that was last sent with each key, byte for byte. `DIGEST` stands for the digest of
/// the value.
fn sent_metadata(spied: &Spy) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Pair<'a> {
        key: String,
        value: String,
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let mut sent = BTreeMap::new();
    for request in spied.requests().iter().filter(|request| request.method == "PUT") {
        let pairs: Vec<Pair<'_>> = serde_json::from_slice(&request.body).unwrap();
        for Pair { key, value, metadata } in pairs {
            sent.insert(key, metadata.get().replace(&digest(&value), "DIGEST"));
        }
    }
    sent
}

/// The metadata of what is written for an index now; `rest` is what follows the environment.
fn metadata(source: &str, account: &str, name: &str, rest: &str) -> String {
    format!(
        r#"{{"digest":"DIGEST","exported_at":"2026-11-20T14:00:05.000Z","source":"{source}","system_account_id":"{account}","index_name":"{name}","environment":"local"{rest}}}"#
    )
}

#[tokio::test]
async fn the_streams_metadata_names_the_environment_and_when_the_table_took_the_change() {
    let (world, spied) = stopped_world().await;

    world
        .batch_ok([
            created_at(written(1, &shop("a", "i", "s.example")), json!(1_795_183_201.0)),
            created_at(written(2, &query_config("a", "i", "q", 1)), json!(BEGAN - 3)),
        ])
        .await;
    let expected = |second| {
        metadata("stream", "a", "i", &format!(r#","changed_at":"2026-11-20T14:00:0{second}Z""#))
    };
    assert_eq!(
        sent_metadata(&spied),
        BTreeMap::from([
            ("s.example".to_owned(), expected(1)),
            ("a-i".to_owned(), expected(1)),
            (query_config_key("a", "i", "q"), expected(2)),
        ])
    );
}

#[tokio::test]
async fn of_several_records_the_deciding_one_says_when_the_table_took_the_change() {
    let (world, spied) = stopped_world().await;
    let broken = broken("a", "i");

    world
        .batch([
            created_at(written(1, &index("a", "i")), json!(BEGAN - 4)),
            created_at(written(2, &index("a", "i")), json!(BEGAN - 3)),
            created_at(written(3, &broken), json!(BEGAN - 2)),
        ])
        .await;

    let changed_at = r#","changed_at":"2026-11-20T14:00:02Z""#;
    assert_eq!(sent_metadata(&spied)["a-i"], metadata("stream", "a", "i", changed_at));
}

#[tokio::test]
async fn what_the_table_decided_does_not_say_when_it_changed() {
    let re_export = re_export_all("b", "two");
    let query = query_config("b", "two", "q", 1);
    let late = [
        written(1, &index_with("b", "two", json!({"pixel_id": "old"}))),
        written(2, &query_config("b", "two", "q", 0)),
    ]
    .map(|record| created_at(record, json!(BEGAN - 61)));
    let settled = created_at(removed(3, "a", "INDEX#one"), json!(BEGAN));
    for (source, payload, keys) in [
        ("re-export", re_export, 3),
        ("reconcile", repair(), 3),
        ("stream", testbed::stream::event(late), 3),
        ("stream", testbed::stream::event([settled]), 1),
    ] {
        let (world, spied) = stopped_world().await;
        world.load([shop("b", "two", "s.example"), query.clone()]);
        let held = held_shop("a", "one", "s.example");
        world.hold(SETTINGS, "a-one", &held, Writer::Ours);
        world.hold(SETTINGS, "s.example", &held, Writer::Ours);

        let answered = world.handle(&payload).await;

        answered.ok();
        let sent = sent_metadata(&spied);
        assert_eq!(sent.len(), keys, "{payload}: {sent:?}");
        let expected = metadata(source, "b", "two", "");
        assert!(sent.values().all(|sent| *sent == expected), "{payload}: {sent:#?}");
    }
}

#[tokio::test]
async fn a_late_image_that_decides_says_when_the_table_took_the_change() {
    let (world, spied) = stopped_world().await;
    world.load([broken("a", "i")]);

    world.batch([created_at(written(1, &index("a", "i")), json!(BEGAN - 65))]).await;

    let changed_at = r#","changed_at":"2026-11-20T13:59:00Z""#;
    assert_eq!(sent_metadata(&spied)["a-i"], metadata("stream", "a", "i", changed_at));
}

#[tokio::test]
async fn metadata_that_is_over_its_limit_with_all_that_it_names_rejects_its_record() {
    const LIMIT: usize = 1_024;
    let world = World::start().await;
    let stamp = r#","changed_at":"2026-11-20T14:00:05Z""#;
    let frame = metadata("stream", "a", "", stamp).replace("DIGEST", &"d".repeat(64)).len();
    // In JSON these letters take six bytes each: the name fits the key and not the metadata.
    let names: Vec<(String, usize)> = (LIMIT - 100..LIMIT + 60)
        .map(|length| {
            let room = length - frame;
            (format!("{}{}", "\u{1}".repeat(room / 6), "x".repeat(room % 6)), length)
        })
        .collect();
    let records = (1..).zip(&names).map(|(number, (name, _))| {
        let endpoint = json!({"index_endpoint": "https://h.example"});
        written(number, &index_with("a", name, endpoint))
    });

    world.batch_ok(records).await;
    for (name, length) in names {
        let there = world.setting(&format!("a-{name}")).is_some();
        // With a longer source, and with an environment of 64 letters, it may be over the limit.
        let in_doubt = (LIMIT - 65..=LIMIT).contains(&length);
        assert!(in_doubt || there == (length <= LIMIT), "{length} bytes");
    }
}

#[tokio::test]
async fn a_removal_deletes_what_is_ours_and_leaves_what_another_environment_wrote() {
    use Writer::{EarlierVersion, OtherEnvironment, Ours, Predecessor};
    let cases: [(Writer, Writer, &[&str]); 5] = [
        (Ours, Ours, &[]),
        (EarlierVersion, EarlierVersion, &[]),
        (Predecessor, Predecessor, &[]),
        (Ours, OtherEnvironment, &["s.example"]),
        (OtherEnvironment, OtherEnvironment, &["a-i", "s.example"]),
    ];
    for (of_index_id, of_shop_id, stays) in cases {
        let world = World::start().await;
        world.hold(SETTINGS, "a-i", &held_shop("a", "i", "s.example"), of_index_id);
        world.hold(SETTINGS, "s.example", &held_shop("a", "i", "s.example"), of_shop_id);

        world.batch_ok([removed(1, "a", "INDEX#i")]).await;
        assert_eq!(world.setting_keys(), stays, "{of_index_id:?}, {of_shop_id:?}");
        let deleted = world.deletes().concat();
        assert!(!deleted.iter().any(|key| stays.contains(&key.as_str())), "{deleted:?}");
    }
}

#[tokio::test]
async fn of_two_keys_only_the_one_that_is_ours_gives_its_api_key_again() {
    let world = World::start().await;
    world.hold(SETTINGS, "a-i", &held_settings("a", "i"), Writer::OtherEnvironment);
    let ours = with(held_shop("a", "i", "s.example"), json!({"marqo_api_key": "our-key"}));
    world.hold(SETTINGS, "s.example", &ours, Writer::Ours);
    world.break_api_keys(Fault::status(503));

    world.batch_ok([written(1, &shop("a", "i", "s.example"))]).await;

    assert_eq!(world.setting("a-i").unwrap()["marqo_api_key"], "our-key");
}

#[tokio::test]
async fn an_item_gets_another_environments_key_from_the_stream_and_from_a_re_export() {
    let items = [shop("a", "i", "s.example"), query_config("a", "i", "q", 1)];
    let records = (1..).zip(&items).map(|(number, item)| written(number, item));
    let re_export = re_export_all("a", "i");
    for payload in [testbed::stream::event(records), re_export] {
        let world = World::start().await;
        world.load(items.clone());
        let query = query_config_key("a", "i", "q");
        let keys = [(SETTINGS, "a-i"), (SETTINGS, "s.example"), (QUERY_CONFIGS, &query)];
        for (namespace, key) in keys {
            world.hold(namespace, key, &held_settings("z", "theirs"), Writer::OtherEnvironment);
        }

        world.handle(&payload).await.ok();

        for (namespace, key) in keys {
            let stored = world.stack.kv.get(namespace, key).unwrap();
            assert_eq!(stored.json()["index_name"], "i", "{key}");
            assert_eq!(stored.metadata.unwrap()["environment"], "local", "{key}");
        }
    }
}

#[tokio::test]
async fn the_removal_of_a_query_config_leaves_what_another_environment_wrote() {
    for (writer, stays) in [
        (Writer::Ours, false),
        (Writer::EarlierVersion, false),
        (Writer::Predecessor, false),
        (Writer::OtherEnvironment, true),
    ] {
        let world = World::start().await;
        let key = query_config_key("a", "i", "q");
        world.hold(QUERY_CONFIGS, &key, &held_query_config("a", "i", "q"), writer);

        world.batch_ok([removed(1, "a", "INDEX#i#QUERY#q")]).await;
        assert_eq!(world.query_config_keys().len(), usize::from(stays), "{writer:?}");
    }
}
