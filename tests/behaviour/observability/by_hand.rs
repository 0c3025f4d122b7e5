//! Re-exports and reconciles.

use std::collections::BTreeMap;

use serde_json::json;
use testbed::faults::Fault;
use testbed::stack::{DEFAULT_CELL, SETTINGS};
use testbed::table::to_item;

use super::lines::fields;
use crate::helpers::*;
use crate::printed::Printed;
use crate::process;

#[tokio::test]
async fn a_re_export_is_one_line_and_a_failed_one_two() {
    let stack = process::stack().await;
    stack.table.put(&shop("a", "i", "s.example"));
    let function = process::function(&stack, &[]).await;
    let payload = |name| json!({"system_account_id": "a", "index_name": name});

    let exported = Printed::by(&process::invoke(&function, &payload("i")).await);
    let missing = process::invoke(&function, &payload("missing")).await;
    let refused = process::invoke(&function, &json!({"anything": "else"})).await;

    assert_eq!(exported.lines.len(), 1, "{:?}", exported.lines);
    assert_eq!(exported.invocation()["source"], "re-export");
    assert_eq!(
        exported.counts(),
        BTreeMap::from([
            ("CloudflareKvRequests", 1.0),
            ("CloudflareKvRequestsUnpaced", 1.0),
            ("ColdStarts", 1.0),
            ("SettingsKeysWritten", 2.0),
        ])
    );
    for (invocation, kind, source) in
        [(missing, "IndexNotFound", "re-export"), (refused, "InvalidPayload", "invalid")]
    {
        let failure = invocation.result.as_ref().unwrap_err();
        assert_eq!(failure.error_type, kind);
        let printed = Printed::by(&invocation);
        assert_eq!(
            fields(printed.invocation(), &["source", "outcome"]),
            json!({"source": source, "outcome": kind})
        );
        let [failed] = printed.at("ERROR")[..] else { panic!("once: {:?}", printed.lines) };
        assert_eq!(
            fields(failed, &["message", "error_type", "error"]),
            json!({
                "message": "invocation failed", "error_type": kind,
                "error": failure.error_message,
            })
        );
        assert_eq!(printed.lines.len(), 2, "{:?}", printed.lines);
    }
}

#[tokio::test]
async fn every_reconcile_tells_its_drift_also_when_there_is_none() {
    let stack = process::stack().await;
    let item = index_with("a", "i", json!({"shop_id": "s.example", "read_alias": "z-gone"}));
    stack.table.load([to_item(&item), to_item(&query_config("a", "i", "q", 1))]);
    stack.kv.put(
        SETTINGS,
        "a-orphan",
        r#"{"system_account_id":"a","index_name":"orphan"}"#,
        Some(json!({
            "digest": "", "exported_at": "", "source": "stream", "system_account_id": "a",
            "index_name": "orphan",
        })),
    );
    let function = process::function(&stack, &[]).await;
    let mut runs = Vec::new();
    for apply in [false, true, false] {
        runs.push(process::invoke(&function, &json!({"reconcile": {"apply": apply}})).await);
    }

    let [audited, repaired, again] = [0, 1, 2].map(|run: usize| Printed::by(&runs[run]));
    for (printed, drifted) in [(&audited, 4.0), (&repaired, 4.0), (&again, 0.0)] {
        assert_eq!(printed.counts()["DriftedKeys"], drifted);
        assert_eq!(printed.counts()["DanglingAliases"], 1.0);
        assert_eq!(printed.counts()["ReconcileKeysFailed"], 0.0);
        let missing = if drifted > 0.0 { 100.0 } else { 0.0 };
        assert_eq!(printed.counts()["KeysMissingPercent"], missing);
        assert_eq!(printed.counts()["ItemsRejectedPercent"], 0.0);
        assert_eq!(printed.invocation()["source"], "reconcile");
        assert_eq!(printed.invocation()["complete"], true);
        // The warning names what dangles.
        let [warning] = printed.at("WARN")[..] else { panic!("{:?}", printed.lines) };
        assert_eq!(warning["examples"], "z-gone");
        assert_eq!(printed.lines.len(), 2, "{:?}", printed.lines);
    }
    assert_eq!(
        fields(
            audited.invocation(),
            &["missing", "stale", "orphaned", "keys_failed", "drifted_keys", "foreign"]
        ),
        json!({"missing": 3, "stale": 0, "orphaned": 1, "keys_failed": 0, "drifted_keys": 4, "foreign": 0})
    );
    for (name, count) in [("ItemsRejected", 0.0), ("KeysConflicting", 0.0), ("KeysWithheld", 0.0)] {
        assert_eq!(audited.counts()[name], count, "{name}");
    }
    let counts = repaired.counts();
    assert_eq!(counts["SettingsKeysWritten"], 2.0);
    assert_eq!(counts["QueryConfigKeysWritten"], 1.0);
    assert_eq!(counts["SettingsKeysDeleted"], 1.0);

    stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(403));
    let unjudged = Printed::by(&process::invoke(&function, &audit()).await);
    let counts = unjudged.counts();
    assert_eq!((counts["ReconcileKeysFailed"], counts["DriftedKeys"]), (2.0, 0.0));
    assert_eq!(unjudged.invocation()["keys_failed"], 2);
    stack.api_keys.faults().clear();

    // Drift that is found but can't be repaired.
    stack.kv.delete(SETTINGS, "a-i");
    stack.kv.faults().add(writes(Fault::status(500)).forever());
    let unmended = Printed::by(&process::invoke(&function, &repair()).await);
    let counts = unmended.counts();
    assert_eq!((counts["ReconcileKeysFailed"], counts["DriftedKeys"]), (1.0, 1.0));

    stack.kv.faults().add(listings(Fault::status(500)).forever());
    let failed = Printed::by(&process::invoke(&function, &audit()).await);
    for name in ["DriftedKeys", "ReconcileKeysFailed"] {
        assert!(!failed.metrics.contains_key(name), "{name} is not known");
    }
    assert_eq!(failed.invocation()["outcome"], "ReconcileIncomplete");
    assert_eq!(failed.at("ERROR").len(), 1, "{:?}", failed.lines);
}

#[tokio::test]
async fn a_reconcile_of_one_account_and_a_dry_run_say_nothing_of_the_fleet() {
    let stack = process::stack().await;
    let broken = broken("a", "broken");
    let items = [shop("a", "i", "s.example"), shop("a", "j", "s.example"), broken];
    stack.table.load(items.iter().map(to_item));
    let function = process::function(&stack, &[]).await;
    let dry = process::function(&stack, &[("CLOUDFLARE_ACCOUNT_ID", "")]).await;
    let fleet = [
        "DriftedKeys",
        "DanglingAliases",
        "ItemsRejected",
        "KeysConflicting",
        "KeysMissingPercent",
        "ItemsRejectedPercent",
        "KeysWithheld",
        "ReconcileKeysFailed",
    ];
    let account = of_account("a", false);
    let whole = audit();

    for (function, payload, reported) in
        [(&function, &account, false), (&dry, &whole, false), (&function, &whole, true)]
    {
        let printed = Printed::by(&process::invoke(function, payload).await);
        for name in fleet {
            assert_eq!(printed.metrics.contains_key(name), reported, "{name} by {payload}");
        }
        if reported {
            let counts = printed.counts();
            assert_eq!((counts["ItemsRejected"], counts["KeysConflicting"]), (1.0, 1.0));
        }
    }
}
