//! How many requests the work may take.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};
use testbed::table::to_item;

use crate::helpers::*;
use crate::process;

#[tokio::test]
async fn a_thousand_records_of_two_hundred_accounts_take_two_hundred_keys_and_one_put_each() {
    let world = World::start().await;
    // No key is answered before many are asked for.
    let slow = Fault::Delay(std::time::Duration::from_millis(300));
    world.stack.api_keys.faults().add(Rule::any(slow).forever());
    let records = (0..1_000).map(|number: u32| {
        let account = format!("acct{:03}", number % 200);
        let name = format!("i{}", number / 400);
        match number % 400 {
            0..200 => written(number, &shop(&account, &name, &format!("{account}-{name}.example"))),
            _ => written(number, &query_config(&account, &name, &format!("q{number}"), number)),
        }
    });

    world.batch_ok(records).await;

    let log = world.stack.api_keys.log();
    assert_eq!(log.len(), 200);
    assert_eq!(log.iter().map(|asked| &asked.account).collect::<BTreeSet<_>>().len(), 200);
    let together = world.stack.api_keys.max_in_flight();
    assert!(together >= 100, "only {together} requests overlapped");
    assert_eq!([world.pairs(SETTINGS), world.pairs(QUERY_CONFIGS)], [[1_200], [400]]);
    assert_eq!(world.stack.kv.log().len(), 2);
    assert!(world.stack.table.log().is_empty());
}

#[tokio::test]
async fn a_batch_without_removals_or_moves_reads_neither_the_table_nor_kv() {
    let world = World::with_old_images().await;
    world.settled_with([shop("a", "i", "s.example"), query_config("a", "i", "q", 1)]).await;

    for boost in 2..5 {
        let changed = json!({"shop_id": "s.example", "pixel_id": boost.to_string()});
        world.stack.table.put(&index_with("a", "i", changed));
        world.stack.table.put(&query_config("a", "i", "q", boost));
    }
    world.stack.table.put(&shop("a", "new", "new.example"));
    world.deliver_ok().await;

    assert!(world.stack.table.log().is_empty());
    assert_eq!(world.verbs(), [KvVerb::PutBulk, KvVerb::PutBulk]);
}

#[tokio::test]
async fn fifty_removals_in_a_batch_take_the_same_passes_over_the_table_as_one() {
    let mut passes = Vec::new();
    for count in [1, 50] {
        let world = World::start().await;
        let shops = (0..51).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example")));
        world.settled_with(shops).await;
        for n in 0..count {
            world.stack.table.delete("a", &format!("INDEX#i{n}"));
        }

        world.deliver_ok().await;

        assert_eq!(world.setting_keys().len(), 2 * (51 - count));
        assert!(world.stack.table.log().iter().all(|request| request.consistent));
        assert_eq!(world.stack.kv.log_of(KvVerb::DeleteBulk).len(), 2);
        passes.push(world.stack.table.operations());
    }
    assert_eq!(passes[0], passes[1]);
    println!("the passes of one removal, and of fifty: {:?}", passes[0]);
}

#[tokio::test]
async fn a_removal_takes_two_passes_over_the_table_whoever_asks_for_its_shop_id() {
    for (claimants, cell, passes) in [
        (0, "up", 2),
        // Written for one of them, and then its old key is deleted.
        (3, "up", 2),
        // What leads to the shop id stays, so that nothing is deleted.
        (1, "down", 1),
        (3, "down", 1),
    ] {
        let world = World::start().await;
        world.settled_with([shop("a", "gone", "s.example"), shop("a", "too", "t.example")]).await;
        world.stack.api_keys.break_cell("down", Fault::status(503));
        world.load((0..claimants).map(|number| {
            with(in_cell(&format!("b{number}"), "i", cell), json!({"shop_id": "s.example"}))
        }));

        world.stack.table.delete("a", "INDEX#gone");
        world.deliver().await;

        assert_eq!(world.passes(), passes, "{cell}");
        // Beside another one, whose keys are deleted.
        world.stack.table.delete("a", "INDEX#too");
        let again = removed(1, "a", "INDEX#gone");
        world.stack.table.clear_log();
        world.batch(world.new_records().into_iter().chain([again])).await;
        assert_eq!(world.passes(), 2, "{cell}");
    }
}

#[tokio::test]
async fn a_pass_over_the_table_leaves_query_configs_and_what_it_does_not_need_out() {
    let world = World::start().await;
    let spied = spy(world.stack.table.faults());
    let blob = "x".repeat(100_000);
    let large = json!({"search_config": {"x": blob}});
    world.load((0..20).map(|n| index_with("b", &format!("i{n}"), large.clone())));
    world.load((0..200).map(|n| query_config("b", "i0", &format!("q{n}"), n)));
    world.settled_with([shop("a", "i", "s.example")]).await;

    world.stack.table.delete("a", "INDEX#i");
    world.deliver_ok().await;

    let requests = spied.requests().into_iter();
    let scans = requests.filter(|request| request.operation() == Some("Scan"));
    let segments: BTreeSet<u64> =
        scans.filter_map(|scan| scan.json::<Value>().unwrap()["Segment"].as_u64()).collect();
    assert!(segments.len() > 1, "in parallel segments");
    let log = world.stack.table.log();
    let scans = log.iter().filter(|request| request.operation == "Scan");
    let (items, bytes) =
        scans.fold((0, 0), |sum, scan| (sum.0 + scan.items, sum.1 + scan.reply_bytes));
    let looks = 3;
    assert!(items <= 20 * looks, "{items} items were returned");
    assert!(bytes < 100_000, "{bytes} bytes came back");
}

/// This many query configs of a/i, with values of a few hundred bytes.
fn query_configs(count: u32) -> impl Iterator<Item = Value> {
    let products: Vec<String> = (0..12).map(|n| format!("76891234500{n:02}")).collect();
    (0..count).map(move |n| {
        to_item(&json!({
            "pk": "a", "sk": format!("INDEX#i#QUERY#query number {n}"),
            "pinned_products": products, "rank": n, "filter": "product_type:Shoes",
        }))
    })
}

#[tokio::test]
async fn query_configs_take_as_few_puts_as_can_be_and_no_more_memory_the_more_they_are() {
    let mut peaks = Vec::new();
    for (count, puts) in [
        (25_000, vec![10_000, 10_000, 5_000]),
        (45_000, vec![10_000, 10_000, 10_000, 10_000, 5_000]),
    ] {
        let (stack, function) = process::start().await;
        stack.table.load([to_item(&index("a", "i"))]);
        stack.table.load(query_configs(count));

        let invocation = process::invoke(&function, &re_export_all("a", "i")).await;

        let report = invocation.result.unwrap();
        assert_eq!(report["query_configs"], json!({"exported": count, "rejected": 0}));
        let sent = stack.kv.log_of(KvVerb::PutBulk).into_iter();
        let sent = sent.filter(|put| put.namespace == QUERY_CONFIGS).map(|put| put.pairs);
        assert_eq!(sent.collect::<Vec<_>>(), puts);
        // The settings before and after; pages of a megabyte, once to export and once to verify.
        let operations = stack.table.operations();
        assert_eq!(operations.keys().collect::<Vec<_>>(), ["BatchGetItem", "Query"]);
        let megabytes = stack.table.log().iter().map(|read| read.reply_bytes).sum::<usize>() >> 20;
        assert!(operations["Query"] <= megabytes + 3 * puts.len(), "{operations:?}, {megabytes}");
        assert_eq!(stack.kv.keys(QUERY_CONFIGS).len(), usize::try_from(count).unwrap());
        let usage = function.usage().await.unwrap();
        println!("{count} query configs: {} kB at the peak", usage.peak_memory / 1_024);
        peaks.push(usage.peak_memory);
    }
    let more = peaks[1].saturating_sub(peaks[0]);
    assert!(more <= 10_000_000, "{more} bytes more for 45,000 than for 25,000");
}
