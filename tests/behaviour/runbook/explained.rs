//! What `make explain` says of each symptom.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::practice::*;
use crate::helpers::*;

/// `make explain KEY=…`, with at most three requests to KV, none of which writes.
async fn explained(practice: &Practice, key: &str) -> Value {
    practice.stack.kv.clear_log();
    let report = practice.invoke(json!({"explain": {"key": key}})).await.unwrap();
    let requests = practice.stack.kv.log();
    assert!((1..=3).contains(&requests.len()), "{requests:?}");
    assert!(requests.iter().all(|request| !request.verb.writes()), "{requests:?}");
    report
}

/// The verdict of the key that was asked about, where it differs, and the command that is advised.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    verdict: String,
    differs: String,
    command: String,
}

async fn told(practice: &Practice, key: &str) -> Told {
    let report = explained(practice, key).await;
    let keys = report["keys"].as_array().unwrap();
    let asked = keys.iter().find(|found| found["key"] == key).unwrap();
    let advice = report["advice"].as_str().unwrap();
    let command = advice.split("run make ").nth(1).unwrap_or_default();
    let command: Vec<&str> = command
        .split([' ', ',', ':', '.', ';'])
        .take_while(|word| word.contains(['=', '-']) || ["reconcile", "explain"].contains(word))
        .collect();
    Told {
        verdict: asked["verdict"].as_str().unwrap().to_owned(),
        differs: asked["differs"].to_string(),
        command: command.join(" "),
    }
}

fn expect(verdict: &str, differs: Value, command: &str) -> Told {
    Told { verdict: verdict.to_owned(), differs: differs.to_string(), command: command.to_owned() }
}

#[tokio::test]
async fn the_symptoms_of_settings_are_told_apart() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    let names = ["broken", "late", "hand", "rotated", "removed", "kept", "fine"];
    let items = names.map(|name| shop(name, "i", &format!("{name}.example")));
    practice.put(&poller, items.into_iter().chain([query_config("fine", "i", "q", 1)])).await;

    // Settings not reaching the proxy: the record cannot be exported, or has not come.
    let broken = json!({"shop_id": "broken.example", "index_endpoint": "nonsense"});
    practice.put(&poller, [index_with("broken", "i", broken)]).await;
    drop(poller);
    practice.stack.table.put(&shop("new", "i", "new.example"));
    // Stale after an update.
    let off = json!({"shop_id": "late.example", "pixel_id": "changed"});
    practice.stack.table.put(&index_with("late", "i", off));
    // Right in the table but wrong in KV.
    practice.stack.kv.put(SETTINGS, "hand.example", r#"{"changed":"by hand"}"#, None);
    // An API key old in KV.
    practice.stack.api_keys.set("rotated", "another");
    // An index removed but still served.
    practice.stack.table.delete("removed", "INDEX#i");
    practice.stack.table.delete("kept", "INDEX#i");
    practice.stack.table.put(&pointing("live", "i", "kept-i"));
    // A query override that does not work.
    let query = query_config_key("fine", "i", "q");
    assert!(practice.stack.kv.delete(QUERY_CONFIGS, &query));

    let all = ["shop_id", "system_account_id"];
    let by_hand = json!(["changed", "index_name", "index_url", "marqo_api_key", all[0], all[1]]);
    let rows = [
        ("broken.example", expect("rejected", json!([]), "")),
        ("new.example", expect("missing", json!([]), "re-export ACCOUNT=new INDEX=i")),
        ("late.example", expect("stale", json!(["pixel_id"]), "re-export ACCOUNT=late INDEX=i")),
        ("hand.example", expect("stale", by_hand, "re-export ACCOUNT=hand INDEX=i")),
        (
            "rotated.example",
            expect("stale", json!(["marqo_api_key"]), "reconcile APPLY=true ACCOUNT=rotated"),
        ),
        ("removed.example", expect("orphaned", json!([]), "reconcile APPLY=true ACCOUNT=removed")),
        ("kept.example", expect("withheld", json!([]), "reconcile APPLY=true ACCOUNT=kept")),
        ("fine.example", expect("right", json!([]), "")),
        (
            query.as_str(),
            expect("missing", json!([]), "re-export ACCOUNT=fine INDEX=i QUERY_CONFIGS=true"),
        ),
    ];
    let mut different = BTreeSet::new();
    for (key, expected) in rows {
        let told = told(&practice, key).await;
        assert_eq!(told, expected, "{key}");
        assert!(different.insert(told), "{key}");
    }

    // What is advised helps.
    practice.re_export("new", "i").await.unwrap();
    practice.re_export("hand", "i").await.unwrap();
    for account in ["rotated", "removed"] {
        practice.repair_account(account).await;
    }
    for key in ["new.example", "hand.example", "rotated.example"] {
        assert_eq!(told(&practice, key).await, expect("right", json!([]), ""), "{key}");
    }
    let gone = practice.invoke(json!({"explain": {"key": "removed.example"}})).await.unwrap_err();
    assert_eq!(gone.error_type, "IndexNotFound");
}
