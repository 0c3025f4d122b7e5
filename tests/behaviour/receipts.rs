//! Each item that was written or removed has one line, whoever asked for it.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::{Reply, Request};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

/// The receipts so far, but for what every line has.
fn receipts(world: &World) -> Vec<Value> {
    let mut lines = world.logs.lines();
    lines.retain(|line| ["exported", "removed"].contains(&line["message"].as_str().unwrap()));
    for line in &mut lines {
        assert_eq!(line["level"], "INFO");
        let line = line.as_object_mut().unwrap();
        for name in ["timestamp", "level", "target"] {
            line.remove(name);
        }
    }
    lines
}

/// The digest and the time of the change that KV's metadata gives.
fn in_kv(world: &World, namespace: &str, key: &str) -> (Value, Value) {
    let metadata = world.stack.kv.get(namespace, key).unwrap().metadata.unwrap();
    (metadata["digest"].clone(), metadata["changed_at"].clone())
}

#[tokio::test]
async fn a_batch_says_what_it_wrote_and_since_which_change() {
    let world = World::start().await;
    let records = [
        written(1, &shop("a", "i", "s.example")),
        written(2, &shop("a", "i", "s.example")),
        written(3, &query_config("a", "i", "größe #1", 1)),
        written(4, &json!({"pk": "a", "sk": "INDEX#broken"})),
    ];

    world.batch(records).await;

    let config = query_config_key("a", "i", "größe #1");
    let (digest, changed_at) = in_kv(&world, SETTINGS, "a-i");
    let (config_digest, config_changed_at) = in_kv(&world, QUERY_CONFIGS, &config);
    assert_eq!(
        receipts(&world),
        [
            json!({
                "message": "exported", "system_account_id": "a", "index_name": "i",
                "keys": "a-i, s.example", "digest": digest, "source": "stream",
                "changed_at": changed_at, "sequence_number": "2",
            }),
            json!({
                "message": "exported", "system_account_id": "a", "index_name": "i",
                "normalized_query": "größe #1", "keys": config, "digest": config_digest,
                "source": "stream", "changed_at": config_changed_at, "sequence_number": "3",
            }),
        ]
    );
}

#[tokio::test]
async fn a_removal_has_one_line_with_all_its_keys_and_no_digest() {
    let world = World::start().await;
    let items = [shop("a", "i", "s.example"), query_config("a", "i", "q", 1)];
    world.settled_with(items).await;
    world.stack.table.delete("a", "INDEX#i");
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    let removals = [
        created_at(removed(7, "a", "INDEX#i"), json!(1_795_183_202)),
        created_at(removed(8, "a", "INDEX#i#QUERY#q"), json!(1_795_183_203)),
    ];

    world.batch(removals).await;

    let mut lines = receipts(&world);
    lines.sort_by_key(|line| line["sequence_number"].to_string());
    assert_eq!(
        lines,
        [
            json!({
                "message": "removed", "system_account_id": "a", "index_name": "i",
                "keys": "a-i, s.example", "source": "stream",
                "changed_at": "2026-11-20T14:00:02Z", "sequence_number": "7",
            }),
            json!({
                "message": "removed", "system_account_id": "a", "index_name": "i",
                "normalized_query": "q", "keys": query_config_key("a", "i", "q"),
                "source": "stream", "changed_at": "2026-11-20T14:00:03Z", "sequence_number": "8",
            }),
        ]
    );
}

#[tokio::test]
async fn a_key_that_goes_while_its_item_lives_on_has_a_line_of_its_own() {
    let world = World::with_old_images().await;
    world.settled_with([shop("a", "i", "old.example")]).await;
    world.stack.table.put(&shop("a", "i", "new.example"));

    world.deliver().await;

    let lines = receipts(&world);
    let told: Vec<_> = lines.iter().map(|line| [&line["message"], &line["keys"]]).collect();
    let expected = [["exported", "a-i, new.example"], ["removed", "old.example"]];
    assert_eq!(json!(told), json!(expected), "{lines:?}");
    assert_eq!(lines[0]["sequence_number"], lines[1]["sequence_number"]);
}

#[tokio::test]
async fn re_exports_and_repairs_say_it_too_and_an_audit_says_nothing() {
    let world = World::start().await;
    world.stack.table.put(&shop("a", "i", "s.example"));
    world.stack.table.put(&query_config("a", "i", "q", 1));
    world.handle(&audit()).await.ok();
    assert_eq!(receipts(&world), [] as [Value; 0]);
    for (payload, lines) in [(repair(), 2), (re_export("a", "i"), 1)] {
        world.forget();
        world.handle(&payload).await.ok();

        let told = receipts(&world);
        assert_eq!(told.len(), lines, "{told:?}");
        let source = if lines == 2 { "reconcile" } else { "re-export" };
        assert!(told.iter().all(|line| line["source"] == source), "{told:?}");
        let (digest, _) = in_kv(&world, SETTINGS, "a-i");
        let line = told.iter().find(|line| line["keys"] == "a-i, s.example").unwrap();
        assert_eq!((&line["digest"], line.get("sequence_number")), (&digest, None));
    }
    world.stack.table.delete("a", "INDEX#i");
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    world.stack.table.put(&index_with("b", "other", json!({})));
    world.forget();
    world.handle(&repair()).await.ok();
    let told: Vec<Value> = receipts(&world).iter().map(|line| line["message"].clone()).collect();
    assert_eq!(told, ["exported", "removed", "removed"]);
}

#[tokio::test]
async fn what_kv_does_not_confirm_has_no_line() {
    let world = World::start().await;
    world.break_puts(100, Fault::unsuccessful(|key| key == "s.example", 200));

    let answered = world.batch([written(1, &shop("a", "i", "s.example"))]).await;

    assert_eq!(answered.failures(), ["1"]);
    let lines = receipts(&world);
    assert_eq!(lines.iter().map(|line| &line["keys"]).collect::<Vec<_>>(), ["a-i"]);
}

#[tokio::test]
async fn a_page_that_cannot_be_read_takes_no_line_from_the_chunk_under_way() {
    let world = World::with_env(&[("KV_BULK_MAX_PAIRS", "1")]).await;
    world.stack.table.put(&index("a", "i"));
    let large = "x".repeat(390_000);
    for query in ["1", "2", "3"] {
        let item = query_config("a", "i", query, 1);
        world.stack.table.put(&with(item, json!({"large": large})));
    }
    let is_later_page = |request: &Request| {
        request.operation() == Some("Query")
            && String::from_utf8_lossy(&request.body).contains("ExclusiveStartKey")
    };
    world.break_table(Rule::when(is_later_page, denied()).forever());
    world.break_kv(writes(Fault::Delay(Duration::from_millis(200))).forever());

    let answered = world.handle(&re_export_all("a", "i")).await;

    let error = &answered.error().message;
    assert!(error.contains("AccessDenied"), "{error}");
    let mut told: Vec<Value> = receipts(&world).iter().map(|line| line["keys"].clone()).collect();
    told.retain(|keys| keys != "a-i");
    assert_eq!(told.len(), 1, "the chunk under way is written: {told:?}");
    assert_eq!(json!(told), json!(world.query_config_keys()));
}

#[tokio::test]
async fn a_late_record_whose_pair_is_refused_alone_is_rejected_and_one_in_time_fails() {
    for is_late in [true, false] {
        let world = World::start().await;
        let items = [index("a", "good"), shop("a", "bad", "refused.example")];
        items.iter().for_each(|item| world.stack.table.put(item));
        let refused = json!({"success": false, "errors": [{"code": 10_012, "message": "s3cret"}]});
        let refused = Fault::Answer(Reply::json(400, &refused));
        world.break_kv(Rule::naming("PUT", "/bulk", "refused.example", refused).forever());
        let age = if is_late { 600 } else { 0 };
        let records = (1..).zip(&items).map(|(number, item)| ago(age, written(number, item)));

        let answered = world.batch(records.collect::<Vec<_>>()).await;

        let failed: &[&str] = if is_late { &[] } else { &["2"] };
        assert_eq!(answered.failures(), failed);
        assert_eq!(world.setting_keys(), ["a-bad", "a-good"]);
        assert_eq!(answered.counted("RecordsRejected"), Some(u64::from(is_late)));
        if is_late {
            let line = world.logs.only("record rejected");
            let error = line["error"].as_str().unwrap();
            assert!(error.contains("status 400") && error.contains("code 10012"), "{error}");
            assert_eq!((&line["index_name"], &line["path"]), (&json!("bad"), &json!("(pair)")));
        }
    }
}
