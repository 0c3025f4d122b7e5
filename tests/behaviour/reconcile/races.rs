//! The table and KV change while a reconcile runs. The simulation plays all orders; here is what is seen
//! on the wire.

use serde_json::json;
use testbed::stack::SETTINGS;

use super::*;

/// A version of an index, each with another address.
fn version(number: u32) -> Value {
    let address = json!({"index_endpoint": format!("https://v{number}.example.com")});
    with(shop("a", "i", "s.example"), address)
}

#[tokio::test]
async fn a_change_between_the_pass_and_the_write_is_not_left_overwritten() {
    for (moment, puts) in [("before the read", 1), ("before the write", 2), ("after the write", 2)]
    {
        let _row = row(moment);
        let world = World::start().await;
        world.load([version(1), query_config("a", "i", "q", 1)]);
        let change = |table: &testbed::table::Table| {
            table.put(&version(2));
            table.put(&query_config("a", "i", "q", 2));
        };
        match moment {
            "before the read" => world.break_table(item_reads(world.before(change))),
            "before the write" => world.break_kv(writes(world.before(change))),
            _ => world.break_kv(writes(world.after(change))),
        }

        let report = world.report(&repair()).await;

        for key in ["a-i", "s.example"] {
            assert_eq!(world.url_under(key).unwrap(), "https://v2.example.com", "{key}");
        }
        assert_eq!(world.query_config("a", "i", "q").unwrap()["boost"], 2);
        assert_eq!(world.pairs_done(SETTINGS).len(), puts);
        assert_eq!(
            (&report["settings"]["written"], &report["settings"]["failed"]),
            (&json!(2), &json!(0))
        );
    }
}
