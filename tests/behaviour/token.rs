//! The Cloudflare token: where it comes from, and what happens when it is refused.

use std::time::Duration;

use testbed::faults::{Fault, Rule};
use testbed::stack::{TOKEN, TOKEN_SECRET};
use testbed::stream::event;

use crate::helpers::*;

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

        world.batch_ok([written(9, &index("a", "j"))]).await;
        assert_eq!(world.setting_keys(), ["a-i", "a-j"]);
        assert_eq!(world.stack.secrets.log().len(), 1);
        assert_eq!(world.puts(testbed::stack::SETTINGS).len(), 2);
    }
}

#[tokio::test]
async fn a_token_that_stays_refused_fails_the_records_as_cloudflare_auth_rejected() {
    let world = World::start().await;
    world.stack.kv.set_token("another");

    let records = [written(1, &index("a", "i")), written(2, &query_config("a", "i", "q", 1))];
    let answered = world.batch(records).await;

    assert_eq!(answered.failures(), ["1", "2"]);
    let failed = world.logs.of("record failed");
    assert_eq!(failed.len(), 2);
    for line in failed {
        assert!(line["error"].as_str().unwrap().contains("CloudflareAuthRejected"), "{line}");
    }
    assert!(world.stack.kv.log().len() <= 4, "each namespace's request is repeated once");
}

#[tokio::test]
async fn a_token_that_is_refused_after_a_lost_try_is_named_with_what_may_be_done() {
    let world = World::start().await;
    world.load([index("a", "i")]);
    world.stack.kv.set_token("another");
    world.break_puts(1, Fault::status(503));

    let answered = world.handle(&re_export("a", "i")).await;

    assert_eq!(answered.error().kind, "CloudflareAuthRejected");
    let message = &answered.error().message;
    assert!(message.contains("KV may hold an older version"), "{message}");
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
    let world = World::with_env(&[("CLOUDFLARE_API_TOKEN", TOKEN)]).await;

    world.batch_ok([written(1, &index("a", "i"))]).await;
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

#[tokio::test]
async fn a_token_that_stays_refused_ends_what_was_asked_for_by_hand() {
    let world = World::start().await;
    world.load([index("a", "i")]);
    world.stack.kv.set_token("another");

    for payload in [re_export("a", "i"), audit(), repair(), of_account("a", true)] {
        let answered = world.handle(&payload).await;
        assert_eq!(answered.error().kind, "CloudflareAuthRejected", "{payload}");
    }
}
