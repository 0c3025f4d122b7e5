//! From the table through its stream and the real process to KV, byte for byte.

use std::time::Duration;

use testbed::faults::{Fault, Rule};
use testbed::poller::{Poller, PollerOptions};

use crate::process;
use crate::schemas::{Example, example, examples};

/// Far more than anything here takes, so that a failing test does not hang.
const PATIENCE: Duration = Duration::from_secs(120);

async fn caught_up(poller: &Poller) {
    tokio::time::timeout(PATIENCE, poller.caught_up()).await.expect("the stream should be done");
}

#[tokio::test]
async fn items_of_the_table_reach_kv_byte_for_byte_and_leave_it_again() {
    let (stack, function) = process::start().await;
    let options = PollerOptions { window: Duration::ZERO, retry_delay: Duration::from_millis(1) };
    let poller = stack.poll(&function, options);
    // The first delivery fails.
    stack.kv.faults().add(Rule::any(Fault::status(503)).times(4));
    for name in examples() {
        let Example { item, kv } = example(&name);
        stack.table.put_item(&item);
        caught_up(&poller).await;
        for key in &kv.keys {
            let stored = stack.kv.get(kv.namespace(), key).unwrap();
            assert_eq!(stored.value, kv.compact(), "{key} of {name}");
            assert_eq!(stored.metadata.unwrap()["source"], "stream");
        }
        stack.table.delete(item["pk"]["S"].as_str().unwrap(), item["sk"]["S"].as_str().unwrap());
        caught_up(&poller).await;
        assert_eq!(stack.kv.keys(kv.namespace()), [""; 0], "after {name}");
    }
    assert_eq!(function.starts(), 1);
}
