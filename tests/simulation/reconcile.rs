//! Reconciles against the services of the unit tests: what is repaired, refused and counted, run by run.

use crate::fakes::{
    Fakes, KvFault, TableChange, api_keys_error, down, entry, index_item, item, kv_error,
    query_config, settings_of, shop,
};
use ecom_settings_exporter::export::judge::{Range, Table, Wants};
use ecom_settings_exporter::export::reconcile::{
    Action, Actions, Class, Progress, Reconcile, ReconcileError, Report, reconcile,
};
use ecom_settings_exporter::index::{IndexRef, ItemRef};
use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::kv::{Namespace, Source, StoredValue};
use ecom_settings_exporter::ports::{ErrorKind, ListPage};
use ecom_settings_exporter::telemetry::Stats;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

fn repair() -> Reconcile {
    Reconcile { apply: true, ..Reconcile::default() }
}

type Ran = Result<(Report, Stats), ReconcileError>;

async fn run_within(fakes: &Fakes, seconds: u64, request: &Reconcile) -> Ran {
    let mut invocation = fakes.invocation(Source::Reconcile);
    invocation.budget.deadline = Instant::now() + Duration::from_secs(seconds);
    let report = reconcile(&invocation, request).await?;
    Ok((report, invocation.stats()))
}

async fn run(fakes: &Fakes, request: &Reconcile) -> (Report, Stats) {
    run_within(fakes, 300, request).await.unwrap()
}

/// The next run of a repair.
fn after(report: &Report) -> Reconcile {
    let text = report.next_run.as_ref().unwrap();
    let progress = Progress::parse(text, &repair(), "prod").unwrap();
    Reconcile { progress, ..repair() }
}

/// The counts of a namespace that are not zero.
fn counts(report: &Report, namespace: &str) -> Value {
    let report = serde_json::to_value(report).unwrap();
    let counts = report[namespace].as_object().unwrap().clone();
    counts.into_iter().filter(|(_, count)| *count != 0).collect()
}

/// Services with one index, whose key KV lacks, and this number of orphans.
fn with_orphans(orphans: usize) -> Fakes {
    let fakes = Fakes::new();
    fakes.table.put(index_item("i", &json!({})));
    for number in 0..orphans {
        fakes.kv.hold_entry(&format!("orphan-{number:03}"), &entry("gone", &json!({})));
    }
    fakes
}

/// An index item of account b.
fn item_of_b(name: &str, attributes: &Value) -> (ItemKey, Item) {
    let mut all = json!({"index_endpoint": {"S": "https://h"}});
    all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    item(&ItemRef::from(IndexRef::parse("b", name).unwrap()), &all)
}

/// What query config `q` of index `i` has in KV.
fn config_entry() -> StoredValue {
    let named = json!({"system_account_id": "a", "index_name": "i", "normalized_query": "q"});
    entry("i", &named)
}

fn refused() -> KvFault {
    KvFault::Fails(kv_error(ErrorKind::Refused))
}

#[tokio::test(start_paused = true)]
async fn a_stale_key_is_rewritten_and_one_that_cannot_be_written_is_counted_and_stays() {
    let fakes = with_orphans(0);
    fakes.kv.hold_entry("a-i", &entry("i", &json!({})));
    fakes.table.put(index_item("taken", &json!({})));
    let mut taken = entry("taken", &json!({})).metadata().unwrap();
    taken.environment = Some("dev".to_owned());
    fakes.kv.hold_entry("a-taken", &StoredValue::new("{}", taken));
    fakes.table.put(item_of_b("without-api-key", &shop("a-taken")));
    fakes.api_keys.faults.then_nothing(1);
    fakes.api_keys.faults.then((0..4).map(|_| down()));
    let (report, stats) = run(&fakes, &repair()).await;
    let expected = json!({
        "desired": 3, "listed": 2, "stale": 1, "conflicting": 1, "failed": 1, "written": 1,
    });
    assert_eq!(counts(&report, "settings"), expected);
    assert_eq!((stats.keys_rewritten, stats.repair_refused), (Some(1), Some(0)));
    assert_eq!(fakes.kv.value("a-taken"), json!({}));
    assert_eq!(fakes.kv.keys(), ["a-i", "a-taken"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_written_for_an_item_that_went_meanwhile_goes_within_the_brake() {
    let pointer = || Some(TableChange::Put(index_item("x", &json!({"read_alias": {"S": "a-i"}}))));
    for (orphans, protection, deleted, refused, is_complete) in [
        (98, None, 100, 0, true),
        (99, None, 99, 2, false),
        // What is let through of the two keys is not let through of the orphans.
        (101, pointer(), 0, 101, false),
    ] {
        let fakes = with_orphans(orphans);
        fakes.table.put(index_item("i", &shop("s")));
        fakes.table.put(index_item("other", &json!({"index_endpoint": null})));
        // The pass, and the first read.
        fakes.table.changes.then_nothing(2);
        fakes.table.changes.then([TableChange::Remove(settings_of("i").key())]);
        fakes.table.changes.then(protection);
        let (report, _) = run(&fakes, &repair()).await;
        assert_eq!(report.findings.sum(Class::Deleted), deleted, "{orphans} orphans");
        assert_eq!(report.refused[Action::Delete], refused, "{orphans} orphans");
        assert_eq!(report.complete, is_complete, "{orphans} orphans");
        let left = orphans as u64 + 2 - deleted;
        assert_eq!(fakes.kv.keys().len() as u64, left, "{orphans} orphans");
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_is_protected_meanwhile_stays_and_one_of_unknown_item_fails() {
    let fakes = with_orphans(1);
    // The pass, and the two reads of `i`.
    fakes.table.changes.then_nothing(3);
    let pointer = index_item("x", &json!({"read_alias": {"S": "orphan-000"}}));
    fakes.table.changes.then([TableChange::Put(pointer)]);
    fakes.kv.hold_entry("qcfg-unknown", &entry("i", &json!({"x": 1})));
    fakes.kv.hold_entry("qcfg-anothers", &config_entry());
    let (report, _) = run(&fakes, &repair()).await;
    let settings = json!({"desired": 1, "listed": 1, "missing": 1, "orphaned": 1, "written": 1});
    assert_eq!(counts(&report, "settings"), settings);
    let query_configs = json!({"listed": 2, "orphaned": 2, "failed": 2});
    assert_eq!(counts(&report, "query_configs"), query_configs);
    assert_eq!(fakes.kv.keys(), ["a-i", "orphan-000", "qcfg-anothers", "qcfg-unknown"]);
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_an_item_asks_for_meanwhile_is_written_with_an_api_key_of_then() {
    let fakes = with_orphans(1);
    // The pass, and the two reads of `i`.
    fakes.table.changes.then_nothing(3);
    fakes.table.changes.then([TableChange::Put(index_item("x", &shop("orphan-000")))]);
    let (report, _) = run(&fakes, &repair()).await;
    let expected = json!({"desired": 1, "listed": 1, "missing": 1, "orphaned": 1, "written": 2});
    assert_eq!(counts(&report, "settings"), expected);
    assert_eq!(fakes.kv.value("orphan-000")["index_name"], "x");
    assert_eq!(fakes.api_keys.requests.borrow().len(), 3, "the pass, the write and the removal");
}

#[tokio::test(start_paused = true)]
async fn a_query_config_that_another_environment_has_written_since_the_listing_stays() {
    for (environment, expected) in [
        ("prod", json!({"listed": 1, "orphaned": 1, "deleted": 1})),
        ("dev", json!({"listed": 1, "orphaned": 1})),
    ] {
        let fakes = with_orphans(0);
        let key = query_config("i", "q").kv_key();
        let listed = config_entry().metadata();
        let mut metadata = listed.clone().unwrap();
        metadata.environment = Some(environment.to_owned());
        fakes.kv.hold_entry(&key, &StoredValue::new(config_entry().value, metadata));
        let config = ListPage { keys: vec![(key.clone(), listed)], cursor: None };
        fakes.kv.pages.then([ListPage::default(), config]);
        let (report, _) = run(&fakes, &repair()).await;
        assert_eq!(counts(&report, "query_configs"), expected, "{environment}");
        let is_there = fakes.kv.keys().contains(&key);
        assert_eq!(is_there, environment == "dev", "{environment}");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_of_an_index_without_an_api_key_stay_whichever_part_they_are_in() {
    for parts in [1, 2] {
        let fakes = with_orphans(0);
        fakes.kv.hold_entry("a-i", &entry("i", &json!({})));
        fakes.kv.hold_entry(&query_config("i", "q").kv_key(), &config_entry());
        fakes.api_keys.faults.then((0..parts).map(|_| api_keys_error(ErrorKind::NotFound)));
        // A listing that takes half of the time ends the first part between the namespaces.
        fakes.kv.faults.then((1..parts).map(|_| KvFault::TimesOut));
        let (mut report, _) = run_within(&fakes, 60, &repair()).await.unwrap();
        assert_eq!(report.next_run.is_some(), parts == 2);
        if parts == 2 {
            (report, _) = run(&fakes, &after(&report)).await;
        }
        let settings = json!({"listed": 1, "rejected": 1});
        assert_eq!(counts(&report, "settings"), settings, "{parts} parts");
        assert_eq!(counts(&report, "query_configs"), json!({"listed": 1}), "{parts} parts");
        assert_eq!(fakes.kv.keys().len(), 2, "{parts} parts");
    }
}

#[tokio::test(start_paused = true)]
async fn each_item_that_cannot_be_exported_counts_and_hides_no_item_that_can_be() {
    let fakes = with_orphans(0);
    fakes.table.put(index_item("i", &shop("s")));
    fakes.table.put(index_item("b", &json!({"index_endpoint": null, "shop_id": {"S": "s"}})));
    fakes.table.put(index_item("b-c", &json!({"index_endpoint": null})));
    // Its key is `a-b-c` too.
    fakes.table.put(item(&ItemRef::from(IndexRef::parse("a-b", "c").unwrap()), &json!({})));
    let (report, _) = run(&fakes, &repair()).await;
    let expected =
        json!({"desired": 2, "missing": 1, "conflicting": 2, "rejected": 3, "written": 1});
    assert_eq!(counts(&report, "settings"), expected);
}

#[tokio::test(start_paused = true)]
async fn what_a_run_is_refused_is_told_with_this_run_alone() {
    let fakes = with_orphans(101);
    // A listing that takes half of the time ends the part between the namespaces.
    fakes.kv.faults.then([KvFault::TimesOut]);
    let (first, of_first) = run_within(&fakes, 60, &repair()).await.unwrap();
    let (second, of_second) = run(&fakes, &after(&first)).await;
    assert_eq!([of_first, of_second].map(|stats| stats.repair_refused), [Some(101), Some(0)]);
    assert_eq!(second.refused[Action::Delete], 101, "the report is the chain's");
    assert!(!second.complete);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_api_key_comes_too_late_is_the_next_runs() {
    let fakes = with_orphans(0);
    // The pass gets it, and the write does not.
    fakes.api_keys.delays.borrow_mut().insert("a".to_owned(), Duration::from_secs(12));
    let (first, _) = run_within(&fakes, 23, &repair()).await.unwrap();
    assert_eq!(counts(&first, "settings"), json!({"desired": 1, "missing": 1}));
    assert!(first.stopped.is_some() && !first.complete, "{first:?}");
    let (second, _) = run(&fakes, &after(&first)).await;
    assert_eq!(counts(&second, "settings"), json!({"desired": 1, "missing": 1, "written": 1}));
    assert!(second.complete, "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn what_has_changed_when_a_part_is_taken_up_again() {
    let nothing = |_: &Fakes| {};
    let gateway_breaks = |fakes: &Fakes| fakes.api_keys.faults.then((0..4).map(|_| down()));
    let orphan_comes =
        |fakes: &Fakes| fakes.kv.hold_entry("orphan-new", &entry("gone", &json!({})));
    let table_is_emptied = |fakes: &Fakes| fakes.table.remove(&settings_of("i").key());
    type Event = fn(&Fakes);
    let key_is_stale = |fakes: &Fakes| fakes.kv.hold_entry("a-i", &entry("i", &json!({})));
    let rows: [(&str, Event, Event, [u64; 4], bool); 7] = [
        ("nothing", nothing, nothing, [2, 2, 1, 0], true),
        ("a stale key has come", nothing, key_is_stale, [2, 2, 0, 0], false),
        ("an orphan has come", nothing, orphan_comes, [2, 2, 1, 0], false),
        ("the table was emptied", nothing, table_is_emptied, [2, 0, 0, 0], false),
        ("the gateway broke", nothing, gateway_breaks, [2, 2, 0, 1], true),
        ("the gateway works again", gateway_breaks, nothing, [2, 2, 1, 0], true),
        ("the gateway is still broken", gateway_breaks, gateway_breaks, [2, 2, 0, 1], true),
    ];
    for (name, before, meanwhile, expected, is_complete) in rows {
        let fakes = with_orphans(2);
        before(&fakes);
        let (first, stats) = run_within(&fakes, 9, &repair()).await.unwrap();
        assert!(!first.complete && first.stopped.is_some(), "{name}");
        // What is rewritten is a share of those desired. The rest waits for the end of the chain.
        assert_eq!((stats.desired, stats.missing), (Some(1), None), "{name}");
        meanwhile(&fakes);
        let (report, _) = run(&fakes, &after(&first)).await;
        let classes = [Class::Orphaned, Class::Deleted, Class::Written, Class::Failed];
        assert_eq!(classes.map(|class| report.findings.sum(class)), expected, "{name}");
        assert_eq!(report.complete, is_complete, "{name}");
        assert!(report.next_run.is_none() && report.refused == Actions::default(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_listed_in_pieces_stays_one_part_and_is_allowed_what_is_not_done() {
    let fakes = with_orphans(100);
    fakes.kv.hold_entry("a-i", &entry("i", &json!({})));
    let (first, _) = run_within(&fakes, 9, &repair()).await.unwrap();
    // A page that takes half of the time is the last of its run.
    let names = (0..40).map(|number| format!("orphan-{number:03}"));
    let names = ["a-i".to_owned()].into_iter().chain(names);
    let keys = names.map(|name| (name, entry("i", &json!({})).metadata())).collect();
    fakes.kv.faults.then([KvFault::TimesOut]);
    fakes.kv.pages.then([ListPage { keys, cursor: Some("orphan-039".to_owned()) }]);
    let (second, _) = run_within(&fakes, 60, &after(&first)).await.unwrap();
    let (third, _) = run(&fakes, &after(&second)).await;
    let allowed = [&first, &second]
        .map(|report| after(report).progress.tallies[Namespace::Settings].allowed.into_array());
    assert_eq!(allowed, [[100, 1], [60, 0]], "deletes and rewrites");
    let classes = [Class::Listed, Class::Orphaned, Class::Deleted, Class::Written];
    assert_eq!(classes.map(|class| third.findings.sum(class)), [101, 100, 100, 1]);
    assert!(third.complete, "{third:?}");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_counted_once_unless_two_runs_get_nothing_done() {
    for (name, seconds, time_outs, expected) in [
        ("time for the orphan", 11, 0, Ok([1, 1])),
        ("no time for the orphan", 40, 1, Err(ReconcileError::NoProgress)),
    ] {
        let fakes = with_orphans(1);
        // The two listings. Then the write of the missing key fails.
        let write_fails = |time_outs| {
            fakes.kv.faults.then_nothing(2);
            fakes.kv.faults.then((0..time_outs).map(|_| KvFault::TimesOut));
            fakes.kv.faults.then([refused()]);
        };
        write_fails(1);
        let (first, _) = run_within(&fakes, 40, &repair()).await.unwrap();
        assert_eq!(first.findings.sum(Class::Failed), 0, "the next run tries it again");
        write_fails(time_outs);
        let second = run_within(&fakes, seconds, &after(&first)).await;
        let counts = second.map(|(report, _)| {
            [Class::Failed, Class::Deleted].map(|class| report.findings.sum(class))
        });
        assert_eq!(counts, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_gets_something_done_before_its_time_is_up_ends_no_chain() {
    let fakes = with_orphans(1);
    let (first, _) = run_within(&fakes, 9, &repair()).await.unwrap();
    // The two listings and the write. Then the orphan can't be read.
    fakes.kv.faults.then_nothing(3);
    fakes.kv.faults.then([KvFault::TimesOut]);
    let (second, _) = run_within(&fakes, 20, &after(&first)).await.unwrap();
    assert!(second.stopped.is_some(), "{second:?}");
    assert_eq!(counts(&second, "settings")["written"], 1);
    // Nor is an orphan without time for its pass one that has failed.
    let fakes = with_orphans(1);
    // The pass, and the two reads of `i`.
    fakes.table.changes.then_nothing(3);
    fakes.table.changes.then((0..3).map(|_| TableChange::Throttles));
    let (report, _) = run_within(&fakes, 11, &repair()).await.unwrap();
    assert!(report.stopped.is_some(), "{report:?}");
    assert_eq!(report.findings.sum(Class::Failed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_repair_deletes_2_percent_of_the_listed_keys_of_ours() {
    for (orphans, deleted) in [(101, 101), (102, 0)] {
        let fakes = with_orphans(orphans);
        for name in (orphans..5_050).map(|number| format!("i{number}")) {
            fakes.kv.hold_entry(&format!("a-{name}"), &entry(&name, &json!({})));
            fakes.table.put(index_item(&name, &json!({})));
        }
        let (report, _) = run(&fakes, &repair()).await;
        assert_eq!(report.findings.sum(Class::Deleted), deleted, "{orphans} orphans");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_gets_nothing_done_ends_with_an_error_unless_a_key_is_at_fault() {
    for (name, kind, expected) in [
        ("KV takes no write", ErrorKind::Refused, Err(ReconcileError::NoProgress)),
        ("KV takes no such pair", ErrorKind::RefusedContent, Ok(1)),
    ] {
        let fakes = Fakes::new();
        fakes.table.put(index_item("i", &json!({})));
        // The two listings.
        fakes.kv.faults.then_nothing(2);
        fakes.kv.faults.then([KvFault::Fails(kv_error(kind))]);
        let ran = run_within(&fakes, 60, &repair()).await;
        assert_eq!(ran.map(|(report, _)| report.findings.sum(Class::Failed)), expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_account_leaves_out_what_is_anothers_and_fails_a_shop_id_that_cannot_be_read() {
    let fakes = Fakes::new();
    fakes.table.put(index_item("i", &shop("s")));
    fakes.table.put(index_item("broken", &json!({"index_endpoint": null})));
    fakes.table.put(index_item("points", &json!({"read_alias": {"S": "nowhere"}})));
    fakes.table.put(item_of_b("j", &shop("s")));
    let request = Reconcile { system_account_id: Some("b".to_owned()), ..repair() };
    let (report, _) = run(&fakes, &request).await;
    let asked = fakes.api_keys.requests.borrow().clone();
    assert!(asked.iter().all(|(_, account)| account == "b"), "{asked:?}");
    assert_eq!(fakes.kv.keys(), ["b-j"], "by order, a's item has the shop id");
    let expected = json!({"desired": 1, "missing": 1, "written": 1});
    assert_eq!(counts(&report, "settings"), expected);
    // The two listings.
    fakes.kv.faults.then_nothing(2);
    fakes.kv.faults.then([refused()]);
    let (report, _) = run(&fakes, &request).await;
    assert_eq!(counts(&report, "settings"), json!({"desired": 2, "listed": 1, "failed": 1}));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_compared_with_its_owners_account_whoever_asks_for_it() {
    let fakes = Fakes::new();
    fakes.kv.hold_entry("a-gone", &entry("gone", &json!({})));
    fakes.table.put(item_of_b("j", &shop("a-gone")));
    for (account, expected) in [
        ("a", json!({"desired": 1, "listed": 1, "stale": 1})),
        ("b", json!({"desired": 1, "missing": 1})),
    ] {
        let system_account_id = Some(account.to_owned());
        let audit = Reconcile { system_account_id, ..Reconcile::default() };
        let (report, _) = run(&fakes, &audit).await;
        assert_eq!(counts(&report, "settings"), expected, "{account}");
    }
}

#[tokio::test(start_paused = true)]
async fn which_runs_emit_metrics_and_which_write() {
    let preview = Reconcile { preview: true, ..Reconcile::default() };
    let one_account = Reconcile { system_account_id: Some("a".to_owned()), ..repair() };
    for (name, request, is_dry, emits, writes) in [
        ("an audit", Reconcile::default(), false, true, false),
        ("a preview", preview, false, false, false),
        ("a repair", repair(), false, true, true),
        ("a dry run", repair(), true, false, false),
        ("one account", one_account, false, false, true),
    ] {
        let mut fakes = with_orphans(0);
        fakes.0.config.dry_run = is_dry;
        let (report, stats) = run(&fakes, &request).await;
        assert_eq!(report.dry_run, is_dry, "{name}");
        let of_findings = [stats.desired, stats.missing, stats.drifted_keys];
        assert_eq!(of_findings.map(|it| it.is_some()), [emits; 3], "{name}");
        let of_repairs = [stats.repair_refused, stats.keys_rewritten];
        assert_eq!(of_repairs.map(|it| it.is_some()), [emits && request.apply; 2], "{name}");
        assert_eq!(!fakes.kv.keys().is_empty(), writes, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_fails_ends_the_run() {
    let fakes = with_orphans(1);
    fakes.table.changes.then([TableChange::Fails]);
    let error = run_within(&fakes, 60, &repair()).await.unwrap_err();
    assert_eq!(error.to_string(), "the table can't be read; nothing was written");
    assert_eq!(fakes.kv.keys(), ["orphan-000"]);
}

#[test]
fn many_pointers_at_the_same_names_take_little_memory() {
    let targets: Vec<String> = (0..3_000).map(|number| format!("target-{number}")).collect();
    let targets = json!({"M": {"index_write_aliases": {"SS": targets}}});
    let mut table = Table::new(Range::default());
    for number in 0..100 {
        let pointer = index_item(&format!("x{number}"), &json!({"add_docs_config": targets}));
        table.add(&pointer.0, &pointer.1.attributes(), Wants::Unmade);
    }
    assert!(table.bytes < 20 * 1024 * 1024, "{}", table.bytes);
    assert!((2..100).contains(&table.pointers_at("target-0", None).len()), "more than one is told");
}

#[test]
fn a_full_table_gives_back_what_items_and_aliases_took_with_their_keys() {
    let long = |number: u32| format!("{number:03}{}", "l".repeat(400));
    let config = |number| item(&query_config("i", &long(number)), &json!({}));
    let target = |number| json!({"M": {"index_id": {"S": long(number)}}});
    let targets = json!({"L": (0..100).map(target).collect::<Vec<_>>()});
    let targets = json!({"M": {"index_write_aliases": targets}});
    let pointer = index_item("x", &json!({"add_docs_config": targets}));
    for (name, items) in [
        ("query configs", (0..100).map(config).collect::<Vec<_>>()),
        ("alias targets", vec![pointer]),
    ] {
        let mut table = Table::new(Range::default());
        for (key, item) in items {
            table.add(&key, &item.attributes(), Wants::Unmade);
        }
        let limit = table.bytes / 2;
        table.shrink(limit);
        assert_eq!(table.rows.len(), 50, "{name}");
        assert!(table.bytes <= limit, "{name}");
    }
}
