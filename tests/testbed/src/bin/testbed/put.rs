//! `testbed put`: an item for the table of `testbed up`.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testbed::http::Reply;
use testbed::stack::TABLE;
use testbed::table::{call, to_item};

use crate::args::Args;
use crate::{Outcome, no_stack};

pub async fn run(mut args: Args) -> Outcome {
    let url = format!("http://127.0.0.1:{}", args.ports()?.dynamodb);
    let with_targets = args.flag("--targets");
    let file = args.command().ok_or("the file with the item is missing")?;
    args.end()?;
    let text = std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?;
    let mut item: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{file}: {error}"))?;
    if item["pk"].is_null() {
        item = item["item"].take();
    }
    if with_targets {
        for target in targets(&item) {
            put_if_absent(&url, &target).await?;
        }
    }
    let reply = put(&url, json!({"TableName": TABLE, "Item": item})).await?;
    if !reply.status.is_success() {
        return Err(format!("{file}: {}", String::from_utf8_lossy(&reply.body)).into());
    }
    say("put", &item);
    Ok(())
}

async fn put(url: &str, request: Value) -> Result<Reply, String> {
    call(url, "PutItem", &request).await.map_err(no_stack)
}

/// An alias without its target would be reported as dangling.
async fn put_if_absent(url: &str, item: &Value) -> Outcome {
    let condition = "attribute_not_exists(pk)";
    let request = json!({"TableName": TABLE, "Item": item, "ConditionExpression": condition});
    let reply = put(url, request).await?;
    if reply.status.is_success() {
        say("put", item);
        return Ok(());
    }
    let said = String::from_utf8_lossy(&reply.body);
    if said.contains("ConditionalCheckFailed") { Ok(()) } else { Err(said.into()) }
}

fn say(what: &str, item: &Value) {
    let [pk, sk] = [&item["pk"]["S"], &item["sk"]["S"]].map(|key| key.as_str().unwrap_or("?"));
    println!("{what} {pk} {sk}");
}

/// The smallest items for the indexes of the same account that an item's alias blocks point at.
fn targets(item: &Value) -> Vec<Value> {
    let account = item["pk"]["S"].as_str().unwrap_or_default();
    let blocks =
        item["index_aliases"]["M"].as_object().into_iter().flat_map(|blocks| blocks.values());
    let ids = blocks.flat_map(|block| {
        let targets = block["M"]["targets"]["L"].as_array().into_iter().flatten();
        let listed = targets.map(|target| &target["M"]["index_id"]);
        listed.chain([&block["M"]["index_id"]]).filter_map(|id| id["S"].as_str())
    });
    let names: BTreeSet<&str> =
        ids.filter_map(|id| id.strip_prefix(account)?.strip_prefix('-')).collect();
    let index = |name: &str| {
        to_item(&json!({
            "pk": account, "sk": format!("INDEX#{name}"),
            "index_endpoint": format!("https://{name}.example.com"),
        }))
    };
    names.into_iter().map(index).filter(|target| target["sk"] != item["sk"]).collect()
}
