//! One sentence about the worst that was found.

use serde_json::json;
use testbed::stack::SETTINGS;

use super::asking::*;
use crate::helpers::*;

#[tokio::test]
async fn the_worst_comes_first() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "old.example")]).await;
    world.stack.table.put(&shop("a", "i", "new.example"));
    let advised = async || advice(&asked(&world, &of_index("a", "i")).await).to_owned();

    assert!(advised().await.starts_with("KV lacks new.example"));
    world.hold(SETTINGS, "new.example", &held_settings("a", "i"), Writer::Ours);
    assert!(advised().await.starts_with("KV holds something else under"));
    world.stack.table.put(&shop("b", "j", "new.example"));
    assert!(advised().await.starts_with("Items a/i and b/j ask for new.example"));
    world.stack.table.put(&index_with("a", "i", json!({"index_endpoint": "x"})));
    assert!(advised().await.starts_with("The field index_endpoint must be"));
}

#[tokio::test]
async fn a_dry_run_says_that_kv_was_not_read() {
    let dry_run = [("CLOUDFLARE_ACCOUNT_ID", "")];
    let stack = crate::process::stack().await;
    stack.table.put(&index("a", "i"));
    let function = crate::process::function(&stack, &dry_run).await;

    let answer = crate::process::invoke(&function, &of_index("a", "i")).await.result.unwrap();

    assert!(advice(&answer).contains("this is a dry run"), "{answer}");
}

#[tokio::test]
async fn a_key_whose_value_names_a_rejected_item_leads_to_that_item() {
    let world = World::start().await;
    world.settled_with([shop("b", "j", "s.example")]).await;
    // b/j leaves the key and breaks, so the key stays; a/i has another.
    world.stack.table.put(&index_with("b", "j", json!({"index_endpoint": "x"})));

    let report = asked(&world, &of_key("s.example")).await;

    assert_eq!(report["item"], "rejected");
    assert_eq!(verdicts(&report), [("b-j", "rejected"), ("s.example", "rejected")]);
}
