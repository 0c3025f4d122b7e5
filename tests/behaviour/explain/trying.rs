//! An item is tried before it is saved; an account is listed.

use serde_json::json;
use testbed::kv::KvVerb;

use super::asking::*;
use crate::helpers::*;

#[tokio::test]
async fn an_alias_is_tried_mended_saved_and_served() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example"), index("a", "v2")]).await;
    let before = world.snapshots();

    let report = world
        .report(&trying(&with(shop("a", "i", "s.example"), json!({"read_alias": "a-v3"}))))
        .await;
    let missing = "the alias target a-v3 has neither an item nor a key in KV";
    assert_eq!(report["breaks"], json!([missing]));

    let item = with(shop("a", "i", "s.example"), json!({"read_alias": "a-v2", "pixel_id": "px"}));
    let report = world.report(&trying(&item)).await;
    assert_eq!(report["breaks"], json!([]));
    assert_eq!(verdicts(&report), [("s.example", "stale"), ("a-i", "stale")]);
    let pixel = json!({"path": "pixel_id", "wanted": "px"});
    assert!(report["keys"][0]["values"].as_array().unwrap().contains(&pixel), "{report}");
    assert!((1..=6).contains(&world.stack.kv.log_of(KvVerb::GetBulk).len()));
    assert_eq!(world.snapshots(), before, "nothing was written");

    world.stack.table.put(&item);
    world.deliver().await;
    assert_eq!(world.setting("s.example").unwrap()["pixel_id"], "px");
    assert_eq!(
        verdicts(&world.report(&explain_index("a", "i")).await),
        [("s.example", "right"), ("a-i", "right")]
    );
}

#[tokio::test]
async fn an_account_is_listed_in_parts_and_a_name_that_is_almost_right_is_proposed() {
    let world = World::start().await;
    let items = (0..160)
        .map(|number| shop("a", &format!("i{number:03}"), &format!("s{number:03}.example")));
    world.load(items.chain([index("b", "main"), broken("a", "i998"), index("a", "i999")]));

    let first = world.report(&json!({"explain": {"system_account_id": "a"}})).await;
    assert_eq!(first["indexes"].as_array().unwrap().len(), 150);
    assert_eq!(
        verdicts(&first["indexes"][0]),
        [("s000.example", "missing"), ("a-i000", "missing")]
    );
    let progress = &first["continue"];
    let last =
        world.report(&json!({"explain": {"system_account_id": "a", "continue": progress}})).await;
    assert_eq!(last.get("continue"), None);
    let names: Vec<&str> = last["indexes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["index_name"].as_str().unwrap())
        .collect();
    assert_eq!((names.len(), names[0], names[10], names[11]), (12, "i150", "i998", "i999"));
    assert_eq!(last["indexes"][10]["item"], "rejected");
    assert!(world.stack.kv.log_of(KvVerb::GetBulk).len() <= 4);

    for (payload, proposed) in [
        (explain_index("b", "mian"), "; the account has main"),
        (explain_index("c", "main"), "; the account has no index"),
        (json!({"explain": {"system_account_id": "c"}}), "an index of account c"),
    ] {
        let answered = world.handle(&payload).await;
        assert_eq!(answered.error().kind, "IndexNotFound");
        assert!(answered.error().message.contains(proposed), "{:?}", answered.error());
    }
}
