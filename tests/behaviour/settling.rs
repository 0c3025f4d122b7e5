//! Removals and moved shop ids, with the real services.

use serde_json::json;
use testbed::faults::Fault;
use testbed::stack::SETTINGS;

use crate::helpers::*;

#[tokio::test]
async fn a_removal_takes_both_keys_away_whatever_the_stream_carries() {
    // Without old images the key that leads to the shop id is deleted last.
    let one_by_one = vec![vec!["old.example"], vec!["a-old"]];
    for (world, deletes) in [
        (World::start().await, one_by_one),
        (World::with_old_images().await, vec![vec!["a-old", "old.example"]]),
    ] {
        let items = [shop("a", "old", "old.example"), shop("a", "new", "new.example")];
        world.settled_with(items).await;

        world.stack.table.delete("a", "INDEX#old");
        let answered = world.deliver_ok().await;
        assert_eq!(world.setting_keys(), ["a-new", "new.example"]);
        assert_eq!(answered.stats.settings_deleted, 2);
        assert_eq!(world.deletes(), deletes);
    }
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
    assert!(world.deletes().concat().contains(&"acct2-outlet".to_owned()), "{:?}", world.deletes());
    assert_eq!(world.setting_keys(), ["stranger"]);
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

    world.deliver_ok().await;
    assert_eq!(world.setting_keys(), ["a-i", "third.example"]);
}

#[tokio::test]
async fn of_several_claimants_the_one_that_kv_names_keeps_the_key_else_the_first_has_it() {
    for (named, keeps) in [("c", "c"), ("nobody", "b")] {
        let world = World::with_old_images().await;
        world.settled_with([shop("a", "gone", "s.example")]).await;
        let claims = ["c", "b"].map(|account| shop(account, "claim", "s.example"));
        world.load(claims.clone());
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
    world.load([with(shop("a", "i", "s.example"), json!({"pixel_id": "new"}))]);

    world.batch_ok(removal).await;
    for key in ["a-i", "s.example"] {
        assert_eq!(world.setting(key).unwrap()["pixel_id"], "new");
    }
    assert!(world.deletes().is_empty());
}

#[tokio::test]
async fn an_item_that_comes_back_during_its_delete_is_written() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    world.stack.table.delete("a", "INDEX#i");
    let back = world.before(move |table| table.put(&shop("a", "i", "other.example")));
    world.break_kv(deletes(back));

    world.batch_ok(world.new_records()).await;
    assert_eq!(world.setting_keys(), ["a-i"], "its new shop id has a record of its own");
    assert_eq!(world.setting("a-i").unwrap()["shop_id"], "other.example");
}

#[tokio::test]
async fn a_put_back_that_fails_fails_the_record_and_is_logged_as_an_error() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    world.stack.table.delete("a", "INDEX#i");
    let switch_on = world.after(move |table| table.put(&pointing("b", "live", "a-i")));
    world.break_kv(deletes(switch_on));
    world.break_puts(100, Fault::status(500));

    let answered = world.batch(world.new_records()).await;

    assert_eq!(answered.failures().len(), 1);
    let errors = world.logs.at("ERROR");
    assert!(errors.iter().any(|line| line["key"] == "a-i"), "{errors:?}");
    assert_eq!(answered.stats.put_backs_failed, 1);
}

#[tokio::test]
async fn what_settling_wrote_and_then_deleted_is_put_back_as_it_wrote_it() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    world.stack.table.delete("a", "INDEX#i");
    let removal = world.new_records();
    world.load([with(index("a", "i"), json!({"pixel_id": "new"}))]);
    world.break_kv(writes(world.after(|table| table.delete("a", "INDEX#i"))));
    world.break_kv(deletes(world.after(|table| table.put(&pointing("b", "live", "a-i")))));

    let answered = world.batch_ok(removal).await;
    assert_eq!(world.setting("a-i").unwrap()["pixel_id"], "new");
    assert_eq!(answered.stats.deletes_restored, 1);
}

#[tokio::test]
async fn names_that_kv_cannot_hold_are_not_settled() {
    let world = World::start().await;
    let long = "x".repeat(513);

    world.batch_ok([removed(1, "a", &format!("INDEX#{long}"))]).await;
    assert!(world.stack.kv.log().is_empty());
}

#[tokio::test]
async fn a_shop_id_that_moves_to_another_index_in_the_batch_of_its_removal_is_written_once() {
    let world = World::start().await;
    world.settled_with([shop("a", "old", "s.example")]).await;
    world.stack.table.delete("a", "INDEX#old");
    world.load([shop("b", "new", "s.example")]);
    world.forget();

    let records = [written(1, &shop("b", "new", "s.example")), removed(2, "a", "INDEX#old")];
    world.batch_ok(records).await;
    assert_eq!(world.setting_keys(), ["b-new", "s.example"]);
    assert_eq!(world.puts(SETTINGS).len(), 1);
    assert_eq!(world.url_under("s.example").unwrap(), "https://new.example.com");
}
