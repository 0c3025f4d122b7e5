//! The Cloudflare token: where it comes from, and what happens when it is refused.

use std::time::Duration;

use serde_json::json;
use testbed::faults::{Fault, Rule};
use testbed::stack::{TOKEN, TOKEN_SECRET};
use testbed::stream::event;

use crate::helpers::*;

#[tokio::test]
async fn the_token_is_read_once_and_kept() {
    let world = World::start().await;

    for number in 1..=3 {
        let records = [
            written(number, &index("a", "i")),
            written(number + 10, &query_config("a", "i", "q", 1)),
        ];
        assert_eq!(world.batch(records).await.failures(), NOTHING);
    }

    assert_eq!(world.stack.secrets.log().len(), 1);
    assert_eq!(world.stack.secrets.log()[0].secret_id, TOKEN_SECRET);
}

#[tokio::test]
async fn the_secret_may_be_the_plain_string_or_json_with_the_field_token() {
    for secret in [TOKEN.to_owned(), json!({"token": TOKEN, "note": "x"}).to_string()] {
        let world = World::start().await;
        world.stack.secrets.set(TOKEN_SECRET, &secret);

        assert_eq!(world.batch([written(1, &index("a", "i"))]).await.failures(), NOTHING);
        assert_eq!(world.setting_keys(), ["a-i"]);
    }
}

#[tokio::test]
async fn a_secret_that_is_no_token_fails_the_records_and_says_why_without_showing_it() {
    for secret in [r#"{"tokens":"s3cret"}"#, r#"{"token":7}"#, "", "s3cret\nline"] {
        let world = World::start().await;
        world.stack.secrets.set(TOKEN_SECRET, secret);

        let answered = world.batch([written(1, &index("a", "i"))]).await;

        assert_eq!(answered.failures(), ["1"], "{secret:?}");
        assert!(world.logs.text().contains("CloudFlareApiToken"), "{secret:?}");
        assert!(!world.logs.text().contains("s3cret"), "{secret:?}");
    }
}

#[tokio::test]
async fn a_refused_token_is_read_again_and_the_request_repeated_once() {
    for status in [401, 403] {
        let world = World::start().await;
        world.settled_with([index("a", "i")]).await;
        world.stack.kv.set_token("rotated");
        world.stack.secrets.set(TOKEN_SECRET, "rotated");
        if status == 401 {
            world.break_puts(1, Fault::status(401));
        }

        let answered = world.batch([written(9, &index("a", "j"))]).await;

        assert_eq!(answered.failures(), NOTHING);
        assert_eq!(world.setting_keys(), ["a-i", "a-j"]);
        assert_eq!(world.stack.secrets.log().len(), 1);
        assert_eq!(world.puts(testbed::stack::SETTINGS).len(), 2);
    }
}

#[tokio::test]
async fn a_token_that_stays_refused_fails_the_records_as_cloudflare_auth_rejected() {
    let world = World::start().await;
    world.stack.kv.set_token("another");

    let answered = world
        .batch([written(1, &index("a", "i")), written(2, &query_config("a", "i", "q", 1))])
        .await;

    assert_eq!(answered.failures(), ["1", "2"]);
    let failed = world.logs.of("record failed");
    assert_eq!(failed.len(), 2);
    for line in failed {
        assert!(line["error"].as_str().unwrap().contains("CloudflareAuthRejected"), "{line}");
    }
    assert!(world.stack.kv.log().len() <= 4, "each namespace's request is repeated once");
}

#[tokio::test]
async fn a_token_that_stays_refused_is_a_re_exports_error() {
    let world = World::start().await;
    world.stack.table.put(&index("a", "i"));
    world.stack.kv.set_token("another");

    let answered = world.handle(&json!({"system_account_id": "a", "index_name": "i"})).await;

    assert_eq!(answered.error().kind, "CloudflareAuthRejected");
}

#[tokio::test]
async fn several_chunks_do_not_read_a_refused_token_again_each() {
    let world = World::with(Default::default(), PATIENT, &[("KV_BULK_MAX_PAIRS", "1")]).await;
    world.stack.kv.set_token("another");

    let answered = world
        .batch((1..=20).map(|number| written(number, &index("a", &format!("i{number}")))))
        .await;

    assert_eq!(answered.failures().len(), 20);
    assert_eq!(world.stack.secrets.log().len(), 2, "once at the start, once after the refusal");
}

#[tokio::test]
async fn secrets_manager_may_be_down_at_start_and_back_later() {
    let world = World::start().await;
    let down = Rule::operation("GetSecretValue", Fault::status(500)).forever();
    world.stack.secrets.faults().add(down);

    let failed = world.batch([written(1, &index("a", "i"))]).await;
    world.stack.secrets.faults().clear();
    let again = world.batch([written(1, &index("a", "i"))]).await;

    assert_eq!(failed.failures(), ["1"]);
    assert_eq!(again.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["a-i"]);
}

#[tokio::test]
async fn a_secret_that_is_missing_fails_the_records_by_its_name() {
    let world = World::start().await;
    world.stack.secrets.remove(TOKEN_SECRET);

    assert_eq!(world.batch([written(1, &index("a", "i"))]).await.failures(), ["1"]);

    let failed = world.logs.of("record failed");
    let error = failed[0]["error"].as_str().unwrap();
    assert!(error.contains(TOKEN_SECRET) && error.contains("ResourceNotFound"), "{error}");
}

#[tokio::test]
async fn a_token_in_the_configuration_is_taken_without_secrets_manager() {
    let world = World::with(Default::default(), PATIENT, &[("CLOUDFLARE_API_TOKEN", TOKEN)]).await;

    assert_eq!(world.batch([written(1, &index("a", "i"))]).await.failures(), NOTHING);
    assert!(world.stack.secrets.log().is_empty());
}

#[tokio::test]
async fn a_reading_that_ended_before_the_invocation_is_counted() {
    let world = World::start().await;
    world.token.get(None).await.unwrap();

    let answered = world.batch([written(1, &index("a", "i"))]).await;

    assert_eq!(answered.stats.secrets_requests, 1);
}

#[tokio::test]
async fn a_reading_that_the_time_was_up_for_is_counted() {
    let world = World::start().await;
    world.stack.secrets.faults().add(Rule::any(Fault::Hang).forever());

    let payload = event([written(1, &index("a", "i"))]);
    let answered = world.handle_within(&payload, Duration::from_secs(2)).await;

    assert_eq!(answered.failures(), ["1"]);
    assert_eq!(answered.stats.secrets_requests, 1);
}
