//! A late record whose fault is its own is parked, so that it does not hold up its shard. Late is
//! older than 60 s when the invocation begins.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::stack::SETTINGS;
use testbed::stream::event;

use crate::helpers::*;

/// An index in a cell whose gateway is down.
fn down(account: &str, name: &str) -> Value {
    in_cell(account, name, "down")
}

/// A world with these items, and without the API keys of the cell `down`.
async fn world_with(items: &[Value]) -> World {
    let world = World::start().await;
    world.load(items.to_vec());
    world.stack.api_keys.break_cell("down", Fault::status(503));
    world
}

#[tokio::test]
async fn a_late_record_without_an_api_key_anywhere_is_parked_and_one_in_time_fails() {
    let items = [down("a", "i"), down("b", "i"), index("c", "i")];
    let world = world_with(&items).await;

    let [first, second, third] = [0, 1, 2].map(|n| written(n as u32 + 1, &items[n]));
    let answered = world.batch([late(first), second, late(third)]).await;

    assert_eq!(answered.failures(), ["2"]);
    assert_eq!(world.setting_keys(), ["c-i"]);
    let line = world.logs.only("record parked");
    let told = ["level", "system_account_id", "index_name", "cell", "sequence_number"];
    assert_eq!(told.map(|field| &line[field]), ["ERROR", "a", "i", "down", "1"]);
    assert_eq!(answered.counted("RecordsParked"), 1);

    world.stack.api_keys.faults().clear();
    world.report(&repair()).await;
    assert_eq!(world.setting_keys(), ["a-i", "b-i", "c-i"], "a reconcile writes it");
}

#[tokio::test]
async fn a_record_is_late_from_61_s_on_and_never_by_a_time_that_cannot_be_read() {
    for (time, parked) in [
        ("1795183205", 0),
        ("1795183145", 0),
        ("1795183144", 1),
        ("1", 1),
        ("1795186805", 0),
        (r#""2026-11-20T14:00:00Z""#, 0),
        (r#"{"N":"1795183144"}"#, 0),
        ("null", 0),
        ("-1", 0),
        ("-1e400", 0),
        // Milliseconds, and what is no time in any unit.
        ("1795183144000", 0),
        ("100000000001", 0),
        ("1e400", 0),
    ] {
        let _row = row(time);
        let world = world_with(&[down("a", "i"), index("b", "i")]).await;
        world.clock.stop_at(UNIX_EPOCH + Duration::from_secs(1_795_183_205));
        let records = [written(1, &down("a", "i")), written(2, &index("b", "i"))];
        let event = event(records.map(|record| created_at(record, json!("CREATED"))));

        let answered = world.handle_text(&event.to_string().replace(r#""CREATED""#, time)).await;

        assert_eq!(answered.counted("RecordsParked"), parked);
        assert_eq!(answered.failures().len() as u64, 1 - parked);
        let metadata = world.stack.kv.get(SETTINGS, "b-i").unwrap().metadata.unwrap();
        let readable = time.parse::<f64>().is_ok_and(|seconds| (0.0..=1e11).contains(&seconds));
        assert_eq!(metadata.get("changed_at").is_some(), readable);
    }
}

#[tokio::test]
async fn a_late_record_fails_where_kv_could_not_be_asked_for_an_api_key() {
    let world = world_with(&[down("a", "i")]).await;
    world.break_kv(reads(Fault::status(500)).forever());

    let answered = world.batch([late(written(1, &down("a", "i")))]).await;

    assert_eq!(answered.failures(), ["1"]);
    let error = world.logs.only("record failed")["error"].to_string();
    assert!(error.contains("503") && error.contains("500"), "{error}");
}

#[tokio::test]
async fn a_late_record_whose_key_is_refused_alone_is_parked_and_one_in_time_fails() {
    let says = json!({"success": false, "errors": [{"code": 10_012, "message": "s3cret"}]});
    for (method, path) in [("PUT", "/bulk"), ("POST", "/bulk/delete"), ("POST", "/bulk/get")] {
        for is_late in [true, false] {
            let _row = row(format!("{method} {path}, late: {is_late}"));
            let world = World::start().await;
            let items = [index("a", "good"), index("a", "refused")];
            let records: Vec<Value> = if method == "PUT" {
                all_written(&items)
            } else {
                world.settled_with(items.clone()).await;
                items.iter().for_each(|item| world.remove(item));
                [removed(1, "a", "INDEX#good"), removed(2, "a", "INDEX#refused")].into()
            };
            world.load([index("z", "other")]);
            let refused = Fault::Answer(Reply::json(400, &says));
            world.break_kv(Rule::naming(method, path, "a-refused", refused).forever());

            let age = if is_late { 600 } else { 0 };
            let answered = world.batch(records.into_iter().map(|record| ago(age, record))).await;

            let failed: &[&str] = if is_late { &[] } else { &["2"] };
            assert_eq!(answered.failures(), failed);
            assert_eq!(answered.counted("RecordsExported"), 1);
            assert_eq!(answered.counted("RecordsParked"), u64::from(is_late));
            if is_late {
                let error = world.logs.only("record parked")["error"].to_string();
                assert!(error.contains("400") && error.contains("10012"), "{error}");
                assert!(!error.contains("s3cret"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_late_removal_whose_key_goes_to_an_item_without_an_api_key_is_parked() {
    for is_late in [true, false] {
        let world = world_with(&[]).await;
        for key in ["a-i", "s.example"] {
            world.hold(SETTINGS, key, &held_shop("a", "i", "s.example"), Writer::Ours);
        }
        world.load([with(down("b", "j"), json!({"shop_id": "s.example"}))]);

        let age = if is_late { 600 } else { 0 };
        let answered = world.batch([ago(age, removed(1, "a", "INDEX#i"))]).await;

        assert_eq!(answered.failures().is_empty(), is_late);
        assert_eq!(answered.counted("RecordsParked"), u64::from(is_late));
        let stays = world.url_under("s.example");
        assert_eq!(stays.as_deref(), Some("https://held.example.com"));
    }
}
