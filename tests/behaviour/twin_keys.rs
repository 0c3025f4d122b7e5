//! A dash in a name can give query configs of two indexes one key: a/b-c and a-b/c.

use serde_json::Value;
use testbed::faults::{Fault, Rule};
use testbed::stack::QUERY_CONFIGS;
use testbed::table::to_item;

use crate::helpers::*;

/// The twins, in the order of their accounts, each with a boost of its own.
fn twins() -> [Value; 2] {
    assert_eq!(query_config_key("a", "b-c", "q"), query_config_key("a-b", "c", "q"));
    [query_config("a", "b-c", "q", 1), query_config("a-b", "c", "q", 2)]
}

/// The boost that KV holds under the twins' key.
fn boost(world: &World) -> Option<u64> {
    world.query_config("a", "b-c", "q")?["boost"].as_u64()
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
async fn a_twin_that_comes_while_an_orphan_is_removed_gets_the_key() {
    for moment in ["/keys", "/bulk/delete"] {
        let world = World::start().await;
        let [first, second] = twins();
        world.settled_with([index("z", "other"), first.clone()]).await;
        world.remove(&first);
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
    let go = world.after(|table| table.delete("a", "INDEX#b-c#QUERY#q"));
    world.break_kv(Rule::on("PUT", format!("/{QUERY_CONFIGS}/bulk"), go));

    let answered = world.handle(&re_export_all("a", "b-c")).await;

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
        assert_eq!(world.deletes().is_empty(), fails, "{broken}");
    }
}
