//! A dash in a name can give query configs of two indexes one key: a/b-c and a-b/c.

use serde_json::Value;
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::QUERY_CONFIGS;
use testbed::table::to_item;

use crate::helpers::*;

/// The twins, in the order of their accounts, each with a boost of its own.
fn twins() -> [Value; 2] {
    [query_config("a", "b-c", "q", 1), query_config("a-b", "c", "q", 2)]
}

fn key() -> String {
    let key = query_config_key("a", "b-c", "q");
    assert_eq!(key, query_config_key("a-b", "c", "q"));
    key
}

fn key_of(item: &Value) -> (&str, &str) {
    (item["pk"].as_str().unwrap(), item["sk"].as_str().unwrap())
}

/// The boost that KV holds under the twins' key.
fn boost(world: &World) -> Option<u64> {
    world.stack.kv.get(QUERY_CONFIGS, &key())?.json()["boost"].as_u64()
}

fn deleted(world: &World) -> Vec<String> {
    let deletes = world.stack.kv.log_of(KvVerb::DeleteBulk).into_iter();
    deletes.flat_map(|delete| delete.keys).collect()
}

#[tokio::test]
async fn of_several_twins_the_first_by_account_and_index_has_the_key() {
    let world = World::start().await;
    let items = [
        query_config("a-b-c", "d", "q", 3),
        query_config("a-b", "c-d", "q", 2),
        query_config("a", "b-c-d", "q", 1),
    ];
    world.settled_with(items).await;
    let key = query_config_key("a", "b-c-d", "q");
    for (pk, sk, has) in [
        ("a-b-c", "INDEX#d#QUERY#q", Some(1)),
        ("a", "INDEX#b-c-d#QUERY#q", Some(2)),
        ("a-b", "INDEX#c-d#QUERY#q", None),
    ] {
        world.stack.table.delete(pk, sk);

        world.deliver_ok().await;

        let stored = world.stack.kv.get(QUERY_CONFIGS, &key);
        assert_eq!(stored.map(|stored| stored.json()["boost"].clone()), has.map(Value::from));
    }
}

#[tokio::test]
async fn twins_that_go_together_leave_no_key() {
    let world = World::start().await;
    world.settled_with(twins()).await;
    for twin in &twins() {
        let (pk, sk) = key_of(twin);
        world.stack.table.delete(pk, sk);
    }

    world.deliver_ok().await;
    assert_eq!(boost(&world), None);
    assert_eq!(deleted(&world), [key()], "once");
    let log = world.stack.table.log();
    let read: Vec<&str> =
        log.iter().flat_map(|read| &read.keys).map(|(pk, _)| pk.as_str()).collect();
    assert!(read.contains(&"a") && read.contains(&"a-b"), "{read:?}");
}

#[tokio::test]
async fn a_twin_that_comes_while_an_orphan_is_removed_gets_the_key() {
    for moment in ["/keys", "/bulk/delete"] {
        let world = World::start().await;
        let [first, second] = twins();
        world.settled_with([index("z", "other"), first.clone()]).await;
        let (pk, sk) = key_of(&first);
        world.stack.table.delete(pk, sk);
        let come = world.after(move |table| table.put(&second));
        let path = format!("/{QUERY_CONFIGS}{moment}");
        let method = if moment == "/keys" { "GET" } else { "POST" };
        world.break_kv(Rule::on(method, path, come));

        let answered = world.handle(&repair()).await;

        assert_eq!(boost(&world), Some(2), "{moment}");
        assert_eq!(answered.ok()["query_configs"]["deleted"], 0, "{moment}");
    }
}

#[tokio::test]
async fn what_a_re_export_wrote_of_a_twin_that_went_meanwhile_becomes_the_others() {
    let world = World::start().await;
    let [first, second] = twins();
    world.stack.table.load([&index("a", "b-c"), &first, &second].map(to_item));
    let go = world.after(move |table| table.delete("a", "INDEX#b-c#QUERY#q"));
    world.break_kv(Rule::on("PUT", format!("/{QUERY_CONFIGS}/bulk"), go));

    let payload = re_export_all("a", "b-c");
    let answered = world.handle(&payload).await;

    answered.ok();
    assert_eq!(boost(&world), Some(2));
}

#[tokio::test]
async fn what_cannot_be_read_of_a_key_fails_its_removal() {
    let get = || Rule::on("POST", format!("/{QUERY_CONFIGS}/bulk/get"), Fault::status(503));
    let read = |request: &testbed::http::Request| {
        matches!(request.operation(), Some("GetItem" | "BatchGetItem"))
    };
    for broken in ["metadata", "table", "nothing"] {
        let world = World::start().await;
        world.settled_with([query_config("a", "i", "q", 1)]).await;
        world.stack.table.delete("a", "INDEX#i#QUERY#q");
        match broken {
            "metadata" => world.break_kv(get().forever()),
            "table" => {
                let throttled = Rule::when(read, Fault::throttled());
                world.break_table(throttled.forever());
            }
            _ => {}
        }

        let answered = world.deliver().await;

        let fails = broken != "nothing";
        assert_eq!(answered.failures().len(), usize::from(fails), "{broken}");
        assert_eq!(world.query_config_keys().len(), usize::from(fails), "{broken}");
        assert_eq!(deleted(&world).is_empty(), fails, "{broken}");
    }
}
