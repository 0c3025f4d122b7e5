//! Cloudflare's limit of requests is everybody's.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::ports::Namespace;
use serde_json::json;

use crate::model::{
    INVOCATION, ItemId, REQUESTS, Size, World, audit, follow, process, process_with, repair,
};
use crate::small::{SMALL, assert_mended, change};

/// Pages of ten keys: hundreds of requests for a small fleet.
fn many_pages(size: Size) -> World {
    World { page_keys: 10, ..World::new(size) }
}

#[tokio::test(start_paused = true)]
async fn two_runs_a_stream_and_a_second_stack_share_one_limit_and_no_request_is_refused() {
    let world = Rc::new(many_pages(SMALL));
    let second = World { limit: Rc::clone(&world.limit), ..many_pages(SMALL) };
    let second = Rc::new(second);
    let (first_run, second_run) = (process(&world, "repair"), process(&world, "audit"));
    let other_stack = process(&second, "other stack");
    let done = Cell::new(false);
    let chains = async {
        let chains = tokio::join!(
            follow(&first_run, repair(), INVOCATION),
            follow(&second_run, audit(), INVOCATION),
            follow(&other_stack, repair(), INVOCATION),
        );
        done.set(true);
        chains
    };
    let stream = async {
        let function = process(&world, "stream");
        let mut writes = 0;
        while !done.get() {
            let index = writes % world.fleet.indexes();
            let item = match writes % 2 {
                0 => ItemId::settings(index),
                _ => ItemId::query_config(index, 3),
            };
            if world.fleet.drift(item).is_none() {
                let answer = change(&function, &world, item).await;
                assert_eq!(answer["batchItemFailures"], json!([]));
            }
            writes += 1;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        writes
    };
    let (chains, writes) = tokio::join!(chains, stream);
    for chain in [chains.0, chains.1, chains.2] {
        assert_eq!(chain.unwrap().last()["complete"], true);
    }
    let (limit, made) =
        (&world.limit, world.asked.borrow().kv.len() + second.asked.borrow().kv.len());
    eprintln!(
        "{made} requests in {:?}, {writes} of the stream; at most {} of {REQUESTS} in a window",
        world.began.elapsed(),
        limit.most.get()
    );
    assert!(made as u64 > REQUESTS && writes > 100, "{made} requests, {writes} writes");
    assert!(limit.refused.borrow().is_empty(), "{:?}", limit.refused);
    assert!(limit.most.get() <= REQUESTS);
    assert_mended(&second);
    assert_mended(&world);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_says_what_is_left_no_five_minutes_of_a_chain_hold_more_than_600_requests() {
    let mut world = many_pages(Size { accounts: 100, drift: 50, ..SMALL });
    world.says_what_is_left = false;
    let world = Rc::new(world);
    let chain = follow(&process(&world, "reconcile"), repair(), Duration::from_secs(500)).await;
    let chain = chain.unwrap();
    assert!(chain.runs.len() > 2, "{} runs", chain.runs.len());
    let asked = world.asked.borrow();
    assert!(asked.kv.len() > 1_300, "{} requests", asked.kv.len());
    for within in asked.kv.windows(601) {
        let took = within[600] - within[0];
        assert!(took >= Duration::from_secs(300), "601 requests in {took:?}");
    }
    assert_mended(&world);
}

#[tokio::test(start_paused = true)]
async fn small_requests_429s_and_a_slow_kv_change_neither_the_pace_nor_the_result() {
    for (bulk_max_pairs, refuses_one_in, kv) in
        [(1, 0, 300), (10, 0, 300), (1, 7, 300), (10, 13, 300), (10, 5, 9_000), (10_000, 3, 300)]
    {
        let mut world = World::new(Size { accounts: 20, drift: 20, ..SMALL });
        world.says_what_is_left = false;
        world.refuses_one_in = refuses_one_in;
        world.pace.kv = Duration::from_millis(kv);
        *world.fleet.lost.borrow_mut() = 50..70;
        let world = Rc::new(world);
        let function = process_with(&world, "reconcile", bulk_max_pairs);
        let request = json!({"apply": true, "delete_up_to": 1_000});
        let chain = follow(&function, request, Duration::from_secs(500)).await.unwrap();
        let case = format!("{bulk_max_pairs} pairs, one in {refuses_one_in} refused");
        assert_eq!(chain.total("failed"), 0, "{case}");
        assert_eq!(chain.last()["complete"], true, "{case}");
        assert_mended(&world);
        // Only what was refused is sent beyond the pace.
        let asked = world.asked.borrow();
        let within = if refuses_one_in == 0 { 600 } else { 1_200 };
        for within in asked.kv.windows(within + 1) {
            let took = within[within.len() - 1] - within[0];
            assert!(
                took >= Duration::from_secs(300),
                "{} requests in {took:?}, {case}",
                within.len()
            );
        }
        eprintln!("{case}: {} requests, {} runs", asked.kv.len(), chain.runs.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_holds_as_many_pairs_as_it_may() {
    let world = Rc::new(World::new(Size { accounts: 20, drift: 20, ..SMALL }));
    let function = process_with(&world, "reconcile", 10);
    let chain = follow(&function, repair(), INVOCATION).await.unwrap();
    let asked = world.asked.borrow();
    let puts = asked.puts.iter().filter(|(namespace, _)| *namespace == Namespace::QueryConfigs);
    let pairs: Vec<usize> = puts.map(|(_, pairs)| *pairs).collect();
    let (last, others) = pairs.split_last().unwrap();
    assert!(others.len() > 5 && others.iter().all(|pairs| *pairs == 10), "{pairs:?}");
    let all = (10 * others.len() + last) as u64;
    assert_eq!(all, chain.sum("query_configs", "written"));
}
