//! Removals and moved shop ids, with the real services.

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::SETTINGS;
use testbed::table::to_item;

use crate::helpers::*;

fn deletes(world: &World) -> Vec<Vec<String>> {
    world.stack.kv.log_of(KvVerb::DeleteBulk).into_iter().map(|delete| delete.keys).collect()
}

#[tokio::test]
async fn a_removal_takes_both_keys_away_whatever_the_stream_carries() {
    for world in [World::start().await, World::with_old_images().await] {
        world
            .settled_with([shop("a", "old", "old.example"), shop("a", "new", "new.example")])
            .await;

        world.stack.table.delete("a", "INDEX#old");
        let answered = world.deliver().await;

        assert_eq!(answered.failures(), NOTHING);
        assert_eq!(world.setting_keys(), ["a-new", "new.example"]);
        assert_eq!(answered.stats.settings_deleted, 2);
    }
}

#[tokio::test]
async fn the_key_that_leads_to_a_shop_id_is_deleted_last() {
    let world = World::start().await;
    world.settled_with([shop("a", "old", "old.example")]).await;

    world.stack.table.delete("a", "INDEX#old");
    world.deliver().await;

    assert_eq!(deletes(&world), [["old.example"], ["a-old"]]);
}

#[tokio::test]
async fn the_removal_of_what_kv_never_held_is_done() {
    let world = World::start().await;
    world.stack.kv.put(SETTINGS, "stranger", "a stranger's", None);

    for record in
        ["stream-remove.json", "stream-ttl-remove.json", "stream-remove-with-old-image.json"]
    {
        assert_eq!(world.handle(&sample_event(record)).await.failures(), NOTHING);
    }

    // KV's word that a key is absent may be a minute old, so the keys that are named are deleted.
    assert!(
        deletes(&world).iter().flatten().any(|key| key == "acct2-outlet"),
        "{:?}",
        deletes(&world)
    );
    assert_eq!(world.setting_keys(), ["stranger"]);
}

#[tokio::test]
async fn a_shop_id_that_moved_is_settled_where_the_stream_carries_old_images() {
    let world = World::with_old_images().await;
    world.settled_with([shop("a", "i", "old.example")]).await;

    world.stack.table.put(&shop("a", "i", "new.example"));
    let answered = world.deliver().await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["a-i", "new.example"]);
}

#[tokio::test]
async fn the_shop_ids_of_superseded_and_rejected_records_are_settled() {
    let world = World::start().await;
    for key in ["first.example", "second.example", "broken.example"] {
        let value = json!({"system_account_id": "a", "index_name": "i", "marqo_api_key": "k"});
        world.stack.kv.put(SETTINGS, key, &value.to_string(), None);
    }
    let broken = index_with("a", "i", json!({"shop_id": "broken.example", "pixel_id": 1}));
    world.stack.table.put(&shop("a", "i", "first.example"));
    world.stack.table.put(&shop("a", "i", "second.example"));
    world.stack.table.put(&broken);
    world.stack.table.put(&shop("a", "i", "third.example"));

    let answered = world.deliver().await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["a-i", "third.example"]);
}

#[tokio::test]
async fn a_shop_id_that_another_item_asks_for_is_written_for_that_one() {
    let world = World::start().await;
    world.settled_with([shop("b", "two", "s.example"), shop("a", "one", "s.example")]).await;
    assert_eq!(world.url_under("s.example").unwrap(), "https://one.example.com");

    world.stack.table.delete("a", "INDEX#one");
    let answered = world.deliver().await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["b-two", "s.example"]);
    assert_eq!(world.url_under("s.example").unwrap(), "https://two.example.com");
}

#[tokio::test]
async fn of_several_claimants_the_one_that_kv_names_keeps_the_key_else_the_first_has_it() {
    for (named, keeps) in [("c", "c"), ("nobody", "b")] {
        let world = World::with_old_images().await;
        world.settled_with([shop("a", "gone", "s.example")]).await;
        let claims = ["c", "b"].map(|account| shop(account, "claim", "s.example"));
        world.stack.table.load(claims.iter().map(to_item));
        let value = json!({"system_account_id": named, "index_name": "claim"});
        world.stack.kv.put(SETTINGS, "s.example", &value.to_string(), None);

        world.stack.table.delete("a", "INDEX#gone");
        world.deliver().await;

        assert_eq!(world.setting("s.example").unwrap()["system_account_id"], keeps);
        assert_eq!(world.setting("s.example").unwrap()["marqo_api_key"], format!("key-{keeps}"));
    }
}

#[tokio::test]
async fn an_item_that_is_there_again_is_written_from_the_table() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    world.stack.table.delete("a", "INDEX#i");
    let removal = world.new_records();
    world.stack.table.put(&index_with(
        "a",
        "i",
        json!({"pixel_id": "new", "shop_id": "s.example"}),
    ));

    let answered = world.batch(removal).await;

    assert_eq!(answered.failures(), NOTHING);
    for key in ["a-i", "s.example"] {
        assert_eq!(world.setting(key).unwrap()["pixel_id"], "new");
    }
    assert!(deletes(&world).is_empty());
}

#[tokio::test]
async fn an_item_that_comes_back_during_its_delete_is_written() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    world.stack.table.delete("a", "INDEX#i");
    let table = world.stack.table.clone();
    let back = move || table.put(&shop("a", "i", "other.example"));
    world.stack.kv.faults().add(Rule::on("POST", "/bulk/delete", Fault::before(back)));

    let answered = world.batch(world.new_records()).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["a-i"], "its new shop id has a record of its own");
    assert_eq!(world.setting("a-i").unwrap()["shop_id"], "other.example");
}

#[tokio::test]
async fn a_key_whose_alias_is_switched_on_during_its_delete_is_put_back_as_it_was() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    let before = world.stack.kv.snapshot(SETTINGS);
    world.stack.table.delete("a", "INDEX#i");
    let table = world.stack.table.clone();
    let switch_on = move || table.put(&index_with("b", "live", json!({"read_alias": "a-i"})));
    let rule = Rule::on("POST", "/bulk/delete", Fault::after(switch_on)).after(1);
    world.stack.kv.faults().add(rule);

    let answered = world.batch(world.new_records()).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.stack.kv.snapshot(SETTINGS), before, "value and metadata");
    assert_eq!(answered.stats.deletes_restored, 2);
    let warnings = world.logs.warnings();
    let put_back = |line: &&Value| line["message"].as_str().unwrap().contains("put back");
    assert_eq!(warnings.iter().filter(put_back).count(), 2, "{warnings:?}");
}

#[tokio::test]
async fn a_put_back_that_fails_fails_the_record_and_is_logged_as_an_error() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    world.stack.table.delete("a", "INDEX#i");
    let table = world.stack.table.clone();
    let switch_on = move || table.put(&index_with("b", "live", json!({"read_alias": "a-i"})));
    world.stack.kv.faults().add(Rule::on("POST", "/bulk/delete", Fault::after(switch_on)));
    world.break_puts(100, Fault::status(500));

    let answered = world.batch(world.new_records()).await;

    assert_eq!(answered.failures().len(), 1);
    let lines = world.logs.lines();
    let error = |line: &Value| line["level"] == "ERROR" && line["key"] == "a-i";
    assert!(lines.iter().any(error), "{lines:?}");
}

#[tokio::test]
async fn a_table_that_changes_at_every_look_fails_the_record_after_five_rounds() {
    let world = World::start().await;
    world.settled_with([shop("b", "two", "s.example"), shop("a", "one", "s.example")]).await;
    world.stack.table.delete("a", "INDEX#one");
    let records = world.new_records();
    let table = world.stack.table.clone();
    let version = std::sync::atomic::AtomicU32::new(0);
    let change = move || {
        let version = version.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let pixel = json!({"shop_id": "s.example", "pixel_id": version.to_string()});
        table.put(&index_with("b", "two", pixel));
    };
    world.stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::after(change)).forever());

    let answered = world.batch(records).await;

    assert_eq!(answered.failures().len(), 1);
    assert_eq!(world.puts_done(SETTINGS).len(), 5);
}

#[tokio::test]
async fn names_that_kv_cannot_hold_are_not_settled() {
    let world = World::start().await;
    let long = "x".repeat(513);

    let answered = world.batch([removed(1, "a", &format!("INDEX#{long}"))]).await;

    assert_eq!(answered.failures(), NOTHING);
    assert!(world.stack.kv.log().is_empty());
}

#[tokio::test]
async fn a_shop_id_that_moves_to_another_index_in_the_batch_of_its_removal_is_written_once() {
    let world = World::start().await;
    world.settled_with([shop("a", "old", "s.example")]).await;
    world.stack.table.delete("a", "INDEX#old");
    world.stack.table.load([to_item(&shop("b", "new", "s.example"))]);
    world.forget();

    let records = [written(1, &shop("b", "new", "s.example")), removed(2, "a", "INDEX#old")];
    let answered = world.batch(records).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["b-new", "s.example"]);
    assert_eq!(world.puts(SETTINGS).len(), 1);
    assert_eq!(world.url_under("s.example").unwrap(), "https://new.example.com");
}
