//! The metadata that is sent with a value, byte for byte.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use testbed::proxy::digest;
use testbed::stack::SETTINGS;

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

/// The metadata that was last sent with each key. `DIGEST` stands for the digest of the value.
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

/// The metadata of what is written for an index now. `rest` follows the environment.
fn metadata(source: &str, account: &str, name: &str, rest: &str) -> String {
    format!(
        r#"{{"digest":"DIGEST","exported_at":"2026-11-20T14:00:05.000Z","source":"{source}","system_account_id":"{account}","index_name":"{name}","environment":"local"{rest}}}"#
    )
}

#[tokio::test]
async fn the_stream_tells_when_the_table_took_the_change_of_the_items_last_record() {
    let (world, spied) = stopped_world().await;
    let settings = shop("a", "i", "s.example");
    // The table decides about one of them.
    world.load([query_config("a", "i", "q", 2)]);

    world
        .batch_ok([
            created_at(written(1, &settings), json!(BEGAN - 4)),
            created_at(written(2, &settings), json!(1_795_183_202.0)),
            created_at(written(3, &query_config("a", "i", "q", 1)), json!(BEGAN - 2)),
        ])
        .await;

    let expected = |second| {
        metadata("stream", "a", "i", &format!(r#","changed_at":"2026-11-20T14:00:0{second}Z""#))
    };
    assert_eq!(
        sent_metadata(&spied),
        BTreeMap::from([
            ("s.example".to_owned(), expected(2)),
            ("a-i".to_owned(), expected(2)),
            (query_config_key("a", "i", "q"), expected(3)),
        ])
    );
}

#[tokio::test]
async fn what_no_record_of_the_item_asked_for_has_no_time_of_a_change() {
    let removal = created_at(removed(3, "a", "INDEX#one"), json!(BEGAN));
    for (source, payload, keys) in [
        ("re-export", re_export_all("b", "two"), 3),
        ("reconcile", repair(), 3),
        // The shop id goes to the item that asks for it.
        ("stream", testbed::stream::event([removal]), 1),
    ] {
        let (world, spied) = stopped_world().await;
        world.load([shop("b", "two", "s.example"), query_config("b", "two", "q", 1)]);
        let held = held_shop("a", "one", "s.example");
        world.hold(SETTINGS, "a-one", &held, Writer::Ours);
        world.hold(SETTINGS, "s.example", &held, Writer::Ours);

        world.handle(&payload).await.ok();

        let sent = sent_metadata(&spied);
        assert_eq!(sent.len(), keys, "{source}: {sent:?}");
        let expected = metadata(source, "b", "two", "");
        assert!(sent.values().all(|sent| *sent == expected), "{source}: {sent:#?}");
    }
}
