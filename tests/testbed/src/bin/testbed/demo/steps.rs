//! The steps of the demo.

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::stack::SETTINGS;

use super::stage::{Checked, Demo, index};
use crate::screen::{Style, plain};

const SHOP: &str = "acme.myshopify.com";
const ID: &str = "acme-products";
/// The index that the alias points at.
const TARGET: &str = "acme-products-v2";

/// The item of most steps, and what they change of it.
fn products(doc_reads: bool, weight: f64, facets: Value) -> Value {
    let target = json!({"index_id": TARGET, "weight": weight});
    let aliases = json!({
        "doc_reads": {"enabled": doc_reads, "targets": [target]},
        "doc_writes": {"enabled": true, "targets": [{"index_id": ID}]},
    });
    let more = json!({
        "shop_id": SHOP, "search_config": {"limit": 24}, "feature_flags": {"facets": facets},
        "index_aliases": aliases, "create_index_config": {"shards": 2},
    });
    index("products", more)
}

pub async fn create(demo: &Demo) -> Checked {
    demo.step(1, "An index is created");
    let item = products(true, 1.0, json!(true));
    let carried = demo.put(&[&index("products-v2", json!({})), &item]).await?;
    let stored = demo.stored(SHOP)?;
    side_by_side(demo, &item, &stored.json());
    demo.in_kv(&format!("under {SHOP} and {ID}, after {}", carried.took));

    // Byte for byte: the order of the fields, and of the keys inside, is part of the contract.
    let expected = concat!(
        r#"{"system_account_id":"acme","index_name":"products","shop_id":"acme.myshopify.com","#,
        r#""marqo_api_key":"key-acme","index_url":"https://products.example.com","#,
        r#""search_config":{"limit":24},"feature_flags":{"facets":true},"#,
        r#""index_aliases":{"doc_reads":{"enabled":true,"#,
        r#""targets":[{"index_id":"acme-products-v2","internal":false,"weight":1.0}]}}}"#,
    );
    demo.check("the value is what the proxy expects, byte for byte", stored.value == expected)?;
    demo.check("the index id has the same value", demo.stored(ID)?.value == expected)?;
    let pairs: Vec<usize> = carried.requests.iter().map(|request| request.keys.len()).collect();
    demo.check("one request wrote all keys", pairs == [3])
}

/// The fields of an item, each beside the field of the value that it becomes.
fn side_by_side(demo: &Demo, item: &Value, value: &Value) {
    let reads = "/index_aliases/doc_reads";
    let dim = |text: &str| demo.screen.paint(Style::Dim, text);
    println!("   {}", dim(&format!("{:<52}{}", "the item in the table", "its value in KV")));
    for (left, right) in [
        ("/pk", "/system_account_id"),
        ("/sk", "/index_name"),
        ("/shop_id", "/shop_id"),
        ("", "/marqo_api_key"),
        ("/index_endpoint", "/index_url"),
        ("/search_config", "/search_config"),
        ("/feature_flags", "/feature_flags"),
        (reads, reads),
        ("/index_aliases/doc_writes", ""),
        ("/create_index_config", ""),
    ] {
        let [left, right] = [(item, left), (value, right)].map(|(object, path)| {
            let name = path.rsplit('/').next().unwrap_or_default();
            let shown = match object.pointer(path).filter(|_| !path.is_empty()) {
                None => String::new(),
                Some(_) if name == "marqo_api_key" => "**** from the account's cell".to_owned(),
                Some(block) if name.starts_with("doc_") => alias(block),
                Some(value) => plain(value),
            };
            format!("{name:<20}{shown}")
        });
        println!("   {}", format!("{left:<52}{right}").trim_end());
    }
}

fn alias(block: &Value) -> String {
    let state = if block["enabled"] == true { "on" } else { "off" };
    format!("{state}, to {}", plain(&block["targets"][0]["index_id"]))
}

pub async fn delete_a_target(demo: &Demo) -> Checked {
    demo.step(2, "The index that the alias points at is deleted by mistake");
    demo.changed(&format!("{TARGET}  there → gone"));
    let carried = demo.carry(|| demo.stack.table.delete("acme", "INDEX#products-v2")).await?;
    demo.check("its key stays", demo.holds(TARGET))?;
    demo.check("nothing was deleted or written", carried.requests.is_empty())?;
    // The key contains the name of the index that points at it, so that mention does not count.
    let told = |text: &String| text.replace(TARGET, "").contains("products");
    demo.check("the log says who points at it", carried.warnings.iter().any(told))?;
    demo.in_kv(&format!("{TARGET} stays: searches of {ID} still go there. The log warns."));
    Ok(())
}

pub async fn switch_off(demo: &Demo) -> Checked {
    demo.step(3, "The alias is switched off, the team's emergency rollback");
    demo.changed("doc_reads.enabled  true → false");
    let carried = demo.put(&[&products(false, 1.0, json!(true))]).await?;
    for key in [SHOP, ID] {
        let doc_reads = &demo.stored(key)?.json()["index_aliases"]["doc_reads"];
        demo.check("the alias is off", doc_reads["enabled"] == false)?;
        demo.check("and keeps its target", doc_reads["targets"][0]["index_id"] == TARGET)?;
    }
    demo.in_kv(&format!("doc_reads.enabled is false under both keys, after {}", carried.took));
    Ok(())
}

pub async fn break_one_of_two(demo: &Demo) -> Checked {
    demo.step(4, "A broken change comes in one batch with a good one");
    demo.changed("doc_reads.targets[0].weight  1 → 7, and a new index acme-outlet");
    let before = demo.stored(SHOP)?;
    let broken = products(false, 7.0, json!(true));
    let carried = demo.put(&[&broken, &index("outlet", json!({}))]).await?;
    demo.check("the broken one leaves KV as it was", demo.stored(SHOP)? == before)?;
    demo.check("the good one is there", demo.stored("acme-outlet").is_ok())?;
    let path = "index_aliases.doc_reads.targets[0].weight";
    demo.check("the log names the field at fault", carried.says(path))?;
    demo.in_kv(&format!("acme-outlet, after {}; acme-products as before", carried.took));
    demo.screen.line(Style::Red, "log", &format!("rejected: {path}"));
    Ok(())
}

pub async fn write_while_kv_fails(demo: &Demo) -> Checked {
    demo.step(5, "KV answers two writes with 503");
    demo.changed("feature_flags.facets  true → \"beta\"");
    demo.stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::status(503)).times(2));
    let carried = demo.put(&[&products(false, 1.0, json!("beta"))]).await?;
    let statuses: Vec<_> = carried.requests.iter().map(|request| request.status).collect();
    demo.check("the third try went through", statuses == [Some(503), Some(503), Some(200)])?;
    let facets = demo.stored(SHOP)?.json()["feature_flags"]["facets"].clone();
    demo.check("KV holds the change", facets == "beta")?;
    demo.in_kv(&format!("\"beta\" by the third try, after {}", carried.took));
    Ok(())
}

pub async fn reconcile(demo: &Demo) -> Checked {
    demo.step(6, "Reconcile compares KV with the table, and repairs it");
    demo.changed(&format!("by hand in KV: {SHOP} deleted, a stranger's key \"notes\" added"));
    demo.stack.kv.delete(SETTINGS, SHOP);
    demo.stack.kv.put(SETTINGS, "notes", "somebody else's", None);
    let began = std::time::Instant::now();
    let audit = demo.invoke(json!({"reconcile": {}})).await?;
    let found = |report: &Value, name: &str| report["settings"][name].as_u64();
    for (class, count) in [("missing", 1), ("orphaned", 1), ("foreign", 1), ("written", 0)] {
        demo.check(&format!("the audit: {class} {count}"), found(&audit, class) == Some(count))?;
    }
    let repair = demo.invoke(json!({"reconcile": {"apply": true}})).await?;
    for (class, count) in [("written", 1), ("deleted", 1), ("failed", 0)] {
        demo.check(&format!("the repair: {class} {count}"), found(&repair, class) == Some(count))?;
    }
    demo.check("the lost key is back", demo.stored(SHOP)?.value == demo.stored(ID)?.value)?;
    demo.check("what nothing points at any more is gone", !demo.holds(TARGET))?;
    demo.check("the stranger's key stays", demo.holds("notes"))?;
    let took = crate::screen::millis(began.elapsed());
    demo.in_kv(&format!("{SHOP} is back; {TARGET}, that no alias needs now, is gone;"));
    demo.screen.line(
        Style::Green,
        "",
        &format!("\"notes\" is not touched. Found and repaired in {took}."),
    );
    Ok(())
}
