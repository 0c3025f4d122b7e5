//! What a reconcile of a whole fleet costs: an audit and a repair of a million keys, of ten million with
//! `large`, or of any number, each followed to its end in simulated time. Prints a table.

#[path = "../tests/fleet/allocated.rs"]
mod allocated;
#[path = "../tests/fleet/chain.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod chain;
#[path = "../tests/fleet/items.rs"]
mod items;
#[path = "../tests/support/memory.rs"]
#[expect(dead_code, reason = "a fleet has no faulty requests to KV")]
mod memory;
#[path = "../tests/fleet/services.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod services;

use std::future::pending;
use std::rc::Rc;

use chain::{Chain, INVOCATION, audit, follow, repair};
use ecom_settings_exporter::kv::Namespace::{QueryConfigs, Settings};
use items::Size;
use services::{World, process};

#[global_allocator]
static ALLOCATOR: allocated::Counting = allocated::Counting;

/// What DynamoDB counts as one read unit of a consistent read. A pass of a reconcile takes half of that.
const READ_UNIT_BYTES: usize = 4_096;

/// 20 keys of each index: 2 of its settings, and 18 query configs.
fn size(keys: usize) -> Size {
    Size {
        accounts: keys / 200,
        indexes: 10,
        query_configs: 18,
        drift: 10_000,
        settings_bytes: 1_850,
        query_config_bytes: 250,
    }
}

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let is_large = arguments.iter().any(|word| word == "large");
    let given = arguments.iter().find_map(|word| word.parse().ok());
    let keys = given.unwrap_or(if is_large { 10_000_000 } else { 1_000_000 });
    println!(
        "| what | runs | KV requests | table requests | passes | API keys | read units | peak memory | simulated time |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for applies in [false, true] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(measure(keys, applies));
    }
}

async fn measure(keys: usize, applies: bool) {
    let world = Rc::new(World::new(size(keys)));
    let expected = [Settings, QueryConfigs].map(|namespace| world.compare(namespace));
    let allocated_before = allocated::begin();
    let began = std::time::Instant::now();
    let request = if applies { repair() } else { audit() };
    let chain = follow(|| process(&world), request, INVOCATION, pending).await.expect("a report");
    let megabytes = allocated::most_since(allocated_before);
    let asked = world.asked.borrow();
    let minutes = world.began.elapsed().as_secs() / 60;
    println!(
        "| {} of {keys} keys | {} | {} | {} | {} | {} | {} | {megabytes} MB | {} h {:02} min |",
        if applies { "repair" } else { "audit" },
        chain.runs,
        asked.kv.len(),
        asked.table,
        asked.passes,
        asked.api_keys,
        asked.table_bytes / READ_UNIT_BYTES / 2,
        minutes / 60,
        minutes % 60,
    );
    eprintln!("{:.0} s of this machine", began.elapsed().as_secs_f64());
    check(&world, &chain, expected, applies);
}

/// Every key was compared once, the drift was found and, by a repair, mended.
fn check(world: &World, chain: &Chain, expected: [services::Found; 2], applies: bool) {
    assert_eq!([Settings, QueryConfigs].map(|namespace| chain.found(namespace)), expected);
    assert!(chain.is_complete() && chain.refused() == [0, 0], "{}", chain.report);
    let drift = |namespace| {
        let found = world.compare(namespace);
        found.missing + found.stale + found.orphaned
    };
    assert_eq!(drift(Settings) + drift(QueryConfigs) == 0, applies);
}
