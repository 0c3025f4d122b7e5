//! The Cloudflare token is refused.

use testbed::faults::{Fault, Rule};
use testbed::stack::{SETTINGS, TOKEN_SECRET};

use crate::helpers::*;

#[tokio::test]
async fn a_refused_token_is_read_again_and_the_request_repeated_once() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    world.stack.kv.set_token("rotated");
    world.stack.secrets.set(TOKEN_SECRET, r#"{"token":"rotated"}"#);

    world.batch_ok([written(9, &index("a", "j"))]).await;

    assert_eq!(world.stack.secrets.log().len(), 1);
    assert_eq!(world.puts(SETTINGS).len(), 2);
}

#[tokio::test]
async fn a_token_that_stays_refused_is_cloudflare_auth_rejected_in_a_batch_and_by_hand() {
    let world = World::start().await;
    world.load([index("a", "i")]);
    world.stack.kv.set_token("another");

    let answered = world.batch([written(1, &index("a", "i"))]).await;
    assert_eq!(answered.failures(), ["1"]);
    let error = world.logs.only("record failed")["error"].to_string();
    assert!(error.contains("CloudflareAuthRejected"), "{error}");
    assert_eq!(world.stack.kv.log().len(), 2, "the request is repeated once");

    // It has no API key, so that KV is read for one to use again.
    world.load([index("b", "i")]);
    world.stack.api_keys.remove("b");
    let unreadable = Fault::aws(400, "AccessDeniedException", "not authorized");
    for (name, fault) in
        [("the same token again", None), ("it can't be read again", Some(unreadable))]
    {
        let _row = row(name);
        fault.into_iter().for_each(|it| world.stack.secrets.faults().add(Rule::any(it).forever()));
        for payload in [re_export("a", "i"), re_export("b", "i"), repair(), explain_index("a", "i")]
        {
            let answered = world.handle(&payload).await;
            assert_eq!(answered.error().kind, "CloudflareAuthRejected", "{payload}");
        }
    }
}
