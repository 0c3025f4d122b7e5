//! KV may report a key as absent for a minute after it was written. Such a key is deleted, or kept,
//! like any other.

use serde_json::{Value, json};
use testbed::stack::SETTINGS;

use crate::helpers::*;

/// A world whose KV holds these items and still reports every key as absent.
async fn behind(world: World, items: impl IntoIterator<Item = Value>) -> World {
    world.stack.kv.freeze_values(SETTINGS);
    world.settled_with(items).await;
    world
}

#[tokio::test]
async fn a_removal_deletes_the_keys_that_its_records_name_even_if_kv_reports_them_absent() {
    // The old image names the shop id, or an earlier record of the batch does.
    for world in [World::with_old_images().await, World::start().await] {
        let world = behind(world, [shop("a", "i", "s.example"), index("z", "other")]).await;
        world.stack.table.put(&index_with(
            "a",
            "i",
            json!({"shop_id": "s.example", "pixel_id": "2"}),
        ));
        world.stack.table.delete("a", "INDEX#i");

        world.deliver_ok().await;
        assert_eq!(world.setting_keys(), ["z-other"]);
    }
}

#[tokio::test]
async fn an_absent_key_is_kept_if_an_alias_points_at_the_removed_index() {
    let write_alias = |entry: Value| json!({"add_docs_config": {"index_write_aliases": [entry]}});
    let reads = json!({"enabled": true, "targets": [{"index_id": "a-i"}]});
    for alias in [
        json!({"read_alias": "a-i"}),
        json!({"index_aliases": {"doc_reads": reads}}),
        write_alias(json!({"index_id": "a-i"})),
        write_alias(json!({"shop_id": "a-i"})),
        // The value can't be read: its shop id is the one that the images name.
        write_alias(json!({"shop_id": "s.example"})),
    ] {
        let world = behind(World::with_old_images().await, [shop("a", "i", "s.example")]).await;
        let held = world.stack.kv.snapshot(SETTINGS);
        world.load([index_with("b", "live", alias.clone())]);
        world.stack.table.delete("a", "INDEX#i");

        let answered = world.deliver_ok().await;
        assert_eq!(world.stack.kv.snapshot(SETTINGS), held, "{alias}");
        assert_eq!(answered.stats.deletes_withheld, 2, "{alias}");
        assert!(world.deletes().is_empty(), "{alias}");
    }
}

#[tokio::test]
async fn an_absent_shop_id_counts_as_each_removed_index_that_names_it() {
    for (alias, kept) in [
        (json!({"read_alias": "a-one"}), vec!["a-one", "s.example"]),
        (json!({"read_alias": "b-two"}), vec!["b-two", "s.example"]),
        (json!({}), vec![]),
    ] {
        let items = [shop("a", "one", "s.example"), shop("b", "two", "s.example")];
        let world = behind(World::with_old_images().await, items).await;
        world.load([index_with("c", "live", alias.clone())]);
        world.stack.table.delete("a", "INDEX#one");
        world.stack.table.delete("b", "INDEX#two");

        world.deliver_ok().await;
        assert_eq!(world.setting_keys(), kept, "{alias}");
    }
}

#[tokio::test]
async fn what_the_invocation_wrote_itself_is_deleted_even_if_kv_reports_it_absent() {
    let re_export = json!({"system_account_id": "a", "index_name": "i"});
    for payload in [re_export, repair()] {
        for (moves, left) in [(true, vec!["a-i"]), (false, vec![])] {
            let world = World::start().await;
            world.load([shop("a", "i", "old.example"), index("z", "other")]);
            world.stack.kv.freeze_values(SETTINGS);
            let change = world.after(move |table| match moves {
                true => table.put(&shop("a", "i", "new.example")),
                false => table.delete("a", "INDEX#i"),
            });
            world.break_kv(writes(change));

            let answered = world.handle(&payload).await;

            answered.ok();
            let mut keys = world.setting_keys();
            keys.retain(|key| key != "new.example" && key != "z-other");
            assert_eq!(keys, left, "{payload}");
        }
    }
}
