//! What trying an item says comes true when the item is saved, streamed and repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ecom_settings_exporter::export::batch::{Flood, export_batch};
use ecom_settings_exporter::export::reconcile::{Reconcile, reconcile};
use ecom_settings_exporter::export::table::read_items;
use ecom_settings_exporter::item::{Change, RecordedChange, StreamRecord, claimed_keys};
use ecom_settings_exporter::kv::{Metadata, StoredValue};
use proptest::prelude::*;

use super::*;
use crate::fakes::{entry, shop};

/// Makes a change, and carries it to KV as a batch does. Returns the keys that the item asks for, and asked for
/// before.
async fn carry(fakes: &Fakes, Tried { key, item }: &Tried) -> BTreeSet<String> {
    let invocation = fakes.invocation(Source::Stream);
    let old = read_items(&invocation, invocation.budget.deadline, [key.clone()]).await.unwrap();
    match item {
        Some(item) => fakes.table.put((key.clone(), item.clone())),
        None => fakes.table.remove(key),
    }
    let Some(item_ref) = key.item() else { return BTreeSet::new() };
    let images: Vec<_> = old.values().chain(item).map(|image| image.attributes()).collect();
    let keys = match &item_ref.query {
        None => images.iter().flat_map(|image| claimed_keys(&item_ref, image)).collect(),
        Some(_) => BTreeSet::from([item_ref.kv_key()]),
    };
    let shop_ids = images.iter().filter_map(|image| image.text("shop_id").map(str::to_owned));
    let record = StreamRecord {
        sequence_number: Some("1".to_owned()),
        event_source: None,
        source_arn: None,
        change: Ok(Some(RecordedChange {
            item: item_ref,
            change: item.clone().map_or(Change::Remove, Change::Upsert),
            created_at: None,
            shop_ids: shop_ids.collect(),
            has_old_image: !old.is_empty(),
        })),
    };
    export_batch(&invocation, vec![record], &Flood::default()).await;
    keys
}

/// What KV holds, without metadata.
fn held(fakes: &Fakes) -> BTreeMap<String, String> {
    let held = fakes.kv.held.borrow();
    held.iter().map(|(key, stored)| (key.clone(), stored.value.clone())).collect()
}

/// Tries a change to a table whose changes so far are in KV, makes it, and compares. Returns what was said.
async fn tried(past: &[Tried], change: &Tried) -> String {
    let fakes = Fakes::new();
    // A repair deletes nothing where the table has no index.
    for change in [save("anchor", json!({}))].iter().chain(past) {
        carry(&fakes, change).await;
    }
    let (before, requests) = (held(&fakes), fakes.kv.requests.borrow().len());
    let answer = ask(&fakes, &Subject::Item(change.key.clone(), change.item.clone())).await;
    assert!(fakes.kv.requests.borrow().len() <= requests + 3);
    assert_eq!(held(&fakes), before, "trying changes nothing");
    let said = said(&answer);
    let Ok(report) = answer else { return said };

    let own = carry(&fakes, change).await;
    let streamed = held(&fakes);
    let is_rejected = report["item"] == "rejected";
    if is_rejected {
        assert_eq!(streamed, before, "{said}");
    }
    let repair = Reconcile { apply: true, ..Reconcile::default() };
    let report_on_repair = reconcile(&fakes.invocation(Source::Reconcile), &repair).await.unwrap();
    assert!(report_on_repair.complete, "{report_on_repair:?}");
    let repaired = held(&fakes);
    let keys = report["keys"].as_array().unwrap().iter();
    let verdicts: BTreeMap<&str, &str> =
        keys.map(|it| (it["key"].as_str().unwrap(), it["verdict"].as_str().unwrap())).collect();
    for name in streamed.keys().map(String::as_str).chain(verdicts.keys().copied()) {
        // What only a value in KV names, what only an alias kept, and what a rejected item had, is a repair's.
        let is_streams = own.contains(name) && !is_rejected || !verdicts.contains_key(name);
        let after = if is_streams { &streamed } else { &repaired };
        let (was, is) = (before.get(name), after.get(name));
        match verdicts.get(name) {
            Some(&"orphaned") => assert_eq!(is, None, "{name}: {said}"),
            Some(&("missing" | "stale")) => {
                assert_ne!(is, was, "{name}: {said}");
                let now = self::said(&ask(&fakes, &key(name)).await);
                let right = format!("{name} right").replace(&config_key("q"), "q");
                assert!(now.contains(&right), "{name}: {said}, then {now}");
            }
            _ => assert_eq!(is, was, "{name}: {said}"),
        }
    }
    said
}

/// An active alias block with one target.
fn block(name: &str, target: &str) -> Value {
    let index_id = json!({"S": target});
    let targets = json!({"L": [{"M": {"index_id": index_id}}]});
    let block = json!({"enabled": {"BOOL": true}, "index_id": index_id, "targets": targets});
    json!({"index_aliases": {"M": {name: {"M": block}}}})
}

/// What happened, what is tried, and what is said of it.
type Row<'a> = (&'a str, Vec<Tried>, Tried, &'a str);

async fn check(rows: impl IntoIterator<Item = Row<'_>>) {
    for (name, past, change, expected) in rows {
        assert_eq!(tried(&past, &change).await, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_alias_is_told_with_its_targets() {
    let v2 = || vec![save("v2", json!({})), save("i", json!({}))];
    let aliased = |target: &str| save("i", block("doc_reads", target));
    let chain = vec![save("v3", json!({})), save("v2", block("doc_reads", "a-v3"))];
    let mut elsewhere = save("v2", json!({}));
    elsewhere.key.pk = "b".to_owned();
    let mut defaults = save("i", block("doc_writes", "a-v2"));
    defaults.key.sk = "INDEX#DEFAULT_CONFIG".to_owned();
    // It was removed while the alias pointed at it.
    let gone = || vec![save("v1", shop("s")), aliased("a-v1"), remove("v1")];
    let right = "a-i stale index_aliases; -> a-v2 right";
    let turn = "a-i stale index_aliases.doc_reads.targets[0].index_id; -> a-v2 right";
    let with_shop = || vec![save("v2", shop("t")), save("i", json!({}))];
    let turned = || [v2(), vec![save("v4", json!({})), aliased("a-v4")]].concat();
    let mut half = block("doc_reads", "a-v2");
    half["index_aliases"]["M"]["doc_reads"]["M"]["targets"]["L"][0]["M"]["weight"] =
        json!({"N": "0.5"});
    let odd = right.to_owned()
        + "; ? index_aliases.doc_reads.targets: the weights sum to 0.5, not to 1.0";
    let nothing = "a-i stale index_aliases; -> a-v3 foreign; \
                   ! the alias target a-v3 has neither an item nor a key in KV";
    let no_item = "a-i right; -> a-v1 withheld; ! the alias target a-v1 has no item";
    check([
        ("doc_reads", v2(), aliased("a-v2"), right),
        ("its shop id is not this item's", with_shop(), aliased("a-v2"), right),
        ("turned", turned(), aliased("a-v2"), turn),
        ("odd weights", v2(), save("i", half), &odd),
        ("analytics", v2(), save("i", block("analytics", "a-v2")), right),
        ("legacy", v2(), save("i", read_alias("a-v2")), right),
        ("doc_writes", v2(), save("i", block("doc_writes", "a-v2")), "a-i right; -> a-v2 right"),
        ("itself", v2(), save("i", read_alias("a-i")), "a-i stale index_aliases"),
        ("nothing there", v2(), aliased("a-v3"), nothing),
        ("a chain", chain, aliased("a-v2"), "a-i missing; -> a-v2 right a-v3"),
        ("elsewhere", vec![elsewhere], aliased("b-v2"), "a-i missing; -> b-v2 right elsewhere"),
        ("gone", gone(), aliased("a-v1"), no_item),
        ("let go", gone(), save("i", json!({})), "a-i stale index_aliases; a-v1 orphaned"),
        ("defaults", v2(), defaults, "skipped; -> a-v2 right"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_shop_id_that_moves_and_a_removal_are_told_with_whom_they_take_a_key_from() {
    let shop = |name: &str, shop_id: &str| save(name, shop(shop_id));
    let (i, moved) = (shop("i", "s"), shop("i", "t"));
    let pointer = |attributes: Value| vec![save("live", attributes), i.clone()];
    let taken = "t stale index_name; a-i stale shop_id; s orphaned; \
                 ! the key t would be taken from a/j";
    let back = "s stale index_name; a-i right; ! the key s would be taken from a/j";
    let needs = |name: &str| {
        format!("; <- live; ! the key {name} is given up, and active aliases need it: a/live")
    };
    let needed = "t missing; a-i stale shop_id; s withheld".to_owned() + &needs("s");
    let by_index_id = "absent; s withheld; a-i withheld".to_owned() + &needs("a-i");
    let by_shop_id = "absent; s withheld; a-i orphaned".to_owned() + &needs("s");
    let given = "t missing; a-i stale shop_id; s stale index_name";
    let left = "absent; s stale index_name; a-i orphaned";
    check([
        ("moved", vec![i.clone()], moved.clone(), "t missing; a-i stale shop_id; s orphaned"),
        ("to another's key", vec![shop("j", "t"), i.clone()], moved.clone(), taken),
        ("from a contested key", vec![shop("j", "s"), i.clone()], moved.clone(), given),
        ("back", vec![i.clone(), shop("j", "s")], i.clone(), back),
        ("from a key in need", pointer(write_alias("shop_id", "s")), moved, &needed),
        ("removed", vec![i.clone()], remove("i"), "absent; s orphaned; a-i orphaned"),
        ("a rival has it", vec![shop("j", "s"), i.clone()], remove("i"), left),
        ("by index id", pointer(block("doc_writes", "a-i")), remove("i"), &by_index_id),
        ("by name", pointer(write_alias("index_name", "i")), remove("i"), &by_index_id),
        ("by shop id", pointer(write_alias("shop_id", "s")), remove("i"), &by_shop_id),
    ])
    .await;
    let unknown = tried(&[save("j", json!({}))], &remove("i")).await;
    assert!(unknown.contains("knows item a/i"), "{unknown}");
    assert!(!unknown.contains("the account has"), "it is no misspelt name: {unknown}");
}

#[tokio::test(start_paused = true)]
async fn a_key_of_another_environment_would_be_taken_from_it() {
    let fakes = Fakes::new();
    let environment = Some("dev".to_owned());
    let metadata = Metadata { environment, ..entry("x", &json!({})).metadata().unwrap() };
    fakes.kv.hold_entry("s", &StoredValue::new("{}", metadata));
    let Tried { key, item } = save("i", shop("s"));
    let said = said(&ask(&fakes, &Subject::Item(key, item)).await);
    assert!(said.contains("! the key s would be taken from another environment"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn no_more_targets_are_looked_at_than_one_request_reads() {
    let fakes = Fakes::new();
    let aliased = |targets: Range<usize>| {
        let target = |number| json!({"M": {"index_id": {"S": format!("a-t{number}")}}});
        let targets = json!({"L": targets.map(target).collect::<Vec<_>>()});
        let block = json!({"M": {"enabled": {"BOOL": true}, "targets": targets}});
        save("i", json!({"index_aliases": {"M": {"doc_reads": block}}}))
    };
    let (saved, Tried { key, item }) = (aliased(0..90), aliased(100..190));
    fakes.table.put((saved.key, saved.item.unwrap()));
    ask(&fakes, &Subject::Item(key, item)).await.unwrap();
    let sizes: Vec<usize> = fakes.kv.requests.borrow().iter().map(Vec::len).collect();
    assert_eq!(sizes, [91]);
}

#[tokio::test(start_paused = true)]
async fn what_is_exported_is_told_by_its_path_and_what_cannot_be_changes_nothing() {
    let item = |name: &str, value: &str| save("i", json!({ name: {"M": {"x": {"S": value}}} }));
    let broken = save("i", json!({"shop_id": {"S": "t"}, "index_endpoint": {"N": "7"}}));
    let rejected = "rejected; t rejected; a-i rejected; s rejected; \
                    ! the item can't be exported: index_endpoint";
    let took_one = vec![save("j", json!({})), save("i", shop("a-j"))];
    let without_shop_id = save("i", json!({"index_endpoint": {"N": "7"}}));
    let gives_back = "rejected; a-i rejected; a-j stale index_name shop_id; \
                      ! the item can't be exported: index_endpoint";
    let takes_none = "rejected; t right; a-i rejected; \
                      ! the item can't be exported: index_endpoint";
    // The alias and the shop id of a query config are values like others.
    let config = |x: &str| {
        save_config(&json!({"x": {"N": x}, "shop_id": {"S": "s"}, "read_alias": {"S": "a-v2"}}))
    };
    let removed = Tried { item: None, ..config("1") };
    let now = || vec![item("feature_flags", "1"), config("1")];
    check([
        ("exported", now(), item("feature_flags", "2"), "a-i stale feature_flags.x"),
        ("the same", now(), item("feature_flags", "1"), "a-i right"),
        ("not exported", vec![save("i", json!({}))], item("create_index_config", "2"), "a-i right"),
        ("broken", vec![save("i", shop("s"))], broken.clone(), rejected),
        ("broken, and another's key", vec![save("j", shop("t"))], broken, takes_none),
        ("broken, and gives one up", took_one, without_shop_id, gives_back),
        ("a new query config", vec![], config("1"), "q missing"),
        ("another query config", now(), config("2"), "q stale x"),
        ("the same query config", now(), config("1"), "q right"),
        ("no query config", now(), removed.clone(), "absent; q orphaned"),
        ("none that is known", vec![], removed, "absent; q foreign"),
    ])
    .await;
}

/// Changes to three indexes that compete for shop ids and point at each other: the index, and its attributes
/// unless it is removed.
fn changes() -> impl Strategy<Value = (String, Option<Value>)> {
    let name = prop::sample::select(vec!["s", "t", "a-i0", "a-i1", "a-i2"]);
    let alias = prop_oneof![
        3 => Just(json!({})),
        1 => name.clone().prop_map(read_alias),
        1 => (prop::sample::select(vec!["doc_reads", "doc_writes", "analytics"]), name.clone())
            .prop_map(|(block_name, target)| block(block_name, target)),
        1 => (prop::sample::select(vec!["shop_id", "index_id"]), name.clone())
            .prop_map(|(field, target)| write_alias(field, target)),
    ];
    // An endpoint that is a number can't be exported.
    let endpoint = prop_oneof![17 => Just(json!({"S": "https://h"})), 3 => Just(json!({"N": "7"}))];
    let saved = (prop::option::of(name), alias, endpoint).prop_map(
        |(shop_id, mut attributes, endpoint)| {
            attributes["shop_id"] = shop_id.map(|shop_id| json!({ "S": shop_id })).into();
            attributes["index_endpoint"] = endpoint;
            attributes
        },
    );
    ("i[0-2]", prop::option::weighted(0.75, saved))
}

proptest! {
    #[test]
    fn whatever_is_tried_becomes_of_kv(changes in prop::collection::vec(changes(), 1..7)) {
        let changes = changes.into_iter().map(|(name, attributes)| {
            attributes.map_or_else(|| remove(&name), |attributes| save(&name, attributes))
        });
        let changes: Vec<Tried> = changes.collect();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        let (change, past) = changes.split_last().unwrap();
        runtime.block_on(tried(past, change));
    }
}
