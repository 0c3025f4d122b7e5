//! Re-exports and reconciles.

use std::collections::BTreeMap;

use serde_json::json;
use testbed::faults::{Fault, Rule};
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
        BTreeMap::from([("ColdStarts", 1.0), ("SettingsKeysWritten", 2.0)])
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

    let [audit, repair, again] = [0, 1, 2].map(|run: usize| Printed::by(&runs[run]));
    for (printed, drifted) in [(&audit, 4.0), (&repair, 4.0), (&again, 0.0)] {
        assert_eq!(printed.counts()["DriftedKeys"], drifted);
        assert_eq!(printed.counts()["DanglingAliases"], 1.0);
        assert_eq!(printed.counts()["ReconcileKeysFailed"], 0.0);
        assert_eq!(printed.invocation()["source"], "reconcile");
        assert_eq!(printed.invocation()["complete"], true);
        // The warning names what dangles.
        let [warning] = printed.at("WARN")[..] else { panic!("{:?}", printed.lines) };
        assert_eq!(warning["examples"], "z-gone");
        assert_eq!(printed.lines.len(), 2, "{:?}", printed.lines);
    }
    assert_eq!(
        fields(
            audit.invocation(),
            &["missing", "stale", "orphaned", "keys_failed", "drifted_keys"]
        ),
        json!({"missing": 3, "stale": 0, "orphaned": 1, "keys_failed": 0, "drifted_keys": 4})
    );
    let counts = repair.counts();
    assert_eq!(counts["SettingsKeysWritten"], 2.0);
    assert_eq!(counts["QueryConfigKeysWritten"], 1.0);
    assert_eq!(counts["SettingsKeysDeleted"], 1.0);

    stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(403));
    let unjudged = Printed::by(&process::invoke(&function, &json!({"reconcile": {}})).await);
    let counts = unjudged.counts();
    assert_eq!((counts["ReconcileKeysFailed"], counts["DriftedKeys"]), (2.0, 0.0));
    assert_eq!(unjudged.invocation()["keys_failed"], 2);
    stack.api_keys.faults().clear();

    // Drift that is found but can't be repaired.
    stack.kv.delete(SETTINGS, "a-i");
    stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::status(500)).forever());
    let payload = json!({"reconcile": {"apply": true}});
    let unmended = Printed::by(&process::invoke(&function, &payload).await);
    let counts = unmended.counts();
    assert_eq!((counts["ReconcileKeysFailed"], counts["DriftedKeys"]), (1.0, 1.0));

    stack.kv.faults().add(Rule::on("GET", "/keys", Fault::status(500)).forever());
    let failed = Printed::by(&process::invoke(&function, &json!({"reconcile": {}})).await);
    for name in ["DriftedKeys", "ReconcileKeysFailed"] {
        assert!(!failed.metrics.contains_key(name), "{name} is not known");
    }
    assert_eq!(failed.invocation()["outcome"], "ReconcileIncomplete");
    assert_eq!(failed.at("ERROR").len(), 1, "{:?}", failed.lines);
}
