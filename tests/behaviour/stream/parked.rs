//! A late record whose fault is its own is parked, so that it does not hold up its shard. The unit tests of a
//! batch have a row for each fault, and for the ages around 60 s.

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::stack::SETTINGS;

use crate::helpers::*;

#[tokio::test]
async fn a_late_record_without_an_api_key_anywhere_is_parked_and_one_in_time_fails() {
    let world = World::start().await;
    world.stack.api_keys.break_cell("down", Fault::status(503));
    let items = [in_cell("a", "i", "down"), in_cell("b", "i", "down"), index("c", "i")];
    world.load(items.clone());

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
async fn a_late_record_whose_key_is_refused_alone_is_parked() {
    let says = json!({"success": false, "errors": [{"code": 10_012, "message": "s3cret"}]});
    for (method, path) in [("PUT", "/bulk"), ("POST", "/bulk/delete"), ("POST", "/bulk/get")] {
        let _row = row(format!("{method} {path}"));
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

        let answered = world.batch_ok(records.into_iter().map(late)).await;

        assert_eq!(answered.counted("RecordsExported"), 1);
        assert_eq!(answered.counted("RecordsParked"), 1);
        let error = world.logs.only("record parked")["error"].to_string();
        assert!(error.contains("400") && error.contains("10012"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn a_late_removal_whose_key_goes_to_an_item_without_an_api_key_is_parked() {
    let world = World::start().await;
    world.stack.api_keys.break_cell("down", Fault::status(503));
    for key in ["a-i", "s.example"] {
        world.hold(SETTINGS, key, &held_shop("a", "i", "s.example"), Writer::Ours);
    }
    world.load([with(in_cell("b", "j", "down"), json!({"shop_id": "s.example"}))]);

    let answered = world.batch_ok([late(removed(1, "a", "INDEX#i"))]).await;

    assert_eq!(answered.counted("RecordsParked"), 1);
    let stays = world.url_under("s.example");
    assert_eq!(stays.as_deref(), Some("https://held.example.com"));
}
