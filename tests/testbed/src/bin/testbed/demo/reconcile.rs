//! Drift, found and repaired.

use serde_json::{Value, json};
use testbed::stack::SETTINGS;

use super::stage::{Checked, Demo, index, reads};
use crate::screen::Style;

const LOST: &str = "acme-good";
const STALE: &str = "acme.myshopify.com";
const ORPHAN: &str = "acme-forgotten";
const FOREIGN: &str = "notes";

pub async fn play(demo: &Demo) -> Checked {
    demo.step("9. KV and the table have drifted apart");
    let dangling = json!({"index_aliases": {"doc_reads": reads(true, "acme-nowhere")}});
    demo.carry(|| demo.put(&index("pointing", dangling))).await?;
    plant(demo)?;
    let before = demo.stack.kv.snapshot(SETTINGS);

    let report = reconcile(demo, json!({})).await?;
    counts(demo, &report, &[("missing", 1), ("stale", 1), ("orphaned", 1), ("foreign", 1)])?;
    counts(demo, &report, &[("dangling", 1), ("rejected", 2), ("withheld", 0)])?;
    counts(demo, &report, &[("written", 0), ("deleted", 0), ("failed", 0)])?;
    demo.check("nothing was changed", demo.stack.kv.snapshot(SETTINGS) == before)?;

    demo.step("10. Reconcile repairs it");
    let report = reconcile(demo, json!({"apply": true})).await?;
    counts(demo, &report, &[("written", 2), ("deleted", 1), ("failed", 0)])?;
    demo.exported(SETTINGS, LOST, "reconcile")?;
    let twin = demo.stored(SETTINGS, "acme-products")?.value;
    demo.check(
        "the stale key has the value of the other one",
        demo.stored(SETTINGS, STALE)?.value == twin,
    )?;
    demo.check("the orphan is gone", demo.stack.kv.get(SETTINGS, ORPHAN).is_none())?;
    let foreign = demo.stack.kv.get(SETTINGS, FOREIGN);
    demo.check("the foreign key stays", foreign.as_ref() == before.get(FOREIGN))?;

    demo.step("11. A second run finds nothing more");
    let report = reconcile(demo, json!({"apply": true})).await?;
    counts(demo, &report, &[("missing", 0), ("stale", 0), ("orphaned", 0), ("written", 0)])
}

/// What can go wrong in a namespace.
fn plant(demo: &Demo) -> Checked {
    let kv = &demo.stack.kv;
    kv.delete(SETTINGS, LOST);
    let good = demo.stored(SETTINGS, STALE)?;
    let ours = |digest: &str, index: &str| {
        json!({
            "digest": digest, "exported_at": "2026-01-01T00:00:00Z", "source": "stream",
            "system_account_id": "acme", "index_name": index,
        })
    };
    let older = good.value.replace("\"beta\"", "true");
    kv.put(SETTINGS, STALE, &older, Some(ours(&"0".repeat(64), "products")));
    let forgotten = json!({"system_account_id": "acme", "index_name": "forgotten"}).to_string();
    kv.put(SETTINGS, ORPHAN, &forgotten, Some(ours(&"1".repeat(64), "forgotten")));
    kv.put(SETTINGS, FOREIGN, "somebody else's", None);
    for drift in [
        format!("{LOST} was deleted by hand"),
        format!("{STALE} holds an older version"),
        format!("{ORPHAN} is left over from an index that is gone"),
        format!("{FOREIGN} belongs to somebody else"),
        "acme-pointing has an alias to acme-nowhere, which does not exist".to_owned(),
    ] {
        demo.screen.line(Style::Yellow, "drift", &drift);
    }
    Ok(())
}

async fn reconcile(demo: &Demo, what: Value) -> Result<Value, String> {
    demo.invoke(json!({"reconcile": what})).await?.answer()
}

fn counts(demo: &Demo, report: &Value, expected: &[(&str, u64)]) -> Checked {
    let told: Vec<String> = expected.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let holds = expected.iter().all(|(name, n)| report["settings"][*name] == *n);
    demo.check(&told.join(", "), holds)
}
