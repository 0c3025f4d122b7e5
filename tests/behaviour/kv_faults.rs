//! Cloudflare KV fails: every fault that it is known for, and what happens then.

use ecom_settings_exporter::COMMIT;
use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::kv::RapidWrites;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

/// This many indexes of one account, without shop ids.
fn batch(count: u32) -> Vec<Value> {
    (1..=count).map(|number| written(number, &index("a", &format!("i{number:02}")))).collect()
}

/// Delivers eight records while the fault hits the first writes. Expects that everything is written
/// in the end, in requests of these numbers of pairs.
async fn survives(world: World, times: usize, fault: Fault, sent: &[usize]) {
    world.break_puts(times, fault);

    world.batch_ok(batch(8)).await;
    assert_eq!(world.setting_keys().len(), 8);
    assert_eq!(world.pairs(SETTINGS), sent);
}

#[tokio::test]
async fn what_fails_for_a_while_is_sent_again_as_often_and_as_small_as_it_takes() {
    let all = &[8, 8, 8, 8][..];
    let odd = |key: &str| key.ends_with(['1', '3', '5', '7']);
    let unsent = |status| {
        let result = json!({"successful_key_count": 7, "unsuccessful_keys": ["a%2Di01"]});
        let body = json!({"success": status == 200, "errors": [], "result": result});
        Fault::Answer(Reply::json(status, &body))
    };
    for (what, times, fault, sent) in [
        ("503", 3, Fault::status(503), all),
        ("429", 3, Fault::status(429), all),
        ("no connection", 3, Fault::DropConnection, all),
        ("done, and no connection", 3, Fault::ApplyThenDrop, all),
        // A 2xx that is not the API's success is a failure.
        ("not successful", 3, Fault::success_false(), all),
        ("HTML", 3, Fault::HtmlBody, all),
        ("other JSON", 3, Fault::WrongJson, all),
        ("half a body", 3, Fault::TruncatedBody, all),
        ("524", 2, Fault::status(524), &[8, 4, 2, 2, 4]),
        ("413", 2, Fault::status(413), &[8, 4, 2, 2, 4]),
        ("done, and 524", 1, Fault::ApplyThenStatus(524), &[8, 4, 4]),
        // Unsuccessful keys are sent again on their own.
        ("half of the keys, with 200", 2, Fault::unsuccessful(odd, 200), &[8, 4, 4]),
        ("half of the keys, with 400", 2, Fault::unsuccessful(odd, 400), &[8, 4, 4]),
        ("half of the keys, with 429", 2, Fault::unsuccessful(odd, 429), &[8, 4, 4]),
        // One that was not sent could be any of those that were.
        ("a key that was not sent, with 200", 2, unsent(200), &[8, 8, 8]),
        ("a key that was not sent, with 400", 2, unsent(400), &[8, 8, 8]),
    ] {
        let _row = row(what);
        survives(World::start().await, times, fault, sent).await;
    }
}

#[tokio::test]
async fn a_namespace_that_fails_takes_no_records_of_the_other_down() {
    let world = World::start().await;
    let queries = |request: &testbed::http::Request| request.path.contains(QUERY_CONFIGS);
    world.break_kv(Rule::when(queries, Fault::status(500)).forever());

    let records = [written(1, &index("a", "i")), written(2, &query_config("a", "i", "q", 1))];
    let answered = world.batch(records).await;

    assert_eq!(answered.failures(), ["2"]);
    assert_eq!(world.setting_keys(), ["a-i"]);
}

#[tokio::test]
async fn a_re_export_that_is_asked_to_wait_long_ends_and_names_the_service_and_the_seconds() {
    let world = World::start().await;
    world.stack.table.put(&index("a", "i"));
    world.break_puts(1, Fault::retry_after(21));

    let answered = world.handle(&json!({"system_account_id": "a", "index_name": "i"})).await;

    let message = &answered.error().message;
    assert_eq!(answered.error().kind, "ReExportIncomplete");
    assert!(message.contains("Cloudflare KV") && message.contains("21 s"), "{message}");
    assert_eq!(world.puts(SETTINGS).len(), 1);
}

#[tokio::test]
async fn a_wait_of_more_than_five_seconds_is_logged() {
    let world = World::start().await;
    world.break_puts(1, Fault::retry_after(6));

    world.batch_ok([written(1, &index("a", "i"))]).await;

    let line = world.logs.only("a service makes the invocation wait");
    assert_eq!((&line["level"], &line["service"]), (&json!("WARN"), &json!("Cloudflare KV")));
    assert_eq!(line["seconds"], 6);
    assert!(line["reason"].as_str().unwrap().contains("429"), "{line}");
}

#[tokio::test]
async fn a_write_that_times_out_is_sent_again_as_two_halves() {
    survives(World::impatient().await, 1, Fault::Hang, &[8, 4, 4]).await;
}

#[tokio::test]
async fn requests_carry_json_a_user_agent_and_the_token() {
    let world = World::start().await;
    let kv = spy(world.stack.kv.faults());
    let api_keys = spy(world.stack.api_keys.faults());
    world.settled_with([shop("a", "i", "s.example")]).await;
    world.stack.table.delete("a", "INDEX#i");
    world.deliver().await;

    let requests = kv.requests();
    let paths: Vec<&str> =
        requests.iter().map(|request| request.path.rsplit_once(SETTINGS).unwrap().1).collect();
    assert_eq!(paths.first(), Some(&"/bulk"));
    assert!(paths.contains(&"/bulk/get") && paths.contains(&"/bulk/delete"), "{paths:?}");
    for request in &requests {
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("authorization"), Some("Bearer local-token"));
    }
    for request in requests.iter().chain(&api_keys.requests()) {
        let agent = request.header("user-agent").unwrap();
        assert!(agent.starts_with("ecom-settings-exporter/"), "{agent}");
        assert!(agent.ends_with(&format!(" ({COMMIT})")), "{agent}");
    }
    for request in api_keys.requests() {
        assert_eq!(request.header("authorization"), None, "the token is Cloudflare's alone");
    }
}

#[tokio::test]
async fn deletes_and_reads_survive_what_writes_survive() {
    let faults = [
        Fault::status(503),
        Fault::status(429),
        Fault::DropConnection,
        Fault::ApplyThenDrop,
        Fault::success_false(),
        Fault::HtmlBody,
        Fault::TruncatedBody,
    ];
    for fault in faults {
        for path in ["/bulk/delete", "/bulk/get"] {
            let world = World::start().await;
            world.settled_with([shop("a", "i", "s.example")]).await;
            world.break_kv(Rule::on("POST", path, fault.clone()).times(2));

            world.stack.table.delete("a", "INDEX#i");
            world.deliver_ok().await;
            assert_eq!(world.setting_keys(), NOTHING, "{path}");
        }
    }
}

#[tokio::test]
async fn one_write_a_second_and_key_is_waited_for() {
    use RapidWrites::{RefusedByKey, RefusedWhole};
    for rapid_writes in [
        RefusedByKey { status: 429, retry_after: false },
        RefusedByKey { status: 429, retry_after: true },
        RefusedByKey { status: 200, retry_after: false },
        RefusedWhole { retry_after: false },
        RefusedWhole { retry_after: true },
    ] {
        let world = World::start().await;
        world.stack.kv.set_rapid_writes(rapid_writes);
        world.settled_with([shop("a", "i", "s.example"), shop("b", "j", "t.example")]).await;
        world.stack.table.delete("a", "INDEX#i");
        // Another item asks for the shop id as soon as it is deleted.
        let claim = world.after(move |table| table.put(&shop("b", "j", "s.example")));
        world.break_kv(deletes(claim));

        let answered = world.deliver_ok().await;
        let shop_id = world.setting("s.example");
        assert_eq!(shop_id.unwrap()["system_account_id"], "b", "{rapid_writes:?}");
        assert!(answered.counted("CloudflareKvRetries").unwrap() > 0, "{rapid_writes:?}");
    }
}
