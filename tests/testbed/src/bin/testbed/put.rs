//! `testbed put`: an item for the table of `testbed up`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::stack::TABLE;
use testbed::table::{call, to_item};

use crate::args::Args;
use crate::invoke::log;
use crate::screen::plain;
use crate::{Outcome, no_stack};

const LONGEST_WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

pub async fn run(mut args: Args) -> Outcome {
    let ports = args.ports()?;
    let url = format!("http://127.0.0.1:{}", ports.dynamodb);
    let logged = log(&format!("http://127.0.0.1:{}", ports.lambda)).await?.len();
    let with_targets = args.flag("--targets");
    let file = args.command().ok_or("the file with the item is missing")?;
    args.end()?;
    let text = std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?;
    let mut item: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{file}: {error}"))?;
    if item["pk"].is_null() {
        item = item["item"].take();
    }
    let targets = if with_targets { targets(&item) } else { Vec::new() };
    for (item, condition) in
        targets.iter().map(|item| (item, Some("attribute_not_exists(pk)"))).chain([(&item, None)])
    {
        let mut request = json!({"TableName": TABLE, "Item": item});
        if let Some(condition) = condition {
            request["ConditionExpression"] = condition.into();
        }
        let reply = call(&url, "PutItem", &request).await.map_err(no_stack)?;
        let said = String::from_utf8_lossy(&reply.body);
        if reply.status.is_success() {
            println!("put {} {}", plain(&item["pk"]["S"]), plain(&item["sk"]["S"]));
        } else if !said.contains("ConditionalCheckFailed") {
            return Err(format!("{file}: {said}").into());
        }
    }
    exported(&format!("http://127.0.0.1:{}", ports.lambda), &item, logged).await
}

/// Waits until the function has exported an item, so that the next command finds it in KV.
async fn exported(lambda: &str, item: &Value, logged: usize) -> Outcome {
    let name = item["sk"]["S"].as_str().unwrap_or_default().trim_start_matches("INDEX#");
    let name = format!("\"index_name\":{}", json!(name.split('#').next()));
    let until = Instant::now() + LONGEST_WAIT;
    while Instant::now() < until {
        let log = log(lambda).await?;
        let is_exported = |line: &str| line.contains("\"exported\"") && line.contains(&name);
        if String::from_utf8_lossy(&log[logged..]).lines().any(is_exported) {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    println!("not exported yet: the stack's terminal says why");
    Ok(())
}

/// The smallest items for the indexes of the same account that an item's alias blocks point at. Without
/// them, the alias would be reported as dangling.
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
