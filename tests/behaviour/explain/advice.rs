//! One sentence about the worst that was found.

use serde_json::{Value, json};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

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
async fn a_key_whose_value_names_a_rejected_item_leads_to_that_item() {
    let world = World::start().await;
    world.settled_with([shop("b", "j", "s.example")]).await;
    // b/j leaves the key and breaks, so the key stays; a/i has another.
    world.stack.table.put(&index_with("b", "j", json!({"index_endpoint": "x"})));

    let report = asked(&world, &of_key("s.example")).await;

    assert_eq!(report["item"], "rejected");
    assert_eq!(verdicts(&report), [("b-j", "rejected"), ("s.example", "rejected")]);

    // Or it asks for what was the key of an index that is gone.
    world.hold(SETTINGS, "a-i", &held_settings("a", "i"), Writer::Ours);
    world.stack.table.put(&with(broken("b", "j"), json!({"shop_id": "a-i"})));
    let report = asked(&world, &of_index("a", "i")).await;
    assert_eq!((&report["item"], verdicts(&report)), (&json!("absent"), vec![("a-i", "rejected")]));
    assert!(advice(&report).contains("run make explain ACCOUNT=b INDEX=j"), "{report}");
}

#[tokio::test]
async fn a_key_that_is_deleted_once_the_api_key_is_known_says_when() {
    let world = World::impatient().await;
    world.settled_with([index("a", "i")]).await;
    world.hold(SETTINGS, "old.example", &held_settings("a", "i"), Writer::Ours);
    world.break_api_keys(testbed::faults::Fault::status(503));

    let report = asked(&world, &of_key("old.example")).await;

    let advice = advice(&report);
    assert!(advice.starts_with("No item asks for old.example, and the account's API"), "{advice}");
}

/// The reconcile that is advised: of one account, or of everything.
fn advised_repair(report: &Value) -> (Option<&str>, Value) {
    let (_, arguments) = advice(report)
        .split_once("make reconcile APPLY=true")
        .unwrap_or_else(|| panic!("{report}"));
    let account = arguments.strip_prefix(" ACCOUNT=");
    let account = account.map(|rest| rest.split([',', '.']).next().unwrap());
    (account, repair_of(account))
}

fn repair_of(account: Option<&str>) -> Value {
    account.map_or_else(repair, |account| of_account(account, true))
}

/// Expects that a repair is advised for `key`, that it deletes it, and that it is one of the account
/// exactly where that finds the key.
async fn expect_repair(world: &World, key: &str, account: Option<&str>) {
    world.forget();
    let report = asked(world, &of_key(key)).await;
    let (advised, payload) = advised_repair(&report);
    assert_eq!(advised, account, "{report}");
    // An alias that withholds the key is switched off first, as is advised.
    world.stack.table.put(&index("live", "i"));
    if account.is_none() {
        world.handle(&of_account("a", true)).await.ok();
        assert!(world.stack.kv.get(SETTINGS, key).is_some(), "a run of the account finds {key}");
    }
    world.handle(&payload).await.ok();
    assert!(world.stack.kv.get(SETTINGS, key).is_none(), "{key} is there after {payload}");
}

#[tokio::test]
async fn an_orphaned_shop_id_is_left_to_a_run_of_its_account_only_where_a_value_leads_there() {
    for (leads_there, account) in [(true, Some("a")), (false, None)] {
        let world = World::start().await;
        world.settled_with([shop("a", "i", "s.example"), index("live", "i")]).await;
        world.stack.table.delete("a", "INDEX#i");
        if !leads_there {
            world.stack.kv.delete(SETTINGS, "a-i");
        }

        expect_repair(&world, "s.example", account).await;
    }
}

#[tokio::test]
async fn a_shop_id_that_changed_is_left_to_a_full_run_once_the_index_ids_value_names_the_new_one() {
    for (old, account) in [("old.example", None), ("a-old", Some("a"))] {
        let world = World::start().await;
        world.settled_with([shop("a", "i", old), index("live", "i")]).await;
        world.stack.table.put(&shop("a", "i", "new.example"));
        world.handle(&re_export("a", "i")).await.ok();

        expect_repair(&world, old, account).await;
    }
}

#[tokio::test]
async fn a_withheld_shop_id_is_left_to_a_run_of_its_account_only_where_a_value_leads_there() {
    for (leads_there, account) in [(true, Some("a")), (false, None)] {
        let world = World::start().await;
        world.settled_with([shop("a", "i", "s.example")]).await;
        if !leads_there {
            world.stack.table.put(&shop("a", "i", "new.example"));
            world.handle(&re_export("a", "i")).await.ok();
        }
        world.stack.table.delete("a", "INDEX#i");
        world.stack.table.put(&pointing("live", "i", "a-i"));

        expect_repair(&world, "s.example", account).await;
    }
}

#[tokio::test]
async fn an_orphaned_query_config_is_left_to_a_run_of_its_account() {
    let world = World::start().await;
    world.settled_with([query_config("a-b", "c", "q", 1), index("live", "i")]).await;
    world.stack.table.delete("a-b", "INDEX#c#QUERY#q");
    let key = query_config_key("a-b", "c", "q");

    let report = asked(&world, &of_key(&key)).await;
    let (account, payload) = advised_repair(&report);
    assert_eq!(account, Some("a-b"));
    world.handle(&payload).await.ok();
    assert!(world.stack.kv.get(QUERY_CONFIGS, &key).is_none());
}

#[tokio::test]
async fn an_index_whose_own_aliases_point_at_nothing_is_told_so() {
    let world = World::start().await;
    let item = |targets: &[&str]| {
        let targets: Vec<_> = targets.iter().map(|id| json!({"index_id": id})).collect();
        let writes = json!({"doc_writes": {"enabled": true, "targets": targets}});
        index_with("a", "i", json!({"read_alias": "a-gone", "index_aliases": writes}))
    };
    world.stack.table.put(&index("b-c", "d"));
    world.settled_with([item(&["a-i", "a-kept", "b-c-d", ".."]), index("a", "kept")]).await;
    world.stack.table.delete("a", "INDEX#kept");

    for payload in [of_index("a", "i"), of_key("a-i")] {
        world.forget();
        let report = asked(&world, &payload).await;
        assert_eq!(verdicts(&report), [("a-i", "right")]);
        let says = "active aliases of this index point at a-gone, of which there is neither";
        assert!(advice(&report).contains(says), "{report}");
        assert!(!advice(&report).contains("Nothing is to be done"), "{report}");
        assert!(world.stack.kv.log().len() <= 3);
    }
    // As many aliases as a table's item holds take no more requests.
    let many: Vec<String> = (0..500).map(|n| format!("a-gone-{n}")).collect();
    world.stack.table.put(&item(&many.iter().map(String::as_str).collect::<Vec<_>>()));
    world.forget();
    let report = asked(&world, &of_key("a-i")).await;
    assert!(advice(&report).contains("and 47 more, of which there is neither"), "{report}");
    assert!(world.stack.kv.log().len() <= 3);
}

#[tokio::test]
async fn names_in_a_command_are_words_for_the_shell() {
    let world = World::start().await;
    world.stack.table.put(&index("it's", "$(rm)"));

    let report = asked(&world, &of_index("it's", "$(rm)")).await;

    let command = r"run make re-export ACCOUNT='it'\''s' INDEX='$(rm)'";
    assert!(advice(&report).contains(command), "{report}");
}
