//! API keys: which are asked for, and what happens when they are not available.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::stack::{DEFAULT_CELL, SETTINGS};

use crate::helpers::*;

fn key_under(world: &World, key: &str) -> Value {
    world.setting(key).map_or(Value::Null, |value| value["marqo_api_key"].clone())
}

/// A batch of this many accounts for each of these cells, with one index for each account.
fn accounts(cells: &[&str], each: u32) -> Vec<Value> {
    let mut records = Vec::new();
    for cell in cells {
        for account in 0..each {
            let item = index_with(&format!("{cell}-{account:02}"), "i", json!({"cell": cell}));
            records.push(written(u32::try_from(records.len()).unwrap() + 1, &item));
        }
    }
    records
}

#[tokio::test]
async fn a_records_cell_is_asked_else_the_default_one() {
    let world = World::start().await;

    world
        .batch([
            written(1, &index_with("a", "i", json!({"cell": "eu-1"}))),
            written(2, &index("b", "i")),
            written(3, &index_with("c", "i", json!({"cell": ""}))),
        ])
        .await;

    assert_eq!(world.stack.api_keys.count("eu-1", "a"), 1);
    assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "b"), 1);
    assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "c"), 1);
    assert_eq!(world.stack.api_keys.log().len(), 3);
    assert_eq!(world.setting("a-i").unwrap().get("cell"), None);
}

#[tokio::test]
async fn a_record_without_a_cell_is_rejected_where_there_is_no_default() {
    let world = World::with(Default::default(), PATIENT, &[("DEFAULT_CELL", "")]).await;

    let answered = world.batch([written(1, &index("a", "i"))]).await;

    assert_eq!(answered.failures(), NOTHING);
    let rejected = world.logs.of("record rejected");
    assert_eq!(rejected[0]["path"], "cell");
    assert!(rejected[0]["error"].as_str().unwrap().contains("DEFAULT_CELL"));
}

#[tokio::test]
async fn an_account_without_a_key_is_rejected_where_kv_holds_none_of_its_index() {
    let world = World::start().await;
    world.settled_with([index("a", "other")]).await;
    world.stack.api_keys.remove("a");

    let answered = world.batch([written(8, &index("a", "i")), written(9, &index("b", "i"))]).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["a-other", "b-i"]);
    assert_eq!(answered.stats.rejected, 1);
    let rejected = world.logs.of("record rejected");
    assert_eq!(rejected[0]["path"], "system_account_id");
    assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "a"), 1, "404 is final");
}

#[tokio::test]
async fn a_gateway_that_is_misrouted_lets_a_rollback_through() {
    let world = World::start().await;
    let alias = |enabled: bool| {
        let target = json!({"index_id": "a-v2"});
        let reads = json!({"doc_reads": {"enabled": enabled, "targets": [target]}});
        index_with("a", "i", json!({"index_aliases": reads}))
    };
    world.settled_with([alias(true)]).await;
    world.stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(404));

    let answered = world.batch([written(9, &alias(false))]).await;

    assert_eq!(answered.failures(), NOTHING);
    let value = world.setting("a-i").unwrap();
    assert_eq!(value["index_aliases"]["doc_reads"]["enabled"], false);
    assert_eq!(value["marqo_api_key"], "key-a");
    assert_eq!((answered.stats.rejected, answered.stats.api_keys_reused), (0, 1));
    assert_eq!(world.logs.warnings().len(), 1);
    assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "a"), 1, "404 is final");
}

#[tokio::test]
async fn while_kv_cannot_be_read_an_account_without_a_key_fails_and_a_late_record_is_parked() {
    let world = World::start().await;
    let items = ["a", "b"].map(|account| index(account, "i"));
    world.settled_with(items.clone()).await;
    world.stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(404));
    world.stack.kv.faults().add(Rule::on("POST", "/bulk/get", Fault::status(503)).forever());

    let [a, b] = items;
    let answered = world.batch([late(written(8, &a)), written(9, &b)]).await;

    assert_eq!(answered.failures(), ["9"]);
    assert_eq!((answered.stats.parked, answered.stats.rejected), (1, 0));
}

#[tokio::test]
async fn what_passes_is_tried_three_more_times() {
    let faults = [
        Fault::status(429),
        Fault::status(500),
        Fault::status(503),
        Fault::status(408),
        Fault::DropConnection,
        Fault::TruncatedBody,
        Fault::HtmlBody,
        Fault::WrongJson,
        Fault::Answer(Reply::json(200, &json!({"api_key": ""}))),
        Fault::Answer(Reply::json(200, &json!({"api_key": null}))),
    ];
    for fault in faults {
        let world = World::start().await;
        world.stack.api_keys.faults().add(Rule::any(fault).times(3));

        let answered = world.batch([written(1, &index("a", "i"))]).await;

        assert_eq!(answered.failures(), NOTHING);
        assert_eq!(key_under(&world, "a-i"), "key-a");
        assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "a"), 4);
    }
}

#[tokio::test]
async fn a_key_that_comes_with_more_fields_is_taken() {
    let world = World::start().await;
    let reply = Reply::json(200, &json!({"api_key": "k", "owner": {"id": 1}, "scopes": ["x"]}));
    world.stack.api_keys.faults().next(Fault::Answer(reply));

    world.batch([written(1, &index("a", "i"))]).await;

    assert_eq!(key_under(&world, "a-i"), "k");
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let world = World::start().await;
    world.stack.api_keys.faults().next(Fault::retry_after(1));

    assert_eq!(world.batch([written(1, &index("a", "i"))]).await.failures(), NOTHING);

    let log = world.stack.api_keys.log();
    assert!(log[1].received_at - log[0].finished_at.unwrap() >= Duration::from_secs(1));
}

#[tokio::test]
async fn the_key_that_kv_holds_is_used_again_with_a_warning_and_a_count() {
    let faults = [
        (Fault::status(503), 4),
        (Fault::status(429), 4),
        (Fault::WrongJson, 4),
        (Fault::DropConnection, 4),
        // The gateway refuses the exporter, which says nothing about the account.
        (Fault::status(401), 1),
    ];
    for (fault, tries) in faults {
        let world = World::start().await;
        world.settled_with([shop("a", "i", "s.example"), shop("b", "i", "b.example")]).await;
        world.stack.api_keys.break_cell(DEFAULT_CELL, fault);

        let changed = index_with("a", "i", json!({"shop_id": "s.example", "pixel_id": "new"}));
        let answered = world.batch([written(9, &changed)]).await;

        assert_eq!(answered.failures(), NOTHING);
        for key in ["a-i", "s.example"] {
            assert_eq!(world.setting(key).unwrap()["pixel_id"], "new");
            assert_eq!(key_under(&world, key), "key-a");
        }
        assert_eq!(answered.stats.api_keys_reused, 1);
        let warnings = world.logs.warnings();
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0]["system_account_id"], "a");
        assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "a"), tries);
    }
}

#[tokio::test]
async fn the_key_of_another_index_or_of_a_broken_value_is_not_used_again() {
    let values = [
        json!({"system_account_id": "a", "index_name": "other", "marqo_api_key": "stolen"}),
        json!({"system_account_id": "b", "index_name": "i", "marqo_api_key": "stolen"}),
        json!({"system_account_id": "a", "index_name": "i"}),
        json!({"system_account_id": "a", "index_name": "i", "marqo_api_key": ""}),
        json!({"system_account_id": "a", "index_name": "i", "marqo_api_key": null}),
        json!("text"),
    ];
    for value in values {
        let world = World::start().await;
        world.stack.kv.put(SETTINGS, "s.example", &value.to_string(), None);
        let before = world.stack.kv.snapshot(SETTINGS);
        world.stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(503));

        let answered = world.batch([written(1, &shop("a", "i", "s.example"))]).await;

        assert_eq!(answered.failures(), ["1"], "{value}");
        assert_eq!(world.stack.kv.snapshot(SETTINGS), before, "{value}");
    }
}

#[tokio::test]
async fn a_record_whose_key_is_nowhere_fails_and_nothing_is_written_without_one() {
    let faults = [Fault::status(500), Fault::WrongJson, Fault::HtmlBody, Fault::DropConnection];
    for fault in faults {
        let world = World::start().await;
        world.stack.api_keys.break_cell("down", fault);

        let down = index_with("a", "i", json!({"cell": "down"}));
        let answered = world.batch([written(1, &down), written(2, &index("b", "i"))]).await;

        assert_eq!(answered.failures(), ["1"]);
        assert_eq!(world.setting_keys(), ["b-i"]);
    }
}

#[tokio::test]
async fn a_gateway_that_hangs_is_given_up_and_the_key_in_kv_used() {
    let world = World::impatient().await;
    world.settled_with([index("a", "i")]).await;
    world.stack.api_keys.break_cell(DEFAULT_CELL, Fault::Hang);

    let changed = index_with("a", "i", json!({"pixel_id": "new"}));
    let answered = world.batch([written(8, &changed), written(9, &index("new", "i"))]).await;

    assert_eq!(answered.failures(), ["9"]);
    assert_eq!(world.setting("a-i").unwrap()["pixel_id"], "new");
    assert_eq!(world.setting_keys(), ["a-i"]);
    assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "a"), 4);
}

#[tokio::test]
async fn no_key_outlives_its_invocation() {
    let world = World::start().await;
    world.stack.api_keys.set("a", "before");
    world.batch([written(1, &index("a", "i"))]).await;

    world.stack.api_keys.set("a", "after");
    world.batch([written(2, &index("a", "i"))]).await;

    assert_eq!(key_under(&world, "a-i"), "after");
}

#[tokio::test]
async fn a_reused_key_is_replaced_once_the_service_is_back() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    world.stack.api_keys.set("a", "rotated");
    world.stack.api_keys.faults().add(Rule::any(Fault::status(503)).times(4));

    world.batch([written(8, &index("a", "i"))]).await;
    assert_eq!(key_under(&world, "a-i"), "key-a");
    world.batch([written(9, &index("a", "i"))]).await;
    assert_eq!(key_under(&world, "a-i"), "rotated");
}

#[tokio::test]
async fn redirects_of_a_gateway_are_not_followed() {
    let world = World::start().await;
    let elsewhere = World::start().await;
    let seen = spy(elsewhere.stack.api_keys.faults());
    let target = elsewhere.stack.api_keys.url_template().replace("{cell}", "c");
    let redirect = Reply::new(307, "", "").with("location", &target);
    world.stack.api_keys.break_cell(DEFAULT_CELL, Fault::Answer(redirect));

    assert_eq!(world.batch([written(1, &index("a", "i"))]).await.failures(), ["1"]);
    assert!(seen.requests().is_empty());
}

/// How long a cell that hangs holds up the others. Printed, because it is worth knowing.
#[tokio::test]
async fn one_of_five_cells_that_hangs_holds_the_others_up_for_one_time_out_at_most() {
    let cells = ["c1", "c2", "c3", "c4", "c5"];
    let world = World::with(Default::default(), Duration::from_secs(1), &[]).await;
    let began = Instant::now();
    let alone = world.batch(accounts(&cells[..4], 20)).await;
    println!("four cells alone: {:?}", began.elapsed());
    assert_eq!(alone.failures(), NOTHING);
    for key in world.setting_keys() {
        world.stack.kv.delete(SETTINGS, &key);
    }
    world.forget();
    world.stack.api_keys.break_cell("c5", Fault::Hang);

    let began = Instant::now();
    let answered = world.batch(accounts(&cells, 20)).await;
    println!("a batch with a cell that hangs: {:?}", began.elapsed());

    let failed: Vec<String> = (81..=100).map(|number: u32| number.to_string()).collect();
    assert_eq!(answered.failures(), failed);
    assert_eq!(world.setting_keys().len(), 80);
    let puts = world.puts(SETTINGS);
    assert_eq!(puts.iter().map(|put| put.pairs).collect::<Vec<_>>(), [80]);
    let in_kv = puts[0].finished_at.unwrap();
    println!("the other four's accounts in KV after {:?}", in_kv - began);
    let log = world.stack.api_keys.log();
    // The first tries run into the time-out. Anything that waited for a second one would come after
    // that one's end.
    let mut second_tries = Vec::new();
    for account in 0..20 {
        let account = format!("c5-{account:02}");
        let tries: Vec<_> = log.iter().filter(|asked| asked.account == account).collect();
        assert_eq!(tries.len(), 4);
        second_tries.push(tries[1].finished_at.unwrap());
    }
    assert!(in_kv < second_tries.into_iter().min().unwrap());
}
