//! A deleted value is put back as soon as nobody can be sure that it should be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Request;
use testbed::kv::{KvVerb, Stored};
use testbed::stack::SETTINGS;
use testbed::table::StreamView;

use crate::helpers::*;

/// What KV holds before a/i, whose shop id is s.example, is removed; and the record that says so.
async fn removal(world: &World) -> (BTreeMap<String, Stored>, Vec<Value>) {
    world.settled_with([shop("a", "i", "s.example"), index("z", "other")]).await;
    world.stack.table.delete("a", "INDEX#i");
    (world.stack.kv.snapshot(SETTINGS), world.new_records())
}

/// Picks deletes, and lets something happen when one comes.
fn at_deletes(happens: impl Fn() + Send + Sync + 'static) -> impl Fn(&Request) -> bool {
    move |request| {
        let deletes = request.path.ends_with("/bulk/delete");
        if deletes {
            happens();
        }
        deletes
    }
}

/// Picks deletes of the keys of a/i. From the first on, a/i is there again and can't be exported.
fn deletes_of_a_broken_item(world: &World) -> impl Fn(&Request) -> bool + use<> {
    let broken = with(broken("a", "i"), json!({"shop_id": "s.example"}));
    let table = world.stack.table.clone();
    at_deletes(move || table.put(&broken))
}

/// Breaks every look at the table from the first delete on. The deletes meet `delete`, if given.
fn break_looks_after_a_delete(world: &World, look: Fault, delete: Option<Fault>) {
    let table = world.stack.table.clone();
    let deletes = at_deletes(move || table.faults().add(scans(look.clone()).forever()));
    let fault = delete.unwrap_or_else(|| Fault::before(|| {}));
    world.break_kv(Rule::when(deletes, fault).forever());
}

/// Checks that so many keys were put back, as a count and as a warning each.
#[track_caller]
fn assert_put_back(world: &World, answered: &Answered, keys: u64) {
    assert_eq!(answered.stats.deletes_restored, keys);
    let warnings = world.logs.warnings();
    let put_back = |line: &&Value| line["message"].as_str().unwrap().contains("put back");
    let warned = warnings.iter().filter(put_back).count();
    assert_eq!(u64::try_from(warned).unwrap(), keys, "{warnings:?}");
}

#[tokio::test]
async fn where_the_look_after_a_delete_fails_its_values_are_put_back_and_the_record_fails() {
    let time = Duration::from_secs(60);
    for (look, delete, time) in [
        (denied(), None, time),
        (Fault::throttled(), None, time),
        (Fault::WrongJson, None, time),
        // The look takes all the time but what the put-back needs.
        (Fault::Hang, None, Duration::from_secs(8)),
        // A delete whose answer failed counts as sent.
        (denied(), Some(Fault::ApplyThenStatus(500)), time),
        (denied(), Some(Fault::ApplyThenDrop), time),
    ] {
        let world = World::start().await;
        let (before, records) = removal(&world).await;
        break_looks_after_a_delete(&world, look, delete);

        let event = testbed::stream::event(records.clone());
        let answered = world.handle_within(&event, time).await;

        assert_eq!(answered.failures().len(), 1);
        assert_eq!(world.stack.kv.snapshot(SETTINGS), before, "values and metadata");
        let deleted: BTreeSet<String> = world.deletes().into_iter().flatten().collect();
        assert_put_back(&world, &answered, u64::try_from(deleted.len()).unwrap());

        world.stack.kv.faults().clear();
        world.stack.table.faults().clear();
        world.batch_ok(records).await;
        assert_eq!(world.setting_keys(), ["z-other"], "a retry ends it");
    }
}

#[tokio::test]
async fn a_delete_that_was_done_and_whose_next_try_is_refused_is_looked_after_like_any_other() {
    let world = World::with_old_images().await;
    let (before, records) = removal(&world).await;
    world.break_kv(Rule::when(deletes_of_a_broken_item(&world), Fault::ApplyThenStatus(500)));
    // With the token that is held, and with the one that is read again.
    world.break_kv(deletes(Fault::status(403)).times(2));

    let answered = world.batch(records).await;

    assert_eq!(world.stack.kv.snapshot(SETTINGS), before, "values and metadata");
    assert_put_back(&world, &answered, 2);
}

#[tokio::test]
async fn what_was_never_deleted_for_lack_of_time_is_not_put_back_over_what_kv_holds() {
    let one_key_a_request = [("KV_BULK_MAX_PAIRS", "1")];
    let world = World::with(StreamView::NewAndOldImages, PATIENT, &one_key_a_request).await;
    let (before, records) = removal(&world).await;
    let (table, kv) = (world.stack.table.clone(), world.stack.kv.clone());
    let first_delete = at_deletes(move || {
        table.faults().add(scans(denied()).forever());
        kv.put(SETTINGS, "s.example", "another writer's", None);
    });
    world.break_kv(Rule::when(first_delete, Fault::Hang).forever());

    let event = testbed::stream::event(records);
    let answered = world.handle_within(&event, Duration::from_secs(5)).await;

    assert_eq!(answered.failures().len(), 1);
    assert_eq!(world.stack.kv.log_of(KvVerb::DeleteBulk).len(), 1, "no time for the second");
    assert_eq!(world.stack.kv.get(SETTINGS, "s.example").unwrap().value, "another writer's");
    assert_eq!(world.stack.kv.get(SETTINGS, "a-i").as_ref(), before.get("a-i"));
    assert_put_back(&world, &answered, 1);
}

#[tokio::test]
async fn a_deleted_key_that_an_item_asks_for_again_is_written_or_put_back() {
    /// What becomes of the key.
    #[derive(PartialEq)]
    enum Becomes {
        Written,
        PutBackAndFailed,
        PutBack,
    }
    let claim = |account: &str, more: Value| with(shop(account, "new", "s.example"), more);
    for (claim, becomes) in [
        (claim("b", json!({})), Becomes::Written),
        (claim("b", json!({"cell": "down"})), Becomes::PutBackAndFailed),
        (claim("b", json!({"index_endpoint": 7})), Becomes::PutBack),
        (claim("keyless", json!({})), Becomes::PutBack),
    ] {
        let world = World::with_old_images().await;
        let (before, records) = removal(&world).await;
        world.stack.api_keys.break_cell("down", Fault::status(503));
        world.stack.api_keys.remove("keyless");
        let (table, item) = (world.stack.table.clone(), claim.clone());
        let ask = Fault::after(move || table.put(&item));
        world.break_kv(deletes(ask));

        let answered = world.batch(records).await;

        let failed = usize::from(becomes == Becomes::PutBackAndFailed);
        assert_eq!(answered.failures().len(), failed, "{claim}");
        if becomes == Becomes::Written {
            assert_eq!(world.url_under("s.example").unwrap(), "https://new.example.com");
            assert_put_back(&world, &answered, 0);
        } else {
            let now = world.stack.kv.get(SETTINGS, "s.example");
            assert_eq!(now.as_ref(), before.get("s.example"), "{claim}");
            assert_put_back(&world, &answered, 1);
        }
        assert!(world.setting("a-i").is_none(), "nobody asks for it");
    }
}

#[tokio::test]
async fn no_delete_is_sent_where_the_time_left_would_not_hold_another_look_and_a_write() {
    for (time, deleted) in [(5, false), (60, true)] {
        let world = World::start().await;
        let (before, records) = removal(&world).await;
        world.break_table(scans(Fault::Delay(Duration::from_secs(2))).forever());

        let event = testbed::stream::event(records);
        let answered = world.handle_within(&event, Duration::from_secs(time)).await;

        if deleted {
            assert_eq!(answered.failures(), NOTHING);
            assert_eq!(world.setting_keys(), ["z-other"]);
        } else {
            assert_eq!(answered.failures().len(), 1);
            assert!(world.deletes().is_empty());
            assert_eq!(world.stack.kv.snapshot(SETTINGS), before);
        }
    }
}

#[tokio::test]
async fn a_repair_sends_no_delete_either_where_the_time_left_would_not_hold_another_look() {
    let world = World::start().await;
    world.load([index("z", "other")]);
    world.hold(SETTINGS, "z-other", &held_settings("z", "other"), Writer::Ours);
    world.hold(SETTINGS, "a-orphan", &held_settings("a", "orphan"), Writer::Ours);
    // The scan is quick, and each look after it slow.
    let slow = scans(Fault::Delay(Duration::from_secs(2)));
    let listed = world.stack.table.clone();
    let slow = std::sync::Mutex::new(Some(slow.forever()));
    let after_the_listing = Fault::after(move || {
        if let Some(slow) = slow.lock().unwrap().take() {
            listed.faults().add(slow);
        }
    });
    world.break_kv(listings(after_the_listing));

    let answered = world.handle_within(&repair(), Duration::from_secs(5)).await;

    let report = answered.ok();
    assert_eq!(report["settings"]["deleted"], 0, "{report}");
    assert!(report["settings"]["failed"] == 1 || report["complete"] == false, "{report}");
    assert!(world.deletes().is_empty());
    assert!(world.setting("a-orphan").is_some());
}
