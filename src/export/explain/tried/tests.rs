//! What trying a change says, and what becomes of KV when the change is saved, streamed and repaired.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::export::batch::{Flood, Outcome, export_batch};
use crate::export::explain::report::KeyReport;
use crate::export::explain::{Explain, ExplainError, Subject, explain};
use crate::export::fakes::{Fakes, NOW};
use crate::export::invocation::{Budget, Invocation};
use crate::export::reconcile::{Raised, Reconcile, reconcile};
use crate::item::StreamRecord;
use crate::kv::Source;

/// An item of index `name` of account `a`.
fn index(name: &str, more: Value) -> Value {
    let mut item = json!({
        "pk": {"S": "a"}, "sk": {"S": format!("INDEX#{name}")},
        "index_endpoint": {"S": "https://h"},
    });
    item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    item
}

fn parse(item: &Value) -> (ItemKey, Item) {
    Item::parse(serde_json::value::to_raw_value(item).unwrap()).unwrap()
}

fn shop(name: &str, shop_id: &str) -> Value {
    index(name, json!({"shop_id": {"S": shop_id}}))
}

/// An active alias block with one target.
fn block(name: &str, target: &str) -> Value {
    let fields = match name {
        "analytics" => json!({"enabled": {"BOOL": true}, "index_id": {"S": target}}),
        _ => json!({"enabled": {"BOOL": true},
            "targets": {"L": [{"M": {"index_id": {"S": target}}}]}}),
    };
    json!({"index_aliases": {"M": {name: {"M": fields}}}})
}

fn write_alias(field: &str, name: &str) -> Value {
    let entry = json!({"M": {field: {"S": name}}});
    json!({"add_docs_config": {"M": {"index_write_aliases": {"L": [entry]}}}})
}

/// What is done to the table.
#[derive(Debug, Clone)]
enum Change {
    Save(Value),
    Remove(Value),
}

use Change::{Remove, Save};

struct World(Fakes);

impl World {
    fn invocation(&self, source: Source) -> Invocation<'_, Fakes> {
        let budget = Budget::until(Instant::now() + Duration::from_secs(60));
        Invocation::new(&self.0, &self.0.config, budget, source)
    }

    /// Makes a change, and carries it to KV with the old image.
    async fn change(&self, change: &Change, old: Option<&Value>) -> Vec<Outcome> {
        let (Save(item) | Remove(item)) = change;
        let keys = json!({"pk": item["pk"], "sk": item["sk"]});
        let mut dynamodb = json!({"Keys": keys, "SequenceNumber": "1",
            "ApproximateCreationDateTime": NOW.as_secs()});
        if let Some(old) = old {
            dynamodb["OldImage"] = old.clone();
        }
        let name = match change {
            Save(item) => {
                dynamodb["NewImage"] = item.clone();
                self.0.table.put(parse(item));
                "MODIFY"
            }
            Remove(item) => {
                self.0.table.remove(&parse(item).0);
                "REMOVE"
            }
        };
        let record = json!({"eventName": name, "dynamodb": dynamodb});
        let record = StreamRecord::read(&serde_json::value::to_raw_value(&record).unwrap());
        let outcomes =
            export_batch(&self.invocation(Source::Stream), vec![record], &Flood::default()).await;
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    async fn explain(&self, subject: Subject) -> Result<ExplainReport, ExplainError> {
        let request = Explain { subject, values: false };
        match explain(&self.invocation(Source::ReExport), &request).await? {
            Explained::Index(report) => Ok(report),
            Explained::Account(report) => panic!("{report:?}"),
        }
    }

    async fn repair(&self) {
        let request = Reconcile {
            apply: true,
            preview: false,
            system_account_id: None,
            raised: Raised { deletes: None, rewrites: None },
            progress: None,
        };
        let report = reconcile(&self.invocation(Source::Reconcile), &request).await.unwrap();
        assert!(report.complete, "{report:?}");
    }

    /// What KV holds, without metadata.
    fn held(&self) -> BTreeMap<String, String> {
        let held = self.0.kv.held.borrow();
        held.iter().map(|(key, stored)| (key.clone(), stored.value.clone())).collect()
    }
}

/// Tries a change to a table whose changes so far are in KV, makes it, and compares. Returns what was said.
async fn tried(past: &[Change], change: &Change) -> Result<ExplainReport, ExplainError> {
    let world = World(Fakes::new());
    // A repair deletes nothing where the table has no index.
    world.change(&Save(index("anchor", json!({}))), None).await;
    let mut saved: BTreeMap<ItemKey, Value> = BTreeMap::new();
    for change in past {
        let item = item_of(change);
        let old = match change {
            Save(_) => saved.insert(parse(item).0, item.clone()),
            Remove(_) => saved.remove(&parse(item).0),
        };
        world.change(change, old.as_ref()).await;
    }
    let before = world.held();
    let requests = world.0.kv.requests.borrow().len();

    let (key, content) = parse(item_of(change));
    let content = Some(content).filter(|_| matches!(change, Save(_)));
    let subject = Subject::Item(Tried { key: key.clone(), item: content });
    let report = world.explain(subject).await?;

    assert!(world.0.kv.requests.borrow().len() <= requests + 3);
    assert_eq!(world.held(), before, "trying changes nothing");
    world.change(change, saved.get(&key)).await;
    let mut after = world.held();
    if report.item == ItemState::Rejected {
        assert_eq!(after, before, "{report:?}");
        return Ok(report);
    }
    let streamed = after.clone();
    // What only a value in KV names, and what only an alias kept, is a repair's.
    let images = [Some(parse(item_of(change))), saved.get(&key).map(parse)];
    let own: BTreeSet<String> =
        images.into_iter().flatten().flat_map(|(key, content)| keys_of(&key, &content)).collect();
    let is_streams = |reported: &&KeyReport| own.contains(&reported.key);
    let (streams, repairs): (Vec<_>, Vec<_>) = report.keys.iter().partition(is_streams);
    for (number, reported) in streams.iter().chain(&repairs).enumerate() {
        if number == streams.len() {
            world.repair().await;
            after = world.held();
        }
        let name = &reported.key;
        let said = format!("{name} {:?}: {report:?}", reported.verdict);
        match reported.verdict {
            Verdict::Orphaned => assert_eq!(after.get(name), None, "{said}"),
            Verdict::Missing | Verdict::Stale => {
                assert_ne!(after.get(name), before.get(name), "{said}");
                let now = world.explain(Subject::Key(name.clone())).await.unwrap();
                let now = now.keys.iter().find(|it| it.key == *name).unwrap();
                assert_eq!((now.verdict, &now.differs[..]), (Verdict::Right, &[][..]), "{said}");
            }
            _ => assert_eq!(after.get(name), before.get(name), "{said}"),
        }
    }
    let told: Vec<&String> = report.keys.iter().map(|it| &it.key).collect();
    for (name, value) in streamed.iter().filter(|(name, _)| !told.contains(name)) {
        assert_eq!(before.get(name), Some(value), "{name}: {report:?}");
    }
    Ok(report)
}

fn item_of(change: &Change) -> &Value {
    let (Save(item) | Remove(item)) = change;
    item
}

/// The KV keys that an item asks for.
fn keys_of(key: &ItemKey, item: &Item) -> Vec<String> {
    match key.item() {
        Some(ItemRef { index, query: None }) => claimed_keys(&index, &item.attributes()),
        Some(config) => vec![config.kv_key()],
        None => vec![],
    }
}

/// The keys with their verdicts, the targets with theirs, and what breaks.
fn said(report: &ExplainReport) -> String {
    let verdict =
        |verdict: &Verdict| serde_json::to_value(verdict).unwrap().as_str().unwrap().to_owned();
    let keys = report.keys.iter().map(|it| {
        let paths: String = it.differs.iter().map(|path| format!(" {path}")).collect();
        format!("{} {}{paths}", it.key, verdict(&it.verdict))
    });
    let findings = report.tried.as_ref().unwrap();
    let targets = findings.targets.iter().map(|it| {
        let on: String = it.points_at.iter().map(|name| format!(" {name}")).collect();
        let other = if it.another_account { " elsewhere" } else { "" };
        format!("-> {} {}{on}{other}", it.index_id, verdict(&it.verdict))
    });
    let breaks = findings.breaks.iter().map(|it| format!("! {it}"));
    keys.chain(targets).chain(breaks).collect::<Vec<_>>().join("; ")
}

async fn row(name: &str, past: Vec<Change>, change: Change, expected: &str) {
    let report = tried(&past, &change).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(said(&report), expected, "{name}");
}

#[tokio::test(start_paused = true)]
async fn each_attribute_is_told_by_its_path_and_written() {
    let map = |value: &str| json!({"M": {"x": {"S": value}}});
    for (name, now, then, differs) in [
        ("index_endpoint", json!({"S": "https://h"}), json!({"S": "https://g"}), "index_url"),
        ("search_config", map("1"), map("2"), "search_config.x"),
        ("collections_config", map("1"), map("2"), "collections_config.x"),
        ("feature_flags", map("1"), map("2"), "feature_flags.x"),
        ("agentic_config", map("1"), map("2"), "agentic_config.x"),
        ("query_override_sharding", map("1"), map("2"), "query_override_sharding.x"),
        ("pixel_id", json!({"S": "1"}), json!({"S": "2"}), "pixel_id"),
    ] {
        let item = |value| Save(index("i", json!({"shop_id": {"S": "s"}, name: value})));
        let expected = format!("s stale {differs}; a-i stale {differs}");
        row(name, vec![item(now.clone())], item(then), &expected).await;
        row(name, vec![item(now.clone())], item(now), "s right; a-i right").await;
    }
    for name in ["create_index_config", "unknown", "add_docs_config"] {
        let change = Save(index("i", json!({"shop_id": {"S": "s"}, name: map("1")})));
        row(name, vec![Save(shop("i", "s"))], change, "s right; a-i right").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_alias_is_told_with_its_targets() {
    let aliased = |target: &str| Save(index("i", block("doc_reads", target)));
    let past = || vec![Save(index("v2", json!({}))), Save(index("i", json!({})))];
    for (name, more, expected) in [
        ("doc_reads", block("doc_reads", "a-v2"), "a-i stale index_aliases; -> a-v2 right"),
        ("analytics", block("analytics", "a-v2"), "a-i stale index_aliases; -> a-v2 right"),
        ("doc_writes", block("doc_writes", "a-v2"), "a-i right; -> a-v2 right"),
        ("legacy", json!({"read_alias": {"S": "a-v2"}}), "a-i stale index_aliases; -> a-v2 right"),
        ("itself", json!({"read_alias": {"S": "a-i"}}), "a-i stale index_aliases"),
    ] {
        row(name, past(), Save(index("i", more)), expected).await;
    }
    let none = "a-i stale index_aliases; -> a-v3 foreign; ! the alias target a-v3 has neither an item nor a key in KV";
    row("nothing there", past(), aliased("a-v3"), none).await;

    let chain = vec![Save(index("v3", json!({}))), Save(index("v2", block("doc_reads", "a-v3")))];
    row("a chain", chain, aliased("a-v2"), "a-i missing; -> a-v2 right a-v3").await;

    let mut elsewhere = index("v2", json!({}));
    elsewhere["pk"]["S"] = json!("b");
    row(
        "another account",
        vec![Save(elsewhere)],
        aliased("b-v2"),
        "a-i missing; -> b-v2 right elsewhere",
    )
    .await;

    // It was removed while the alias pointed at it.
    let past = vec![Save(shop("v1", "s")), aliased("a-v1"), Remove(shop("v1", "s"))];
    let gone = "a-i right; -> a-v1 withheld; ! the alias target a-v1 has no item";
    row("its target is gone", past.clone(), aliased("a-v1"), gone).await;
    row(
        "a gone target is released",
        past.clone(),
        Save(index("i", json!({}))),
        "a-i stale index_aliases; a-v1 orphaned",
    )
    .await;

    let defaults = |more: Value| {
        let mut item = index("DEFAULT_CONFIG", more);
        item["sk"]["S"] = json!("INDEX#DEFAULT_CONFIG");
        Save(item)
    };
    let expected = "-> a-v2 right";
    row(
        "defaults",
        vec![Save(index("v2", json!({})))],
        defaults(block("doc_writes", "a-v2")),
        expected,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_shop_id_that_moves_is_told_with_its_new_and_its_old_owner() {
    let moved = || Save(shop("i", "t"));
    row("moved", vec![Save(shop("i", "s"))], moved(), "t missing; a-i stale shop_id; s orphaned")
        .await;
    row(
        "to a key that another item asks for",
        vec![Save(shop("j", "t")), Save(shop("i", "s"))],
        moved(),
        "t stale index_name; a-i stale shop_id; s orphaned; ! the key t would be taken from a/j",
    )
    .await;
    row(
        "from a key that another item asks for",
        vec![Save(shop("j", "s")), Save(shop("i", "s"))],
        moved(),
        "t missing; a-i stale shop_id; s stale index_name",
    )
    .await;
    row(
        "taken back without another change",
        vec![Save(shop("i", "s")), Save(shop("j", "s"))],
        Save(shop("i", "s")),
        "s stale index_name; a-i right; ! the key s would be taken from a/j",
    )
    .await;
    let pointer = Save(index("live", write_alias("shop_id", "s")));
    row(
        "from a key that an alias needs",
        vec![pointer, Save(shop("i", "s"))],
        moved(),
        "t missing; a-i stale shop_id; s withheld; ! the key s is given up, and active aliases need it: a/live",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_removal_is_told_with_what_keeps_each_key() {
    let item = || shop("i", "s");
    row("nothing points", vec![Save(item())], Remove(item()), "s orphaned; a-i orphaned").await;
    let kept =
        "s withheld; a-i withheld; ! the key a-i is given up, and active aliases need it: a/live";
    for (name, pointer) in [
        ("doc_reads", block("doc_reads", "a-i")),
        ("doc_writes", block("doc_writes", "a-i")),
        ("analytics", block("analytics", "a-i")),
        ("read_alias", json!({"read_alias": {"S": "a-i"}})),
        ("index_write_aliases by index id", write_alias("index_id", "a-i")),
        ("index_write_aliases by name", write_alias("index_name", "i")),
    ] {
        let past = vec![Save(item()), Save(index("live", pointer))];
        row(name, past, Remove(item()), kept).await;
    }
    row(
        "index_write_aliases by shop id",
        vec![Save(item()), Save(index("live", write_alias("shop_id", "s")))],
        Remove(item()),
        "s withheld; a-i orphaned; ! the key s is given up, and active aliases need it: a/live",
    )
    .await;
    row(
        "another item asks for its shop id",
        vec![Save(shop("j", "s")), Save(item())],
        Remove(item()),
        "s stale index_name; a-i orphaned",
    )
    .await;
    assert!(matches!(tried(&[], &Remove(item())).await, Err(ExplainError::IndexNotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_item_that_cannot_be_exported_changes_nothing() {
    let past = vec![Save(shop("i", "s"))];
    let broken = Save(index("i", json!({"shop_id": {"S": "t"}, "index_endpoint": {"N": "7"}})));
    let expected =
        "t rejected; a-i rejected; s rejected; ! the item can't be exported: index_endpoint";
    row("broken", past, broken, expected).await;
}

#[tokio::test(start_paused = true)]
async fn a_query_config_is_tried_too() {
    let config = |boost: &str| json!({"pk": {"S": "a"}, "sk": {"S": "INDEX#i#QUERY#q"}, "boost": {"N": boost}});
    let key = parse(&config("1")).0.item().unwrap().kv_key();
    for (name, past, change, expected) in [
        ("new", vec![], Save(config("1")), "missing"),
        ("changed", vec![Save(config("1"))], Save(config("2")), "stale boost"),
        ("the same", vec![Save(config("1"))], Save(config("1")), "right"),
        ("removed", vec![Save(config("1"))], Remove(config("1")), "orphaned"),
    ] {
        row(name, past, change, &format!("{key} {expected}")).await;
    }
}

/// Items of three indexes that compete for shop ids and point at each other.
fn items() -> impl Strategy<Value = Value> {
    let shop_id = prop::option::of(prop::sample::select(vec!["s", "t", "a-i1"]));
    let target = prop::sample::select(vec!["a-i0", "a-i1", "a-i2", "s"]);
    let alias = prop_oneof![
        3 => Just(json!({})),
        1 => target.clone().prop_map(|name| json!({"read_alias": {"S": name}})),
        1 => (prop::sample::select(vec!["doc_reads", "doc_writes", "analytics"]), target.clone())
            .prop_map(|(name, target)| block(name, target)),
        1 => (prop::sample::select(vec!["shop_id", "index_id"]), target)
            .prop_map(|(field, name)| write_alias(field, name)),
    ];
    (0..3, shop_id, alias, 0..6).prop_map(|(number, shop_id, mut more, endpoint)| {
        if let Some(shop_id) = shop_id {
            more["shop_id"] = json!({"S": shop_id});
        }
        if endpoint == 0 {
            more["index_endpoint"] = json!({"N": "7"});
        }
        index(&format!("i{number}"), more)
    })
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![3 => items().prop_map(Save), 1 => items().prop_map(Remove)]
}

proptest! {
    #[test]
    fn whatever_is_tried_becomes_of_kv(past in prop::collection::vec(changes(), 0..6), change in changes()) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let _ = runtime.block_on(tried(&past, &change));
    }
}
