//! The API keys service: whom it is asked for, and what follows when it does not answer.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::stack::SETTINGS;

use crate::helpers::*;

/// An index whose alias is on or off.
fn alias(enabled: bool) -> Value {
    let reads = json!({"enabled": enabled, "targets": [{"index_id": "a-v2"}]});
    with(shop("a", "i", "s.example"), json!({"index_aliases": {"doc_reads": reads}}))
}

#[tokio::test]
async fn a_rollback_gets_through_with_the_api_key_that_kv_holds_whatever_the_gateway_says() {
    for (name, fault, tries) in [
        ("404, misrouted", Fault::status(404), 1),
        ("503", Fault::status(503), 4),
        ("another body", Fault::WrongJson, 4),
        ("no connection", Fault::DropConnection, 4),
        ("a redirect", Fault::Answer(Reply::new(302, "", "").with("location", "/")), 1),
    ] {
        let _row = row(name);
        let world = World::start().await;
        world.settled_with([alias(true)]).await;
        world.break_api_keys(fault);

        let answered = world.batch_ok([written(9, &alias(false))]).await;

        assert_eq!(answered.counted("ApiKeysReused"), 1);
        assert_eq!(world.logs.warnings().len(), 1, "{}", world.logs.text());
        assert_eq!(world.stack.api_keys.log().len(), tries);
        for key in ["a-i", "s.example"] {
            let value = world.setting(key).unwrap();
            assert_eq!(value["marqo_api_key"], "key-a");
        }
    }
}

#[tokio::test]
async fn an_account_without_an_api_key_is_rejected_after_a_404_and_fails_otherwise() {
    for (status, rejected) in [(404, 1), (503, 0)] {
        let world = World::start().await;
        // Of two keys, the one that is ours would give its API key again.
        world.hold(SETTINGS, "a-i", &held_settings("a", "i"), Writer::OtherEnvironment);
        world.break_api_keys(Fault::status(status));

        let answered = world.batch([written(1, &index("a", "i"))]).await;

        assert_eq!(answered.counted("RecordsRejected"), rejected, "{status}");
        assert_eq!(answered.counted("RecordsFailed"), 1 - rejected, "{status}");
        let line = &world.logs.at("ERROR")[0];
        assert_eq!(line["path"] == "system_account_id", rejected == 1, "{line}");
    }
}

#[tokio::test]
async fn each_account_and_cell_is_asked_for_once_and_all_at_the_same_time() {
    let world = World::start().await;
    let slow = Fault::Delay(Duration::from_millis(300));
    world.stack.api_keys.faults().add(Rule::any(slow).forever());
    let items = (0..400).map(|n| index(&format!("a{}", n % 200), &format!("i{n}")));
    let items: Vec<Value> = items.chain([in_cell("a0", "elsewhere", "c2")]).collect();

    world.batch_ok(all_written(&items)).await;

    let log = world.stack.api_keys.log();
    let asked: BTreeSet<_> = log.iter().map(|asked| (&asked.cell, &asked.account)).collect();
    assert_eq!((log.len(), asked.len()), (201, 201));
    let spans = log.iter().map(|asked| asked.received_at..asked.finished_at.unwrap());
    let open_at = |time| spans.clone().filter(|span| span.contains(&time)).count();
    let together = log.iter().map(|asked| open_at(asked.received_at)).max().unwrap();
    assert!(together >= 50, "only {together} requests overlapped");
}
