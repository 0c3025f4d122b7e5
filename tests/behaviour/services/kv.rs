//! Cloudflare KV: what is sent, and what follows each fault that it is known for.

use std::time::Duration;

use ecom_settings_exporter::COMMIT;
use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::stack::SETTINGS;

use crate::helpers::*;

/// This many indexes of one account, without shop ids.
fn indexes(count: u32) -> Vec<Value> {
    (1..=count).map(|number| index("a", &format!("i{number:02}"))).collect()
}

fn batch(count: u32) -> Vec<Value> {
    all_written(&indexes(count))
}

#[tokio::test]
async fn a_request_carries_json_a_user_agent_and_the_token() {
    let world = World::start().await;
    let spies = [spy(world.stack.kv.faults()), spy(world.stack.api_keys.faults())];
    world.settled_with([shop("a", "i", "s.example")]).await;
    world.stack.table.delete("a", "INDEX#i");
    world.deliver().await;

    let [kv, api_keys] = spies.map(|spy| spy.requests());
    let paths: Vec<_> = kv.iter().map(|call| call.path.rsplit_once(SETTINGS).unwrap().1).collect();
    assert_eq!(paths, ["/bulk", "/bulk/get", "/bulk/get", "/bulk/delete"]);
    for request in &kv {
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("authorization"), Some("Bearer local-token"));
    }
    for request in kv.iter().chain(&api_keys) {
        let agent = request.header("user-agent").unwrap();
        assert!(agent.starts_with("ecom-settings-exporter/"), "{agent}");
        assert!(agent.ends_with(&format!(" ({COMMIT})")), "{agent}");
    }
    assert!(api_keys.iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn what_fails_for_a_while_is_sent_again_as_often_and_as_small_as_it_takes() {
    let odd = |key: &str| key.ends_with(['1', '3', '5', '7']);
    // What is tried, how many of the first requests it hits, and how many pairs each request has.
    let listed = json!({"unsuccessful_keys": ["a-i01", "not sent"]});
    let listed = Fault::Answer(Reply::json(200, &json!({"success": true, "result": listed})));
    let rows: [(_, _, _, &[usize]); 11] = [
        ("503", 3, Fault::status(503), &[8, 8, 8, 8]),
        ("429", 3, Fault::status(429), &[8, 8, 8, 8]),
        ("no connection", 3, Fault::DropConnection, &[8, 8, 8, 8]),
        ("done, and no connection", 3, Fault::ApplyThenDrop, &[8, 8, 8, 8]),
        ("another body", 3, Fault::WrongJson, &[8, 8, 8, 8]),
        ("half a body", 3, Fault::TruncatedBody, &[8, 8, 8, 8]),
        ("413", 2, Fault::status(413), &[8, 4, 2, 2, 4]),
        ("done, and 524", 1, Fault::ApplyThenStatus(524), &[8, 4, 4]),
        ("half of the keys unsuccessful, with 200", 2, Fault::unsuccessful(odd, 200), &[8, 4, 4]),
        ("half of the keys unsuccessful, with 400", 2, Fault::unsuccessful(odd, 400), &[8, 4, 4]),
        ("a key that was not sent unsuccessful", 1, listed, &[8, 8]),
    ];
    for (name, times, fault, sent) in rows {
        let _row = row(name);
        let world = World::start().await;
        world.break_puts(times, fault);

        world.batch_ok(batch(8)).await;

        assert_eq!(world.setting_keys().len(), 8);
        assert_eq!(world.pairs(SETTINGS), sent);
    }
}

#[tokio::test]
async fn a_pair_that_is_refused_fails_alone() {
    for status in [400, 413] {
        let _row = row(status);
        let world = World::start().await;
        let refused = Rule::naming("PUT", "/bulk", "a-i07", Fault::status(status));
        world.break_kv(refused.forever());

        assert_eq!(world.batch(batch(40)).await.failures(), ["7"]);

        assert_eq!(world.setting_keys().len(), 39);
        let alone = world.puts(SETTINGS).into_iter().filter(|put| put.keys == ["a-i07"]).count();
        assert_eq!(alone, 1, "alone it is refused for good");
    }
}

#[tokio::test]
async fn a_retry_after_is_waited_for_where_it_fits_and_told_from_5_s_on() {
    let world = World::start().await;
    world.break_puts(1, Fault::retry_after(6));

    world.batch_ok(batch(1)).await;

    let [first, second] = &world.puts(SETTINGS)[..] else { panic!("{:?}", world.puts(SETTINGS)) };
    assert!(second.received_at - first.received_at >= Duration::from_secs(6));
    let [line] = &world.logs.warnings()[..] else { panic!("{}", world.logs.text()) };
    assert_eq!((&line["service"], &line["seconds"]), (&json!("Cloudflare KV"), &json!(6)));

    world.break_puts(1, Fault::retry_after(3_600));
    assert_eq!(world.batch(batch(1)).await.failures(), ["1"]);
    assert_eq!(world.puts(SETTINGS).len(), 3, "no other try fits");
}
