//! Each incident of `make drill`, followed on the page to its end.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::drills;
use testbed::kv::Kv;
use testbed::poller::{Poller, PollerOptions};
use testbed::stack::{SETTINGS, TOKEN_SECRET};

use super::practice::*;
use super::query::query;
use crate::helpers::{audit, index};

const PATIENCE: Duration = Duration::from_secs(60);

/// A stack as `make local` starts it: nothing is given up.
async fn local() -> (Practice, Poller) {
    let practice = Practice::start().await;
    let options = PollerOptions::default();
    let poller = practice.stack.poll(&practice.function, options);
    (practice, poller)
}

async fn play(practice: &Practice, step: &str) -> String {
    drills::play(step, &practice.stack, &practice.function).await.unwrap()
}

fn pixel_id(practice: &Practice) -> Value {
    practice.setting("north.example").unwrap()["pixel_id"].clone()
}

/// Waits until the settings of north hold this.
async fn until(practice: &Practice, field: &str, value: &str) {
    let holds = |kv: &Kv| kv.get(SETTINGS, "north.example").unwrap().json()[field] == value;
    assert!(practice.stack.kv.wait_until(PATIENCE, holds).await, "{field}");
}

#[tokio::test]
async fn a_dead_cell() {
    let (practice, poller) = local().await;
    let said = play(&practice, "dead-cell").await;
    assert!(said.contains("docs/runbook/records-parked.md"), "{said}");

    // The shop that KV knows gets its change, the new one has to wait.
    until(&practice, "pixel_id", "new").await;
    let warnings = practice.ask(&query("warnings"));
    assert!(warnings.iter().any(|line| line["cell"] == "local-2"), "{warnings:?}");
    assert!(practice.setting("south.example").is_none());
    assert_ne!(practice.audit().await["settings"]["failed"], 0);
    let warnings = practice.ask(&query("warnings"));
    assert!(warnings.iter().any(|line| line["cells"] == "local-2"), "of the audit: {warnings:?}");

    play(&practice, "cell-repaired").await;
    practice.repair().await;
    poller.caught_up().await;
    practice.assert_equal(&practice.audit().await);
    assert!(practice.setting("south.example").is_some());
}

#[tokio::test]
async fn a_stuck_shard() {
    let (practice, poller) = local().await;
    play(&practice, "stuck-shard").await;

    assert_ne!(pixel_id(&practice), "urgent");
    practice.re_export("north", "shop").await.unwrap();
    assert_eq!(pixel_id(&practice), "urgent", "past the shard");
    let records = practice.ask(&query("records"));
    assert!(records.iter().all(|line| line["system_account_id"] == "west"), "{records:?}");
    assert!(records.iter().any(|line| line["error"].to_string().contains("Scan")), "{records:?}");

    play(&practice, "permission-back").await;
    poller.caught_up().await;
    practice.assert_equal(&practice.audit().await);
    assert!(practice.setting("west.example").is_none());
}

#[tokio::test]
async fn all_keys_gone() {
    let (practice, _poller) = local().await;
    play(&practice, "all-keys-gone").await;
    assert!(practice.stack.kv.keys(SETTINGS).is_empty());

    let audit = practice.audit().await;
    assert_eq!(audit["settings"]["missing"], audit["settings"]["desired"]);
    practice.repair().await;
    practice.assert_equal(&practice.audit().await);
}

#[tokio::test]
async fn a_leaked_token() {
    let (practice, _poller) = local().await;
    play(&practice, "leaked-token").await;
    let forged =
        || practice.setting("north.example").unwrap()["index_url"] == "https://thief.example";
    assert!(forged());

    let said = play(&practice, "new-token").await;
    let token = said.split_whitespace().last().unwrap();
    practice.stack.secrets.set(TOKEN_SECRET, token);
    practice.assert_equal(&practice.audit().await);
    play(&practice, "old-token-revoked").await;
    practice.assert_equal(&practice.audit().await);
    assert!(forged(), "an audit does not see it");
    let explain = json!({"explain": {"key": "north.example"}});
    let report = practice.invoke(explain).await.unwrap();
    assert!(report.to_string().contains("index_url"), "{report}");

    play(&practice, "new-api-keys").await;
    practice.repair().await;
    assert!(!forged(), "another API key is another value");
}

#[tokio::test]
async fn a_bad_release() {
    let (practice, poller) = local().await;
    play(&practice, "bad-release").await;
    assert!(practice.function.invoke(&audit()).await.is_err(), "it does not start");

    play(&practice, "release-before").await;
    poller.caught_up().await;

    assert_eq!(pixel_id(&practice), "after the release");
    practice.assert_equal(&practice.audit().await);
}

#[tokio::test]
async fn a_refused_repair() {
    let (practice, poller) = local().await;
    let said = play(&practice, "half-restored").await;
    assert!(said.contains("docs/runbook/repair-refused.md"), "{said}");
    let held = practice.stack.kv.snapshot(SETTINGS);

    // No index item at all is another reason than too few.
    practice.stack.table.put(&index("west", "shop"));
    poller.caught_up().await;
    let audit = practice.audit().await;
    assert_eq!(audit["refused"]["delete"], 250);
    let repair = practice.repair().await;
    assert_eq!((&repair["refused"]["delete"], &repair["complete"]), (&json!(250), &json!(false)));
    assert_eq!(practice.stack.kv.snapshot(SETTINGS).len(), held.len() + 1, "nothing went");

    play(&practice, "restored").await;
    poller.caught_up().await;
    let audit = practice.audit().await;
    assert_eq!(audit.get("refused"), None);
    practice.assert_equal(&audit);
}

/// What the page has somebody find out about removals that are held: how many, and which.
async fn removals_held(practice: &Practice, poller: &Poller) -> Value {
    let said = play(practice, "held-removals").await;
    assert!(said.contains("docs/runbook/removals-held.md"), "{said}");
    poller.caught_up().await;
    let errors = practice.ask(&query("errors"));
    assert!(errors.iter().any(|line| line["items"].to_string().contains("east/shop-")));
    let audit = practice.audit().await;
    let held = audit["settings"]["orphaned"].clone();
    assert!(held.as_u64() >= Some(150) && audit["refused"]["delete"] == held, "{audit}");
    held
}

#[tokio::test]
async fn held_removals_that_were_meant() {
    let (practice, poller) = local().await;
    let held = removals_held(&practice, &poller).await;
    assert_eq!(practice.repair().await["refused"]["delete"], held);

    let audit = practice.reconcile(json!({"delete_up_to": held})).await;
    assert_eq!(audit.get("refused"), None);
    let repair = practice.reconcile(json!({"apply": true, "delete_up_to": held})).await;
    assert_eq!((&repair["settings"]["deleted"], &repair["complete"]), (&held, &json!(true)));
    practice.assert_equal(&practice.audit().await);
}

#[tokio::test]
async fn held_removals_that_nobody_meant() {
    let (practice, poller) = local().await;
    removals_held(&practice, &poller).await;

    play(&practice, "restored").await;
    poller.caught_up().await;
    let audit = practice.audit().await;
    assert_eq!(audit.get("refused"), None);
    practice.assert_equal(&audit);
}

#[tokio::test]
async fn too_many_requests() {
    let (practice, poller) = local().await;
    play(&practice, "too-many-requests").await;
    let failure = practice.re_export("north", "shop").await.unwrap_err();
    assert!(failure.error_message.contains("429"), "{failure}");
    assert_ne!(pixel_id(&practice), "urgent");

    play(&practice, "limit-over").await;
    practice.re_export("north", "shop").await.unwrap();
    assert_eq!(pixel_id(&practice), "urgent");
    poller.caught_up().await;
    practice.assert_equal(&practice.audit().await);
}
