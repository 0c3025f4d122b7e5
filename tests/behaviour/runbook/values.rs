//! Symptoms: a value in KV is not what the table asks for.

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::stack::{DEFAULT_CELL, QUERY_CONFIGS, SETTINGS};
use testbed::table::to_item;

use super::practice::*;
use super::query::*;
use crate::helpers::*;
use crate::printed::Printed;

#[tokio::test]
async fn settings_not_reaching_the_proxy() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.stack.api_keys.remove("keyless");
    let wrong_key =
        json!({"pk": "a", "sk": "index#small", "index_endpoint": "https://x.example.com"});
    practice
        .put(
            &poller,
            [
                shop("a", "i", "s.example"),
                index_with("a", "i", json!({"shop_id": "s.example", "index_endpoint": "nonsense"})),
                index("keyless", "i"),
                wrong_key,
            ],
        )
        .await;

    let lines = practice.ask(&query("index").about("a", "i"));
    let line = lines.iter().find(|line| line["message"] == "record rejected").expect("its line");
    assert_eq!(line["path"], "index_endpoint");
    assert!(practice.setting("a-i").is_some(), "KV keeps what it had");
    let [line] = &practice.ask(&query("index").about("keyless", "i"))[..] else { panic!("one") };
    assert_eq!(line["path"], "system_account_id");
    assert!(practice.ask(&query("index").about("a", "small")).is_empty(), "nothing at all");
    assert_eq!(practice.re_export("a", "small").await.unwrap_err().error_type, "IndexNotFound");
    let rejected = practice.re_export("a", "i").await.unwrap_err();
    assert_eq!(rejected.error_type, "RecordRejected");
    assert!(rejected.error_message.contains("index_endpoint"), "{rejected}");

    practice
        .put(&poller, [index_with("a", "i", json!({"shop_id": "s.example", "pixel_id": "new"}))])
        .await;
    assert_eq!(practice.setting("s.example").unwrap()["pixel_id"], "new");
    practice.stack.api_keys.set("keyless", "made");
    assert_eq!(practice.re_export("keyless", "i").await.unwrap()["outcome"], "exported");
    assert_eq!(practice.setting("keyless-i").unwrap()["marqo_api_key"], "made");
}

#[tokio::test]
async fn stale_after_an_update() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.put(&poller, [shop("a", "i", "s.example"), shop("b", "j", "t.example")]).await;
    let old = practice.stack.kv.snapshot(SETTINGS);
    let switched_off = json!({"shop_id": "s.example", "index_aliases": {"doc_reads": {"enabled": false, "targets": [{"index_id": "a-v2"}]}}});
    practice.put(&poller, [index_with("a", "i", switched_off)]).await;
    // A write of the previous version lands late, and the cell's gateway is down.
    for (key, stored) in old {
        practice.stack.kv.put(SETTINGS, &key, &stored.value, stored.metadata);
    }
    practice.stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(503));

    let report = practice.re_export("a", "i").await.unwrap();

    assert_eq!(report["outcome"], "exported");
    let value = practice.setting("s.example").unwrap();
    assert_eq!(value["index_aliases"]["doc_reads"]["enabled"], false);
    assert_eq!(value["marqo_api_key"], "key-a", "the key that KV holds");
    practice.stack.api_keys.faults().clear();

    // Two items ask for one shop id.
    practice.put(&poller, [shop("b", "j", "s.example")]).await;
    practice.put(&poller, [shop("b", "j", "s.example"), shop("a", "i", "s.example")]).await;
    assert_eq!(practice.audit().await["examples"]["conflicting"], json!(["s.example"]));
    practice.put(&poller, [shop("b", "j", "t.example")]).await;
    assert_eq!(practice.audit().await["settings"]["conflicting"], 0);

    // A shop id that changed, with a stream of new images only.
    practice.put(&poller, [shop("b", "j", "u.example")]).await;
    assert!(practice.setting("t.example").is_some());
    practice.repair_account("b").await;
    assert!(practice.setting("t.example").is_some(), "nothing of the account names it any more");
    practice.repair().await;
    assert!(practice.setting("t.example").is_none());
    practice.assert_equal(&practice.audit().await);
}

#[tokio::test]
async fn an_api_key_missing_or_old_in_kv() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.put(&poller, [index("a", "i"), index("a", "j"), index("b", "i")]).await;
    practice.stack.api_keys.set("a", "rotated");
    assert_eq!(practice.setting("a-i").unwrap()["marqo_api_key"], "key-a");

    let report = practice.repair_account("a").await;

    assert_eq!(report["settings"]["written"], 2);
    for key in ["a-i", "a-j"] {
        assert_eq!(practice.setting(key).unwrap()["marqo_api_key"], "rotated");
    }
}

#[tokio::test]
async fn query_overrides_not_working() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    let overrides = ["red running shoes", "gone"].map(|query| query_config("a", "i", query, 1));
    practice.put(&poller, overrides.into_iter().chain([index("a", "i")])).await;
    let key = query_config_key("a", "i", "red running shoes");
    assert!(practice.stack.kv.delete(QUERY_CONFIGS, &key));

    let payload = re_export_all("a", "i");
    let report = practice.invoke(payload).await.unwrap();
    assert_eq!(report["query_configs"], json!({"exported": 2, "rejected": 0}));
    assert!(practice.stack.kv.get(QUERY_CONFIGS, &key).is_some());

    // The key exists, the item does not.
    drop(poller);
    practice.stack.table.delete("a", "INDEX#i#QUERY#gone");
    practice.repair_account("a").await;
    assert_eq!(practice.stack.kv.keys(QUERY_CONFIGS), [key]);
}

#[tokio::test]
async fn an_index_removed_but_still_served() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    let live = |enabled: bool| {
        let reads = json!({"enabled": enabled, "targets": [{"index_id": "a-old"}]});
        index_with("a", "live", json!({"index_aliases": {"doc_reads": reads}}))
    };
    practice.put(&poller, [shop("a", "old", "old.example"), live(true)]).await;
    practice.stack.table.delete("a", "INDEX#old");
    poller.caught_up().await;

    let found = practice.ask(&query("warnings"));
    let named: Vec<(&Value, &Value)> =
        found.iter().map(|line| (&line["key"], &line["pointers"])).collect();
    let pointer = json!("a/live");
    assert_eq!(named, [(&json!("a-old"), &pointer), (&json!("old.example"), &pointer)]);
    assert_eq!(practice.audit().await["examples"]["withheld"], json!(["a-old", "old.example"]));

    practice.put(&poller, [live(false), index("b", "other")]).await;
    practice.repair_account("a").await;
    assert_eq!(practice.stack.kv.keys(SETTINGS), ["a-live", "b-other"]);

    // The stream does not carry this removal.
    drop(poller);
    practice.stack.table.delete("a", "INDEX#live");
    assert_eq!(practice.audit().await["examples"]["orphaned"], json!(["a-live"]));
    practice.repair_account("a").await;
    assert_eq!(practice.stack.kv.keys(SETTINGS), ["b-other"]);
}

#[tokio::test]
async fn an_active_alias_points_at_nothing() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.put(&poller, [pointing("a", "live", "a-gone")]).await;
    assert_eq!(practice.audit().await["examples"]["dangling"], json!(["a-gone"]));
    let found = practice.ask(&query("warnings"));
    assert!(found.iter().any(|line| line["examples"] == "a-gone"), "{found:?}");

    practice.put(&poller, [index("a", "live")]).await;
    assert_eq!(practice.audit().await["settings"]["dangling"], 0);
}

#[tokio::test]
async fn a_key_that_could_not_be_put_back() {
    let practice = Practice::start().await;
    practice.stack.table.put(&index("a", "live"));
    practice.stack.table.put(&index("a", "old"));
    practice.repair().await;
    practice.stack.table.delete("a", "INDEX#old");
    // The alias is switched on while the orphan is deleted, and then KV takes no writes.
    let table = practice.stack.table.clone();
    let switch_on = move || table.put(&pointing("a", "live", "a-old"));
    let faults = practice.stack.kv.faults();
    faults.add(Rule::on("POST", "/settings/bulk/delete", Fault::after(switch_on)));
    faults.add(Rule::on("PUT", "/settings/bulk", Fault::status(500)).forever());

    practice.repair().await;

    let found = practice.ask(&query("errors"));
    let says = |line: &Value| line["message"].as_str().unwrap().contains("could not be put back");
    let [line] = found.iter().filter(|line| says(line)).collect::<Vec<_>>()[..] else {
        panic!("one line: {found:?}")
    };
    assert_eq!(line["key"], "a-old");
    let metrics = Printed::of(&practice.function.logs()).metrics;
    assert_eq!(metrics["PutBacksFailed"], 1.0, "which pages");
    faults.clear();
    assert_eq!(practice.audit().await["examples"]["dangling"], json!(["a-old"]));

    practice.stack.table.put(&index("a", "old"));
    practice.re_export("a", "old").await.unwrap();
    assert!(practice.setting("a-old").is_some());
    assert_eq!(practice.audit().await["settings"]["dangling"], 0);
}

#[tokio::test]
async fn drift_alarm() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice
        .put(&poller, (0..4).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example"))))
        .await;
    drop(poller);
    practice.stack.kv.delete(SETTINGS, "a-i0");
    practice.stack.kv.put(SETTINGS, "a-i1", "{}", None);
    practice.stack.table.delete("a", "INDEX#i2");
    practice.stack.table.load([to_item(&broken("a", "i3"))]);

    practice.audit().await;
    let found = practice.ask(&query("reconciles"));
    let line = found.last().unwrap();
    let counted = ["drifted_keys", "missing", "stale", "orphaned", "items_rejected"];
    assert_eq!(counted.map(|name| line[name].as_u64().unwrap()), [4, 1, 1, 2, 1], "{line}");

    practice.repair().await;
    let audit = practice.audit().await;
    practice.assert_equal(&audit);
    assert_eq!(audit["settings"]["rejected"], 1);
}
