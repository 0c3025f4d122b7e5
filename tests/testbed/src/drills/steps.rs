//! What each step does to the stack.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::alarms::alarm;
use crate::faults::{Fault, Rule};
use crate::http::Request;
use crate::kv::Kv;
use crate::lambda::{Function, Version};
use crate::proxy::digest;
use crate::stack::{ENVIRONMENT, QUERY_CONFIGS, SETTINGS, Stack, TOKEN};

/// How long the stream may take to carry the items of an incident.
const PATIENCE: Duration = Duration::from_secs(20);
const OTHER_CELL: &str = "local-2";
/// What is left of them after the removals that a process carries out is more than an unattended
/// repair deletes.
const LACKING: usize = 250;
const NEW_TOKEN: &str = "new-local-token";
/// A program that ends as soon as it starts.
const CRASHES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/drills/crashes");

pub async fn dead_cell(stack: &Stack) -> Result<String, String> {
    carried(stack, "north", &json!({"cell": OTHER_CELL})).await?;
    stack.api_keys.break_cell(OTHER_CELL, Fault::status(503));
    stack.table.put(&shop("north", &json!({"cell": OTHER_CELL, "pixel_id": "new"})));
    stack.table.put(&shop("south", &json!({"cell": OTHER_CELL})));
    Ok(format!(
        "{}(a minute later)\nSomebody opened the shop south.example, and it does not work.\n",
        alarm("records-parked"),
    ))
}

pub fn cell_repaired(stack: &Stack) -> String {
    stack.api_keys.faults().clear();
    "The gateway of the cell gives API keys again.\n".to_owned()
}

pub async fn stuck_shard(stack: &Stack) -> Result<String, String> {
    carried(stack, "north", &json!({})).await?;
    carried(stack, "west", &json!({})).await?;
    let denied = "is not authorized to perform: dynamodb:Scan on resource: the settings table";
    let denied = Fault::aws(400, "AccessDeniedException", denied);
    let failed = Arc::new(Notify::new());
    let fails = failed.clone();
    let scans = move |request: &Request| {
        let scans = request.operation() == Some("Scan");
        if scans {
            fails.notify_one();
        }
        scans
    };
    stack.table.faults().add(Rule::when(scans, denied).forever());
    stack.table.delete("west", "INDEX#shop");
    // The change comes after the batch with the removal, so that it waits.
    let failed = timeout(PATIENCE, failed.notified()).await;
    failed.map_err(|_| "the stream does not carry the removal of west".to_owned())?;
    stack.table.put(&shop("north", &json!({"pixel_id": "urgent"})));
    Ok(format!(
        "{}The shop north.example has changed its pixel_id to \"urgent\", and needs it now.\n",
        alarm("changes-late"),
    ))
}

pub fn permission_back(stack: &Stack) -> String {
    stack.table.faults().clear();
    "The function's role may scan the table again.\n".to_owned()
}

pub async fn all_keys_gone(stack: &Stack) -> Result<String, String> {
    for account in ["north", "south", "west"] {
        carried(stack, account, &json!({})).await?;
    }
    for namespace in [SETTINGS, QUERY_CONFIGS] {
        for key in stack.kv.keys(namespace) {
            stack.kv.delete(namespace, &key);
        }
    }
    Ok(format!("{}All shops are down.\n", alarm("keys-missing")))
}

pub async fn leaked_token(stack: &Stack) -> Result<String, String> {
    carried(stack, "north", &json!({})).await?;
    forge(&stack.kv, "north.example");
    Ok("No alarm rings. The Cloudflare token has been seen in a public repository, and somebody uses \
        it.\nThis one is over when `make explain KEY=north.example` no longer says `stale`.\n"
        .to_owned())
}

pub fn new_token(stack: &Stack) -> String {
    stack.kv.add_token(NEW_TOKEN);
    format!("Cloudflare has created the token {NEW_TOKEN}\n")
}

pub fn old_token_revoked(stack: &Stack) -> String {
    stack.kv.revoke_token(TOKEN);
    "Cloudflare has revoked the token that leaked.\n".to_owned()
}

pub fn new_api_keys(stack: &Stack) -> String {
    stack.api_keys.rotate();
    "The API keys service has given every account another API key.\n".to_owned()
}

pub async fn bad_release(stack: &Stack, function: &Function) -> Result<String, String> {
    carried(stack, "north", &json!({})).await?;
    let Version { env, .. } = function.live();
    let binary = Path::new(CRASHES).to_owned();
    function.publish(Version { binary, env });
    stack.table.put(&shop("north", &json!({"pixel_id": "after the release"})));
    Ok(format!("{}It began with a release of the exporter.\n", alarm("changes-late"),))
}

pub fn release_before(function: &Function) -> String {
    function.point_live_at(1);
    "The release before is live again.\n".to_owned()
}

/// KV holds these shops of an account, and the table lacks them.
pub fn half_restored(stack: &Stack) -> String {
    for number in 0..LACKING {
        let name = format!("shop-{number}");
        let value = json!({"system_account_id": "east", "index_name": name}).to_string();
        let metadata = json!({
            "digest": digest(&value), "exported_at": "2026-01-01T00:00:00Z", "source": "stream",
            "system_account_id": "east", "index_name": name, "environment": ENVIRONMENT,
        });
        stack.kv.put(SETTINGS, &format!("east-{name}"), &value, Some(metadata));
    }
    alarm("repair-refused")
}

pub async fn held_removals(stack: &Stack) -> Result<String, String> {
    restored(stack);
    // The stream carries this item after those of east.
    carried(stack, "north", &json!({})).await?;
    for number in 0..LACKING {
        stack.table.delete("east", &format!("INDEX#shop-{number}"));
    }
    Ok(alarm("removals-held"))
}

pub fn restored(stack: &Stack) -> String {
    for number in 0..LACKING {
        let endpoint = "https://east.example";
        let sk = format!("INDEX#shop-{number}");
        stack.table.put(&json!({"pk": "east", "sk": sk, "index_endpoint": endpoint}));
    }
    "The table has all of its items again.\n".to_owned()
}

pub async fn too_many_requests(stack: &Stack) -> Result<String, String> {
    carried(stack, "north", &json!({})).await?;
    stack.kv.faults().add(Rule::any(Fault::retry_after(1)).forever());
    stack.table.put(&shop("north", &json!({"pixel_id": "urgent"})));
    Ok("No alarm rings yet. The shop north.example has changed its pixel_id to \"urgent\", and does \
        not see it.\n"
        .to_owned())
}

pub fn limit_over(stack: &Stack) -> String {
    stack.kv.faults().clear();
    "Cloudflare takes requests again.\n".to_owned()
}

fn shop(account: &str, more: &Value) -> Value {
    let mut item = json!({
        "pk": account, "sk": "INDEX#shop", "shop_id": format!("{account}.example"),
        "index_endpoint": format!("https://{account}-shop.example"),
    });
    if let (Some(item), Some(more)) = (item.as_object_mut(), more.as_object()) {
        item.extend(more.clone());
    }
    item
}

/// Changes the index of an account, and waits until KV holds the change.
async fn carried(stack: &Stack, account: &str, more: &Value) -> Result<(), String> {
    let key = format!("{account}.example");
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let mut item = shop(account, more);
    item["pixel_id"] = json!(format!("at {now}"));
    stack.table.put(&item);
    let holds = |kv: &Kv| {
        kv.get(SETTINGS, &key).is_some_and(|stored| stored.json()["pixel_id"] == item["pixel_id"])
    };
    if stack.kv.wait_until(PATIENCE, holds).await {
        return Ok(());
    }
    Err(format!("KV does not get {key}: end the incident before this one, or start again"))
}

/// Writes another endpoint into a value, and keeps the metadata that says that it is right.
fn forge(kv: &Kv, key: &str) {
    if let Some(stored) = kv.get(SETTINGS, key) {
        let mut value = stored.json();
        value["index_url"] = json!("https://thief.example");
        kv.put(SETTINGS, key, &value.to_string(), stored.metadata);
    }
}
