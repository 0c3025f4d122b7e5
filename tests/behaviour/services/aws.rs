//! How AWS is called: signed with the keys of Lambda's environment.

use std::time::Duration;

use testbed::faults::{Fault, Rule};

use crate::helpers::*;

#[tokio::test]
async fn a_call_is_signed_and_may_take_longer_than_the_5_s_after_which_the_sdk_gives_up() {
    let world = World::with_env(&[("AWS_SESSION_TOKEN", "the-session")]).await;
    let spied = spy(world.stack.secrets.faults());
    world.stack.secrets.faults().add(Rule::any(Fault::Delay(Duration::from_secs(8))));

    world.batch_ok([written(1, &index("a", "i"))]).await;

    let [request] = &spied.requests()[..] else { panic!("{:?}", spied.requests()) };
    let authorization = request.header("authorization").unwrap();
    assert!(authorization.contains("Credential=local/"), "{authorization}");
    assert!(authorization.contains("/us-east-1/secretsmanager/"), "{authorization}");
    assert!(authorization.contains("x-amz-security-token"), "{authorization}");
    assert_eq!(request.header("x-amz-security-token"), Some("the-session"));
}
