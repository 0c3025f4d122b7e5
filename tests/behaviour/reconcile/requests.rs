//! How much a run asks of the table, of KV and of the API keys service.

use std::time::Duration;

use serde_json::json;
use testbed::faults::Fault;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::drift::*;
use crate::helpers::*;

#[tokio::test]
async fn a_missing_key_and_an_orphan_take_three_passes_and_an_audit_without_drift_takes_one() {
    let world = World::start().await;
    let configs = |query: &str| query_config("a", "stays", query, 1);
    let items = [shop("a", "stays", "s.example"), index("a", "orphan"), configs("q"), configs("r")];
    world.settled_with(items).await;

    world.handle(&audit()).await.ok();
    assert_eq!(world.passes(), 1);
    let log = world.stack.table.log();
    assert!(log.iter().all(|request| !request.consistent), "an audit's pass costs half: {log:?}");

    world.stack.kv.delete(SETTINGS, "s.example");
    world.stack.kv.delete(QUERY_CONFIGS, &query_config_key("a", "stays", "q"));
    world.stack.table.delete("a", "INDEX#orphan");
    world.stack.table.delete("a", "INDEX#stays#QUERY#r");
    world.forget();
    world.handle(&audit()).await.ok();
    assert_eq!(world.passes(), 1, "orphans are counted without a look");

    world.forget();
    let report = world.handle(&repair()).await.ok().clone();
    for namespace in ["settings", "query_configs"] {
        assert_eq!(report[namespace]["written"], 1, "{report}");
        assert_eq!(report[namespace]["deleted"], 1, "{report}");
    }
    assert_eq!(world.passes(), 3);
}

#[tokio::test]
async fn a_throttled_page_is_asked_for_again() {
    let world = World::start().await;
    world.load((0..20).map(|number| index(&format!("a{number}"), "i")));
    world.break_table(scans(Fault::throttled()).after(3).times(6));

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(world.setting_keys().len(), 20);
}

#[tokio::test]
async fn a_cell_that_hangs_or_fails_costs_its_own_accounts_only() {
    let world = World::start().await;
    for cell in 1..=5 {
        let account = |name: usize| format!("a{cell}{name}");
        world.load((0..10).map(|name| in_cell(&account(name), "i", &format!("cell-{cell}"))));
    }
    world.stack.api_keys.break_cell("cell-1", Fault::Hang);
    world.stack.api_keys.break_cell("cell-2", Fault::status(503));

    // Each cell that gives nothing is waited for once, for a quarter of the time.
    let answered = world.handle_within(&repair(), Duration::from_secs(10)).await;

    let report = answered.ok();
    assert_eq!(report["settings"]["written"], 30, "{report}");
    assert_eq!(report["settings"]["failed"], 20, "{report}");
    assert_eq!(world.setting_keys().len(), 30);
    let lines = world.logs.warnings();
    assert!(!lines.iter().any(|line| line.to_string().contains("table")), "{lines:?}");
}

#[tokio::test]
async fn while_fewer_than_600_requests_are_left_nothing_is_asked_before_the_reset() {
    let world = World::start().await;
    for number in 0..1_001 {
        world.stack.kv.put(SETTINGS, &format!("stranger-{number:04}"), "x", None);
    }
    world.stack.kv.limit_requests(600, Duration::from_secs(2));

    world.handle(&audit()).await.ok();

    let log = world.stack.kv.log_of(KvVerb::ListKeys);
    assert_eq!(log.len(), 3);
    let waited = log[1].received_at - log[0].received_at;
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
    assert!(log.iter().all(|request| request.status == Some(200)));
}

#[tokio::test]
async fn a_run_that_finds_no_turn_leaves_everything_to_the_next_one() {
    let world = World::start().await;
    world.settled_with([index("a", "i"), query_config("a", "i", "q", 1)]).await;
    world.stack.kv.limit_requests(600, Duration::from_secs(4));
    let short = Duration::from_secs(2);

    let mut payload = audit();
    for (time, settings, query_configs) in [(short, 1, 0), (short, 0, 0), (4 * short, 0, 1)] {
        let report = world.handle_within(&payload, time).await.ok().clone();
        assert_eq!(report["settings"]["listed"], settings, "{report}");
        assert_eq!(report["query_configs"]["listed"], query_configs, "{report}");
        assert_eq!(report["complete"], query_configs == 1, "{report}");
        payload = json!({"reconcile": {"continue": report.get("continue")}});
    }
}

#[tokio::test]
async fn a_run_of_one_account_reads_that_account_alone() {
    let world = World::start().await;
    let items = (0..40).map(|number| shop("b", &format!("i{number}"), &format!("b{number}.shop")));
    let ours = [shop("a", "i", "a.shop"), query_config("a", "i", "q", 1)];
    world.settled_with(items.chain(ours)).await;
    for number in 0..3_000 {
        world.stack.kv.put(SETTINGS, &format!("stranger-{number:04}"), "x", None);
    }

    let report = world.handle(&of_account("a", true)).await.ok().clone();

    assert_eq!(counts(&report, "settings"), json!({"desired": 2, "listed": 2}));
    assert_eq!(counts(&report, "query_configs"), json!({"desired": 1, "listed": 1}));
    let queries: Vec<String> =
        world.stack.kv.log_of(KvVerb::ListKeys).into_iter().map(|request| request.query).collect();
    assert_eq!(queries.len(), 2, "{queries:?}");
    assert!(queries[0].contains("prefix=a-") && queries[1].contains("prefix=qcfg-a-"));
    let read = world.stack.kv.log_of(KvVerb::GetBulk);
    assert_eq!(read.iter().map(|read| read.keys.clone()).collect::<Vec<_>>(), [["a.shop"]]);
    assert_eq!(world.stack.table.operations().keys().collect::<Vec<_>>(), ["Query"]);
}
