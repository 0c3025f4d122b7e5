//! A flood of removals is held: none of its keys is deleted, and everything else of the batch is done.

use serde_json::{Value, json};

use crate::helpers::*;

/// A world that removes three indexes in ten minutes, and from whose table five are gone.
async fn world() -> World {
    let world = World::with_env(&[("REMOVALS_UP_TO", "3")]).await;
    let items = || (1..=5).map(|n| index("a", &format!("i{n}")));
    world.settled_with(items()).await;
    items().for_each(|item| world.remove(&item));
    world
}

fn removal(n: u32) -> Value {
    removed(n, "a", &format!("INDEX#i{n}"))
}

/// The items that the error line names.
fn named(world: &World) -> Vec<String> {
    let [line] = &world.logs.at("ERROR")[..] else { panic!("{}", world.logs.text()) };
    serde_json::from_str(line["items"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_batch_that_would_go_beyond_holds_all_its_removals_and_does_the_rest() {
    let world = world().await;
    world.load([index("a", "new")]);
    let records = [
        removal(1),
        written(6, &index("a", "new")),
        removal(2),
        removal(3),
        removal(4),
        removed(7, "a", "INDEX#i1#QUERY#q"),
    ];

    let answered = world.batch_ok(records).await;

    assert_eq!(world.setting_keys(), ["a-i1", "a-i2", "a-i3", "a-i4", "a-i5", "a-new"]);
    assert_eq!(answered.counted("RemovalsHeld"), 4);
    assert_eq!(answered.counted("RecordsExported"), 2);
    assert_eq!(world.logs.at("ERROR")[0]["removals"], json!(4));
    assert_eq!(named(&world), ["a/i1", "a/i2", "a/i3", "a/i4"]);

    world.report(&repair()).await;
    assert_eq!(world.setting_keys(), ["a-new"], "a reconcile's orphans");
}

#[tokio::test]
async fn a_removal_that_would_delete_nothing_does_not_count() {
    let world = world().await;
    world.load([pointing("z", "live", "a-i1"), index("a", "i2")]);
    let unknown = (10..20).map(|n| removed(n, "a", &format!("INDEX#unknown{n}")));

    let removals = (1..=5).map(removal).chain(unknown);
    let answered = world.batch_ok(removals).await;

    assert_eq!(answered.counted("RemovalsHeld"), 0);
    assert_eq!(world.setting_keys(), ["a-i1", "a-i2"], "a withheld key, and an item that is back");
}
