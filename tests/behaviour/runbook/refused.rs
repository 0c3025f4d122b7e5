//! Symptoms: a repair that would do more than it may, and keys of another environment.

use serde_json::{Value, json};
use testbed::proxy::digest;
use testbed::stack::SETTINGS;
use testbed::table::to_item;

use super::practice::*;
use super::query::*;
use crate::helpers::*;

/// More indexes than one run may delete the keys of.
fn shops() -> Vec<Value> {
    (0..60).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example"))).collect()
}

impl Practice {
    /// A table with these items, and a KV that is equal to it.
    async fn filled(items: &[Value]) -> Self {
        let practice = Self::start().await;
        practice.load(items);
        assert_eq!(practice.repair().await["complete"], true);
        practice
    }

    /// Puts items past the stream, as a restore does.
    fn load(&self, items: &[Value]) {
        self.stack.table.load(items.iter().map(to_item));
    }

    /// Removes items past the stream, which nothing reads here.
    fn lose(&self, items: &[Value]) {
        for item in items {
            self.stack.table.delete(item["pk"].as_str().unwrap(), item["sk"].as_str().unwrap());
        }
    }

    /// Runs a repair that must refuse so many deletes and change nothing. Returns its reason, as
    /// the query `errors` finds it.
    async fn refused(&self, fields: Value, deletes: u64) -> String {
        let before = self.stack.kv.snapshot(SETTINGS);
        let report = self.reconcile(fields).await;
        assert_eq!(report["refused"], json!({"delete": deletes, "rewrite": 0}), "{report}");
        assert_eq!(report["complete"], false);
        assert_eq!(self.stack.kv.snapshot(SETTINGS), before);
        let found = self.ask(&query("errors"));
        let message = found.last().unwrap()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("repair refused"), "{message}");
        message
    }
}

#[tokio::test]
async fn repair_refused_because_the_table_was_emptied_or_half_restored() {
    let items = shops();
    let practice = Practice::filled(&items).await;
    practice.lose(&items);

    let says = "the table has no index item";
    for fields in [json!({"apply": true}), json!({"apply": true, "delete_up_to": 120})] {
        let reason = practice.refused(fields, 120).await;
        assert!(reason.contains(says), "{reason}");
    }
    practice.load(&items[..5]);
    let reason = practice.refused(json!({"apply": true}), 110).await;
    assert!(!reason.contains(says) && reason.contains("delete_up_to"), "{reason}");
    let audit = practice.audit().await;
    assert_eq!(
        (&audit["settings"]["desired"], &audit["settings"]["listed"]),
        (&json!(10), &json!(120))
    );

    practice.load(&items[5..]);
    let audit = practice.audit().await;
    assert_eq!(audit.get("refused"), None);
    practice.assert_equal(&audit);
}

#[tokio::test]
async fn repair_refused_because_the_namespace_is_another_environments() {
    let practice = Practice::filled(&[index("a", "i")]).await;
    // Filled by an earlier version, whose metadata names no environment.
    for n in 0..101 {
        let name = format!("i{n}");
        let value = held_settings("z", &name).to_string();
        let metadata = json!({
            "digest": digest(&value), "exported_at": "2026-01-01T00:00:00Z", "source": "stream",
            "system_account_id": "z", "index_name": name,
        });
        practice.stack.kv.put("others", &format!("z-{name}"), &value, Some(metadata));
    }
    let env = [("CLOUDFLARE_KV_NAMESPACE_ID", "others")];
    let wrong = Practice::on(practice.stack.clone(), &env).await;

    let report = wrong.repair().await;

    assert_eq!(report["refused"], json!({"delete": 101, "rewrite": 0}));
    assert_eq!(practice.stack.kv.keys("others").len(), 102, "all of theirs, and the missing one");
    practice.assert_equal(&practice.audit().await);
}

#[tokio::test]
async fn repair_refused_and_let_through_with_the_numbers_of_an_audit() {
    let items = shops();
    let practice = Practice::filled(&items).await;
    // Removed on purpose, while the stream was off.
    practice.lose(&items[5..]);
    practice.refused(json!({"apply": true}), 110).await;

    let audit = practice.audit().await;
    assert_eq!(audit["refused"], json!({"delete": 110, "rewrite": 0}));
    assert_eq!(practice.reconcile(json!({"delete_up_to": 110})).await.get("refused"), None);
    practice.lose(&items[4..5]);
    practice.refused(json!({"apply": true, "delete_up_to": 110}), 112).await;
    practice.load(&items[4..5]);
    let report = practice.reconcile(json!({"apply": true, "delete_up_to": 110})).await;

    assert_eq!((&report["settings"]["deleted"], &report["complete"]), (&json!(110), &json!(true)));
    assert_eq!(practice.stack.kv.keys(SETTINGS).len(), 10);
    practice.assert_equal(&practice.audit().await);
}
