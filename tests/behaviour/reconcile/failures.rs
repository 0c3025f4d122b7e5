//! Services that fail while a reconcile runs.

use testbed::faults::Fault;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::*;

#[tokio::test]
async fn without_api_keys_nothing_is_harmed_and_the_rest_is_mended() {
    let world = World::start().await;
    let items = [shop("a", "i", "s.example"), query_config("a", "i", "q", 1), index("a", "lost")];
    world.settled_with(items).await;
    edit(&world, SETTINGS, "a-i", true);
    world.stack.kv.delete(SETTINGS, "a-lost");
    world.stack.kv.delete(QUERY_CONFIGS, &query_config_key("a", "i", "q"));
    let held = world.stack.kv.snapshot(SETTINGS);
    world.load([in_cell("b", "new", "up")]);
    world.break_api_keys(Fault::status(503));

    let report = world.report(&repair()).await;

    let classes = ["missing", "stale", "written", "failed"];
    assert_eq!(classes.map(|class| &report["settings"][class]), [1, 0, 1, 3], "{report}");
    assert_eq!(report["query_configs"]["written"], 1);
    assert!(world.setting("b-new").is_some());
    let now = world.stack.kv.snapshot(SETTINGS);
    assert!(held.iter().all(|(key, stored)| now.get(key) == Some(stored)));
    assert_eq!(world.logs.warnings().len(), 1, "{:?}", world.logs.warnings());

    world.stack.api_keys.faults().clear();
    world.report(&repair()).await;
    assert_eq!(world.handle(&audit()).await.found("DriftedKeys"), Some(0));
}

#[tokio::test]
async fn a_cell_that_gave_three_accounts_nothing_is_not_asked_again() {
    let world = World::impatient().await;
    world.load((0..10).map(|n| in_cell(&format!("hangs{n}"), "i", "hangs")));
    world.load((0..10).map(|n| in_cell(&format!("fails{n}"), "i", "fails")));
    world.load((0..10).map(|n| index(&format!("a{n}"), "i")));
    world.stack.api_keys.break_cell("hangs", Fault::Hang);
    world.stack.api_keys.break_cell("fails", Fault::status(503));

    let report = world.report(&repair()).await;

    assert_eq!(report["settings"]["written"], 10, "{report}");
    assert_eq!(report["settings"]["failed"], 20, "{report}");
    let log = world.stack.api_keys.log();
    let asked = |cell: &str| -> BTreeSet<&str> {
        log.iter().filter(|call| call.cell == cell).map(|call| call.account.as_str()).collect()
    };
    assert!(asked("fails").len() < 10, "{:?}", asked("fails"));
    assert!(asked("hangs").len() < 10, "{:?}", asked("hangs"));
}
