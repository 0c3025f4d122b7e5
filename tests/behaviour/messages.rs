//! What an error says: the cause, what KV may hold, and nothing that is not known.

use serde_json::json;
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::QUERY_CONFIGS;

use crate::helpers::*;

/// Breaks something for a re-export of a/i.
type Break = fn(&World);

#[tokio::test]
async fn a_re_export_that_fails_says_that_kv_may_hold_an_older_version_if_it_has_written() {
    let rows: [(&str, Break, &str, &[&str]); 7] = [
        (
            "the table",
            |world| world.break_table(item_reads(Fault::status(500)).forever()),
            "ReExportIncomplete",
            &["BatchGetItem"],
        ),
        (
            "the first write",
            |world| world.stack.kv.set_token("another"),
            "CloudflareAuthRejected",
            &[],
        ),
        (
            "one of the keys",
            |world| {
                world.break_puts(100, Fault::unsuccessful(|key| key == "s.example", 200));
            },
            "ReExportIncomplete",
            &["older version", "repeat"],
        ),
        (
            "the second look",
            |world| {
                world.break_table(item_reads(Fault::status(500)).after(1).forever());
            },
            "ReExportIncomplete",
            &["older version"],
        ),
        (
            "the second write",
            |world| {
                let (table, kv) = (world.stack.table.clone(), world.stack.kv.clone());
                let change_and_refuse = move || {
                    table.put(&with(shop("a", "i", "s.example"), json!({"pixel_id": "newer"})));
                    kv.set_token("another");
                };
                world.break_puts(1, Fault::after(change_and_refuse));
            },
            "CloudflareAuthRejected",
            &["older version"],
        ),
        (
            "settling",
            |world| {
                world
                    .break_puts(1, world.before(|table| table.put(&shop("a", "i", "new.example"))));
                world.break_kv(reads(Fault::status(403)).forever());
            },
            "CloudflareAuthRejected",
            &["older version"],
        ),
        (
            "a query config",
            |world| {
                let write = Rule::on("PUT", format!("/{QUERY_CONFIGS}/bulk"), Fault::status(403));
                world.break_kv(write.forever());
            },
            "CloudflareAuthRejected",
            &["older version"],
        ),
    ];
    for (what, broken, kind, says) in rows {
        let _row = row(what);
        let world = World::start().await;
        world.load([shop("a", "i", "s.example"), query_config("a", "i", "q", 1)]);
        broken(&world);

        let answered = world.handle(&re_export_all("a", "i")).await;

        let LambdaError { kind: answered, message } = answered.error();
        assert_eq!(answered, kind, "{message}");
        assert!(says.iter().all(|part| message.contains(part)), "{message}");
        let older = says.contains(&"older version");
        assert_eq!(message.contains("older version"), older, "{message}");
        assert_eq!(world.setting("a-i").is_some(), older);
    }
}

#[tokio::test]
async fn kv_that_cannot_be_read_is_not_said_to_hold_no_api_key() {
    let world = World::start().await;
    world.break_api_keys(Fault::status(503));
    world.break_kv(reads(Fault::status(500)).forever());

    let answered = world.batch([written(1, &index("a", "i"))]).await;

    assert_eq!(answered.failures(), ["1"]);
    let line = world.logs.only("record failed");
    let error = line["error"].as_str().unwrap();
    assert!(!error.contains("holds no settings"), "{error}");
    assert!(error.contains("status 503") && error.contains("status 500"), "{error}");
    assert!(!world.stack.kv.log_of(KvVerb::GetBulk).is_empty());
}

#[tokio::test]
async fn an_alias_whose_target_could_not_be_looked_up_does_not_dangle() {
    let world = World::start().await;
    world.settled_with([pointing("a", "i", "b-elsewhere")]).await;
    world.break_kv(reads(Fault::status(503)).forever());

    let report = world.handle(&of_account("a", false)).await.ok().clone();

    assert_eq!(report["settings"]["dangling"], 0, "{report}");
    let stopped = report["stopped"].as_str().unwrap();
    assert!(stopped.contains("dangling aliases could not be looked up"), "{stopped}");
}
