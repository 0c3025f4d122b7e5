//! Cloudflare KV fails: every fault that it is known for, and what happens then.

use std::time::Duration;

use ecom_settings_exporter::COMMIT;
use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::kv::{KvRequest, RapidWrites};
use testbed::stack::{ACCOUNT, QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

/// This many indexes of one account, without shop ids.
fn batch(count: u32) -> Vec<Value> {
    (1..=count).map(|number| written(number, &index("a", &format!("i{number:02}")))).collect()
}

fn pairs(puts: &[KvRequest]) -> Vec<usize> {
    puts.iter().map(|put| put.pairs).collect()
}

/// Delivers eight records while the fault hits the first writes. Expects that everything is written
/// in the end, in requests of these numbers of pairs.
async fn survives(world: World, times: usize, fault: Fault, sent: &[usize]) {
    world.break_puts(times, fault);

    let answered = world.batch(batch(8)).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys().len(), 8);
    assert_eq!(pairs(&world.puts(SETTINGS)), sent);
}

#[tokio::test]
async fn server_errors_are_tried_three_more_times() {
    for status in [500, 502, 503, 522, 408, 429] {
        survives(World::start().await, 3, Fault::status(status), &[8, 8, 8, 8]).await;
    }
}

#[tokio::test]
async fn what_a_server_error_outlasts_fails_every_record_and_is_not_asked_a_fifth_time() {
    let world = World::start().await;
    world.break_puts(100, Fault::status(503));

    let answered = world.batch(batch(3)).await;

    assert_eq!(answered.failures(), ["1", "2", "3"]);
    assert_eq!(world.puts(SETTINGS).len(), 4);
    let failed = world.logs.of("record failed");
    assert!(failed[0]["error"].as_str().unwrap().contains("503"), "{failed:?}");
}

#[tokio::test]
async fn a_namespace_that_fails_takes_no_records_of_the_other_down() {
    let world = World::start().await;
    let queries = |request: &testbed::http::Request| request.path.contains(QUERY_CONFIGS);
    world.stack.kv.faults().add(Rule::when(queries, Fault::status(500)).forever());

    let answered = world
        .batch([written(1, &index("a", "i")), written(2, &query_config("a", "i", "q", 1))])
        .await;

    assert_eq!(answered.failures(), ["2"]);
    assert_eq!(world.setting_keys(), ["a-i"]);
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let world = World::start().await;
    world.break_puts(1, Fault::retry_after(1));

    let answered = world.batch(batch(1)).await;

    assert_eq!(answered.failures(), NOTHING);
    let puts = world.puts(SETTINGS);
    assert_eq!(puts.len(), 2);
    assert!(puts[1].received_at - puts[0].finished_at.unwrap() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_re_export_that_is_asked_to_wait_long_ends_and_names_the_service_and_the_seconds() {
    let world = World::start().await;
    world.stack.table.put(&index("a", "i"));
    world.break_puts(1, Fault::retry_after(21));

    let payload = json!({"system_account_id": "a", "index_name": "i"});
    let answered = world.handle(&payload).await;

    let message = &answered.error().message;
    assert_eq!(answered.error().kind, "ReExportIncomplete");
    assert!(message.contains("Cloudflare KV") && message.contains("21 s"), "{message}");
    assert_eq!(world.puts(SETTINGS).len(), 1);
}

#[tokio::test]
async fn a_wait_of_more_than_five_seconds_is_logged() {
    let world = World::start().await;
    world.break_puts(1, Fault::retry_after(6));

    assert_eq!(world.batch([written(1, &index("a", "i"))]).await.failures(), NOTHING);

    let [line] = &world.logs.of("a service makes the invocation wait")[..] else { panic!() };
    assert_eq!((&line["level"], &line["service"]), (&json!("WARN"), &json!("Cloudflare KV")));
    assert_eq!(line["seconds"], 6);
    assert!(line["reason"].as_str().unwrap().contains("429"), "{line}");
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_is_not_waited_for() {
    let world = World::start().await;
    world.break_puts(1, Fault::retry_after(3_600));

    let answered = world.batch(batch(2)).await;

    assert_eq!(answered.failures(), ["1", "2"]);
    assert_eq!(world.puts(SETTINGS).len(), 1);
}

#[tokio::test]
async fn a_write_that_times_out_is_sent_again_as_two_halves() {
    survives(World::impatient().await, 1, Fault::Hang, &[8, 4, 4]).await;
}

#[tokio::test]
async fn a_write_that_is_too_large_for_a_gateway_is_sent_again_as_two_halves() {
    for status in [413, 524] {
        survives(World::start().await, 1, Fault::status(status), &[8, 4, 4]).await;
        survives(World::start().await, 2, Fault::status(status), &[8, 4, 2, 2, 4]).await;
    }
}

#[tokio::test]
async fn halves_are_halved_no_further_than_to_one_pair_and_fail_alone() {
    let world = World::start().await;
    let poisoned = |request: &testbed::http::Request| {
        request.path.ends_with("/bulk") && String::from_utf8_lossy(&request.body).contains("a-i03")
    };
    world.stack.kv.faults().add(Rule::when(poisoned, Fault::status(413)).forever());

    let answered = world.batch(batch(32)).await;

    assert_eq!(answered.failures(), ["3"], "its neighbours are written");
    assert_eq!(world.setting_keys().len(), 31);
}

#[tokio::test]
async fn keys_that_a_429_lists_as_unsuccessful_are_sent_again_on_their_own() {
    let throttled = Fault::unsuccessful(|key| key == "a-i03", 429);
    survives(World::start().await, 1, throttled, &[8, 1]).await;
}

#[tokio::test]
async fn a_524_behind_which_the_write_was_done_does_no_harm() {
    survives(World::start().await, 1, Fault::ApplyThenStatus(524), &[8, 4, 4]).await;
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again_whether_or_not_the_write_was_done() {
    survives(World::start().await, 3, Fault::DropConnection, &[8, 8, 8, 8]).await;
    survives(World::start().await, 3, Fault::ApplyThenDrop, &[8, 8, 8, 8]).await;
}

#[tokio::test]
async fn a_2xx_that_is_not_the_apis_success_is_a_failure_and_tried_again() {
    for fault in [Fault::SuccessFalse, Fault::HtmlBody, Fault::WrongJson, Fault::TruncatedBody] {
        survives(World::start().await, 3, fault.clone(), &[8, 8, 8, 8]).await;

        let world = World::start().await;
        world.break_puts(100, fault);
        assert_eq!(world.batch(batch(2)).await.failures(), ["1", "2"]);
    }
}

#[tokio::test]
async fn unsuccessful_keys_are_sent_again_on_their_own_on_2xx_and_4xx_alike() {
    for status in [200, 400] {
        let odd = |key: &str| key.ends_with(['1', '3', '5', '7']);
        survives(World::start().await, 2, Fault::unsuccessful(odd, status), &[8, 4, 4]).await;
    }
}

#[tokio::test]
async fn an_unsuccessful_key_that_was_not_sent_could_be_any_of_those_that_were() {
    for status in [200, 400] {
        let result = json!({"successful_key_count": 7, "unsuccessful_keys": ["a%2Di01"]});
        let body = json!({"success": status == 200, "errors": [], "result": result});
        let fault = Fault::Answer(Reply::json(status, &body));
        survives(World::start().await, 2, fault, &[8, 8, 8]).await;
    }
}

#[tokio::test]
async fn keys_that_stay_unsuccessful_fail_their_records_alone() {
    for status in [200, 400] {
        let world = World::start().await;
        world.break_puts(100, Fault::unsuccessful(|key| key == "a-i02", status));

        let answered = world.batch(batch(4)).await;

        assert_eq!(answered.failures(), ["2"]);
        assert_eq!(pairs(&world.puts(SETTINGS)), [4, 1, 1, 1]);
    }
}

#[tokio::test]
async fn a_request_that_is_refused_is_not_tried_again() {
    // 404 is the namespace's fault. The others could be one pair's fault, if there were several.
    for (status, records) in [(400, 1), (404, 2), (405, 1), (422, 1)] {
        let world = World::start().await;
        world.break_puts(1, Fault::status(status));

        let answered = world.batch(batch(records)).await;

        assert_eq!(
            answered.failures(),
            &["1", "2"][..usize::try_from(records).unwrap()],
            "{status}"
        );
        assert_eq!(world.puts(SETTINGS).len(), 1, "{status}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let world = World::start().await;
    let elsewhere = World::start().await;
    let target = elsewhere.stack.kv.url_template();
    let target = target.replace("{account_id}", ACCOUNT).replace("{namespace_id}", SETTINGS);
    let seen = spy(elsewhere.stack.kv.faults());
    for status in [301, 302, 307, 308] {
        let redirect = Reply::new(status, "", "").with("location", &format!("{target}/bulk"));
        world.break_puts(1, Fault::Answer(redirect));

        assert_eq!(world.batch(batch(1)).await.failures(), ["1"], "{status}");
    }
    assert!(seen.requests().is_empty());
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
        Fault::SuccessFalse,
        Fault::HtmlBody,
        Fault::TruncatedBody,
    ];
    for fault in faults {
        for path in ["/bulk/delete", "/bulk/get"] {
            let world = World::start().await;
            world.settled_with([shop("a", "i", "s.example")]).await;
            world.stack.kv.faults().add(Rule::on("POST", path, fault.clone()).times(2));

            world.stack.table.delete("a", "INDEX#i");
            let answered = world.deliver().await;

            assert_eq!(answered.failures(), NOTHING, "{path}");
            assert_eq!(world.setting_keys(), NOTHING, "{path}");
        }
    }
}

#[tokio::test]
async fn a_delete_that_stays_undone_fails_its_record_and_a_retry_ends_it() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    let rule = Rule::on("POST", "/bulk/delete", Fault::unsuccessful(|key| key == "s.example", 200));
    world.stack.kv.faults().add(rule.times(4));

    world.stack.table.delete("a", "INDEX#i");
    let records = world.new_records();
    let failed = world.batch(records.clone()).await;

    let number = testbed::stream::sequence_number(&records[0]).unwrap().to_owned();
    assert_eq!(failed.failures(), [number]);
    assert_eq!(
        world.setting_keys(),
        ["a-i", "s.example"],
        "the index id's key stays: only its value says what else has to go"
    );
    assert_eq!(world.batch(records).await.failures(), NOTHING);
    assert_eq!(world.setting_keys(), NOTHING);
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
        let table = world.stack.table.clone();
        let claim = Fault::after(move || table.put(&shop("b", "j", "s.example")));
        world.stack.kv.faults().add(Rule::on("POST", "/bulk/delete", claim));

        let answered = world.deliver().await;

        assert_eq!(answered.failures(), NOTHING, "{rapid_writes:?}");
        let shop_id = world.setting("s.example");
        assert_eq!(shop_id.unwrap()["system_account_id"], "b", "{rapid_writes:?}");
        assert!(answered.counted("CloudflareKvRetries").unwrap() > 0, "{rapid_writes:?}");
    }
}
