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

/// A batch of twenty accounts for each of these cells, with one index for each account.
fn accounts(cells: &[&str]) -> Vec<Value> {
    let of_cell = |cell: &&str| {
        let cell = (*cell).to_owned();
        (0..20).map(move |account| in_cell(&format!("{cell}-{account:02}"), "i", &cell))
    };
    all_written(&cells.iter().flat_map(of_cell).collect::<Vec<_>>())
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
    world.break_api_keys(Fault::status(404));

    let answered = world.batch_ok([written(9, &alias(false))]).await;

    let value = world.setting("a-i").unwrap();
    assert_eq!(value["index_aliases"]["doc_reads"]["enabled"], false);
    assert_eq!(value["marqo_api_key"], "key-a");
    assert_eq!((answered.stats.rejected, answered.stats.api_keys_reused), (0, 1));
    assert_eq!(world.logs.warnings().len(), 1);
    assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "a"), 1, "404 is final");
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
    for (place, fault) in faults.into_iter().enumerate() {
        let _row = row(format!("fault {place}"));
        let world = World::start().await;
        world.stack.api_keys.faults().add(Rule::any(fault).times(3));

        world.batch_ok([written(1, &index("a", "i"))]).await;

        assert_eq!(key_under(&world, "a-i"), "key-a");
        assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "a"), 4);
    }
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
    for (place, (fault, tries)) in faults.into_iter().enumerate() {
        let _row = row(format!("fault {place}"));
        let world = World::start().await;
        world.settled_with([shop("a", "i", "s.example"), shop("b", "i", "b.example")]).await;
        world.break_api_keys(fault);

        let changed = with(shop("a", "i", "s.example"), json!({"pixel_id": "new"}));
        let answered = world.batch_ok([written(9, &changed)]).await;

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

/// How long a cell that hangs holds up the others. Printed, because it is worth knowing.
#[tokio::test]
async fn one_of_five_cells_that_hangs_holds_the_others_up_for_one_time_out_at_most() {
    let cells = ["c1", "c2", "c3", "c4", "c5"];
    let world = World::with(Default::default(), Duration::from_secs(1), &[]).await;
    let began = Instant::now();
    world.batch_ok(accounts(&cells[..4])).await;
    println!("four cells alone: {:?}", began.elapsed());
    for key in world.setting_keys() {
        world.stack.kv.delete(SETTINGS, &key);
    }
    world.forget();
    world.stack.api_keys.break_cell("c5", Fault::Hang);

    let began = Instant::now();
    let answered = world.batch(accounts(&cells)).await;
    println!("a batch with a cell that hangs: {:?}", began.elapsed());

    let failed: Vec<String> = (81..=100).map(|number: u32| number.to_string()).collect();
    assert_eq!(answered.failures(), failed);
    assert_eq!(world.setting_keys().len(), 80);
    assert_eq!(world.pairs(SETTINGS), [80]);
    let in_kv = world.puts(SETTINGS)[0].finished_at.unwrap();
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
