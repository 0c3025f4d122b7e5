//! `testbed put`: an item for the table of `testbed up`.

use serde_json::{Value, json};
use testbed::stack::TABLE;
use testbed::table::call;

use crate::Outcome;
use crate::args::Args;

pub async fn run(mut args: Args) -> Outcome {
    let port = args.ports()?.dynamodb;
    let file = args.command().ok_or("the file with the item is missing")?;
    args.end()?;
    let text = std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?;
    let mut item: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{file}: {error}"))?;
    if item["pk"].is_null() {
        item = item["item"].take();
    }
    let url = format!("http://127.0.0.1:{port}");
    let reply = call(&url, "PutItem", &json!({"TableName": TABLE, "Item": item})).await?;
    if !reply.status.is_success() {
        return Err(format!("{file}: {}", String::from_utf8_lossy(&reply.body)).into());
    }
    println!("put {} {}", item["pk"]["S"], item["sk"]["S"]);
    Ok(())
}
