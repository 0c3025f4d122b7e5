//! Late records that lack nothing but their account's API key. They must not hold up their shard.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::stack::{DEFAULT_CELL, SETTINGS};
use testbed::table::to_item;

use crate::helpers::*;

/// An index in a cell whose gateway is down.
fn down(account: &str, name: &str) -> Value {
    in_cell(account, name, "down")
}

/// A world whose table holds these items and whose cell `down` gives no API keys.
async fn world_with(items: &[Value]) -> World {
    let world = World::start().await;
    world.load(items.to_vec());
    world.stack.api_keys.break_cell("down", Fault::status(503));
    world
}

#[tokio::test]
async fn a_late_record_that_lacks_only_its_api_key_is_parked_and_one_in_time_fails() {
    let world = world_with(&[down("a", "i"), down("b", "i"), index("c", "i")]).await;

    let answered = world
        .batch([
            late(written(1, &down("a", "i"))),
            written(2, &down("b", "i")),
            late(written(3, &index("c", "i"))),
        ])
        .await;

    assert_eq!(answered.failures(), ["2"]);
    assert_eq!(world.setting_keys(), ["c-i"]);
    let line = world.logs.only("record parked");
    let told = ["level", "system_account_id", "index_name", "cell", "sequence_number"];
    assert_eq!(told.map(|field| &line[field]), ["ERROR", "a", "i", "down", "1"]);
    assert_eq!(answered.counted("RecordsParked"), Some(1));
    assert_eq!(world.logs.of("invocation")[0]["parked"], 1);
    assert_eq!((answered.stats.failed, answered.stats.exported), (1, 1));
    assert_eq!((answered.stats.rejected, answered.stats.superseded), (0, 0));

    world.stack.api_keys.faults().clear();
    world.handle(&repair()).await.ok();
    assert_eq!(world.setting_keys(), ["a-i", "b-i", "c-i"], "a reconcile brings it back");
}

#[tokio::test]
async fn a_parked_records_cell_is_the_one_that_was_asked() {
    let world = world_with(&[down("moved", "i"), index("default", "i")]).await;
    world.break_api_keys(Fault::status(503));

    world
        .batch_ok([
            late(written(1, &index("moved", "i"))),
            late(written(2, &index("default", "i"))),
        ])
        .await;
    let parked = world.logs.of("record parked");
    let cells: Vec<&Value> = parked.iter().map(|line| &line["cell"]).collect();
    assert_eq!(cells, ["down", DEFAULT_CELL]);
}

#[tokio::test]
async fn a_late_record_is_parked_only_where_kv_could_be_read_and_holds_no_key_for_it() {
    for (writer, parked) in
        [(Writer::Ours, false), (Writer::Predecessor, false), (Writer::OtherEnvironment, true)]
    {
        let world = world_with(&[down("a", "i")]).await;
        world.hold(SETTINGS, "a-i", &held_settings("a", "i"), writer);

        let answered = world.batch_ok([late(written(1, &down("a", "i")))]).await;
        assert_eq!(answered.counted("RecordsParked"), Some(u64::from(parked)), "{writer:?}");
        assert_eq!(answered.stats.exported, u64::from(!parked), "{writer:?}");
    }
    // A 404 of the gateway: the account has no API key, so that KV would have to have one.
    for (place, (gateway, fault, parked)) in [
        (503, Fault::status(503), 0),
        (503, Fault::status(404), 0),
        (503, Fault::DropConnection, 0),
        (404, Fault::status(503), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let _row = row(format!("unreadable in way {place}"));
        let world = World::start().await;
        world.load([down("a", "i"), down("b", "i")]);
        world.stack.api_keys.break_cell("down", Fault::status(gateway));
        world.break_kv(reads(fault).forever());
        let records = [late(written(1, &down("a", "i"))), written(2, &down("b", "i"))];

        let answered = world.batch(records).await;

        assert_eq!(answered.failures(), ["1", "2"][parked..]);
        assert_eq!(answered.counted("RecordsParked"), u64::try_from(parked).ok());
        assert_eq!(answered.stats.rejected, 0);
    }
}

#[tokio::test]
async fn what_fails_for_more_than_its_own_api_key_is_not_parked() {
    // The write fails.
    let world = world_with(&[index("a", "i")]).await;
    world.break_puts(100, Fault::status(500));
    let answered = world.batch([late(written(1, &index("a", "i")))]).await;
    assert_eq!(answered.failures(), ["1"]);
    assert_eq!(answered.counted("RecordsParked"), Some(0));

    // It leaves behind a shop id for which another account asks without an API key, and another one that
    // KV does not delete.
    let world = world_with(&[index("a", "i"), claim_without_api_key()]).await;
    for shop_id in ["s.example", "t.example"] {
        world.hold(SETTINGS, shop_id, &held_settings("a", "i"), Writer::Ours);
    }
    world.break_kv(deletes(Fault::status(500)).forever());
    let records = ["s.example", "t.example"].map(|id| late(written(1, &shop("a", "i", id))));
    let answered = world.batch(records).await;
    assert_eq!(answered.failures(), ["1", "1"]);
    assert_eq!(answered.counted("RecordsParked"), Some(0));
}

/// The same record, of a table whose stream carries old images: a/i had the shop id s.example.
fn had_shop_id(mut record: Value) -> Value {
    record["dynamodb"]["OldImage"] = to_item(&shop("a", "i", "s.example"));
    record
}

/// What KV holds of a/i while it has the shop id s.example.
fn hold_with_shop_id(world: &World) {
    for key in ["a-i", "s.example"] {
        world.hold(SETTINGS, key, &held_shop("a", "i", "s.example"), Writer::Ours);
    }
}

/// An item that asks for s.example, and whose API key is unavailable.
fn claim_without_api_key() -> Value {
    with(down("b", "j"), json!({"shop_id": "s.example"}))
}

#[tokio::test]
async fn a_late_record_that_leaves_a_shop_id_to_a_dead_cell_is_parked_and_one_in_time_fails() {
    let moved = had_shop_id(written(1, &index("a", "i")));
    let gone = had_shop_id(removed(1, "a", "INDEX#i"));
    for (in_the_table, record, keys) in [
        (vec![index("a", "i")], moved, vec!["a-i", "s.example"]),
        (vec![], gone, vec!["s.example"]),
    ] {
        for (record, failures) in [(late(record.clone()), &[][..]), (record, &["1"])] {
            let world = world_with(&in_the_table).await;
            world.load([claim_without_api_key()]);
            hold_with_shop_id(&world);

            let answered = world.batch([record]).await;

            assert_eq!(answered.failures(), failures);
            assert_eq!(world.setting_keys(), keys);
            let lines = world.logs.of("record parked");
            assert_eq!(lines.len(), 1 - failures.len());
            assert!(lines.iter().all(|line| line["cell"] == "down"), "{lines:?}");
        }
    }
}

#[tokio::test]
async fn a_late_removal_beside_an_insert_of_its_shop_id_in_a_dead_cell_is_parked() {
    let world = world_with(&[claim_without_api_key()]).await;
    hold_with_shop_id(&world);

    // Without an old image: the shop id is known from KV's value alone.
    let records = [late(removed(1, "a", "INDEX#i")), late(written(2, &claim_without_api_key()))];
    let answered = world.batch_ok(records).await;
    assert_eq!(answered.counted("RecordsParked"), Some(2));
    assert_eq!(world.setting_keys(), ["a-i", "s.example"], "the way to the shop id stays");

    world.stack.api_keys.faults().clear();
    world.handle(&repair()).await.ok();
    assert_eq!(world.setting_keys(), ["b-j", "s.example"]);
    assert_eq!(world.url_under("s.example").unwrap(), "https://j.example.com");
}

#[tokio::test]
async fn what_a_parked_removal_had_deleted_is_put_back() {
    let world = world_with(&[]).await;
    hold_with_shop_id(&world);
    let before = world.stack.kv.snapshot(SETTINGS);
    let claim = world.before(move |table| table.put(&claim_without_api_key()));
    world.break_kv(deletes(claim));

    let answered = world.batch_ok([late(had_shop_id(removed(1, "a", "INDEX#i")))]).await;
    assert_eq!(answered.counted("RecordsParked"), Some(1));
    assert_eq!(world.stack.kv.snapshot(SETTINGS).get("s.example"), before.get("s.example"));
}

#[tokio::test]
async fn where_only_late_records_wait_the_api_keys_service_is_given_up_sooner() {
    // Longer than the one wait, shorter than the other.
    const SLOW: Duration = Duration::from_secs(10);
    let slow = async || {
        let world = World::start().await;
        world.stack.table.load(["a", "b"].map(|account| to_item(&index(account, "i"))));
        world.stack.api_keys.faults().add(Rule::any(Fault::Delay(SLOW)).forever());
        world
    };
    let (alone, beside) = (slow().await, slow().await);

    let (only_late, both) = tokio::join!(
        alone.batch([late(written(1, &index("a", "i")))]),
        beside.batch([late(written(1, &index("a", "i"))), written(2, &index("b", "i"))]),
    );

    assert_eq!(only_late.failures(), NOTHING);
    assert_eq!(only_late.counted("RecordsParked"), Some(1));
    assert_eq!(alone.setting_keys(), NOTHING);
    assert_eq!(both.failures(), NOTHING);
    assert!(beside.setting("b-i").is_some(), "what is in time is waited for");
}

#[tokio::test]
async fn settling_too_gives_the_api_keys_service_up_sooner_where_only_late_records_wait() {
    let removal = had_shop_id(removed(1, "a", "INDEX#i"));
    let batch = async |record: Value| {
        let world = World::start().await;
        world.load([claim_without_api_key()]);
        hold_with_shop_id(&world);
        let slow = Fault::Delay(Duration::from_secs(10));
        world.stack.api_keys.faults().add(Rule::any(slow).forever());
        let answered = world.batch_ok([record]).await;
        (answered.counted("RecordsParked"), world.url_under("s.example"))
    };

    let (late, in_time) = tokio::join!(batch(late(removal.clone())), batch(removal));

    assert_eq!(late, (Some(1), Some("https://held.example.com".to_owned())));
    assert_eq!(in_time, (Some(0), Some("https://j.example.com".to_owned())));
}
