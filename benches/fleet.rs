//! What a reconcile of a whole fleet costs: an audit, a repair, and the two audits before a release, of
//! a million keys, of ten million with `large`, or of any number, each followed to its end in simulated
//! time. Prints a table.

#[path = "../tests/fleet/model/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod model;

use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::item::{IndexSettings, ItemKind};
use ecom_settings_exporter::kv::Digest;
use ecom_settings_exporter::ports::Namespace;
use ecom_settings_exporter::services::table_reply::TableReply;
use model::world::Asked;
use model::{
    Fleet, Followed, Found, INVOCATION, ItemId, Size, World, audit, follow, process, repair,
};
use serde_json::{Value, json};

/// What DynamoDB counts as one read unit.
const READ_UNIT_BYTES: u64 = 4_096;

/// 20 keys of each index: 2 of its settings, and 18 query configs.
fn size(keys: usize) -> Size {
    Size {
        accounts: keys / 200,
        indexes: 10,
        query_configs: 18,
        cells: 5,
        drift: 10_000,
        seed: 1,
        settings_bytes: 1_850,
        query_config_bytes: 250,
        query_bytes: 0,
    }
}

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let given = arguments.iter().find_map(|argument| argument.parse().ok());
    let keys = given.unwrap_or(if has("large") { 10_000_000 } else { 1_000_000 });
    let all = !["audit", "repair", "release"].into_iter().any(has);
    print_decoding();
    println!(
        "| what | runs | KV requests | table requests | passes | API keys | read units | peak memory | simulated time |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for name in ["audit", "repair", "release"] {
        if all || has(name) {
            measure(&format!("{keys} keys: {name}"), keys, name);
        }
    }
}

/// Prints what the function's own decoders take for a page of items: [`model`] assumes some
/// more, for the way from the wire to them.
fn print_decoding() {
    let fleet = Fleet::new(size(10_000));
    for (what, query, items) in [("index's item", None, 500), ("query config", Some(0), 2_500)] {
        let items: Vec<String> = (0..items)
            .map(|index| {
                fleet.item_json(ItemId { index: index % fleet.indexes(), query }, 0, false)
            })
            .collect();
        let page = format!(r#"{{"Items":[{}],"Count":{}}}"#, items.join(","), items.len());
        let began = cpu_time();
        for _ in 0..PAGES {
            black_box(decoded(&page));
        }
        let each = (cpu_time() - began) / (PAGES * u32::try_from(items.len()).unwrap_or(u32::MAX));
        eprintln!("{what}: decoded and hashed in {each:?}");
    }
}

/// How many pages are decoded.
const PAGES: u32 = 40;

/// How long this thread has had a CPU.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// What the keys and values of a page's items come to.
fn decoded(page: &str) -> Vec<Digest> {
    let items = TableReply::parse(page).expect("a reply").items;
    let api_key = "key".into();
    let digests = items.iter().map(|(key, item)| match key.kind() {
        ItemKind::IndexSettings(index) => {
            let settings = IndexSettings::decode(&index, &item.attributes()).expect("settings");
            Digest::of(settings.value(&api_key).as_bytes())
        }
        // A part's pass needs no more than the KV key of nearly all query configs.
        ItemKind::QueryConfig(config) => Digest::of(config.kv_key().as_bytes()),
        ItemKind::Skipped => Digest::of(b""),
    });
    digests.collect()
}

fn measure(what: &str, keys: usize, name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    forget_peak_memory();
    let began = std::time::Instant::now();
    let (followed, world) = runtime.block_on(async {
        let world = Rc::new(World::new(size(keys)));
        let request = if name == "repair" { repair() } else { audit() };
        let live = process(&world, "live");
        let live = follow(&live, request, INVOCATION);
        let followed = if name == "release" {
            let next = process(&world, "next");
            let (live, next) =
                tokio::join!(live, follow(&next, json!({"preview": true}), INVOCATION));
            let later =
                |live: Followed, next: Followed| if live.took > next.took { live } else { next };
            live.and_then(|live| Ok(later(live, next?)))
        } else {
            live.await
        };
        (followed, world)
    });
    let memory = peak_memory();
    let followed = followed.unwrap_or_else(|error| panic!("{what}: {error}"));
    print_row(what, &followed, &world.asked.borrow(), memory);
    eprintln!("{what}: {:.0} s of this machine", began.elapsed().as_secs_f64());
    for (number, run) in followed.runs.iter().enumerate() {
        eprintln!("  run {number}: {}", counts(run));
    }
    check(&followed, &world, name == "repair");
}

fn print_row(what: &str, followed: &Followed, asked: &Asked, memory: u64) {
    let units =
        asked.consistent_bytes / READ_UNIT_BYTES + asked.eventual_bytes / READ_UNIT_BYTES / 2;
    println!(
        "| {what} | {} | {} | {} | {:.1} | {} | {units} | {} MB | {} |",
        followed.runs.len(),
        asked.kv.len(),
        asked.table,
        asked.segments as f64 / 8.0,
        asked.api_keys,
        memory / 1024,
        hours(followed.took),
    );
}

/// Every key was compared once, the drift was found and, by a repair, mended.
fn check(followed: &Followed, world: &World, applies: bool) {
    let fleet = &world.fleet;
    let (settings, query_configs) = (fleet.settings_found(), fleet.query_configs_found());
    for (namespace, expected) in
        [(Namespace::Settings, settings), (Namespace::QueryConfigs, query_configs)]
    {
        assert_eq!(followed.found(namespace), expected, "{namespace:?}");
        if applies {
            let Found { missing, stale, orphaned, .. } = world.compare(namespace);
            assert_eq!((missing, stale, orphaned), (0, 0, 0), "{namespace:?}");
        }
    }
    if applies {
        let to_write = |found: Found| found.missing + found.stale;
        assert_eq!(followed.total("written"), to_write(settings) + to_write(query_configs));
        assert_eq!(followed.total("deleted"), settings.orphaned + query_configs.orphaned);
    }
    assert!(world.limit.refused.borrow().is_empty(), "requests past the limit");
    assert!(followed.last()["complete"].as_bool().unwrap_or_default(), "{}", followed.last());
}

fn counts(run: &Value) -> String {
    let of = |namespace: &str| {
        ["listed", "missing", "stale", "orphaned", "written", "deleted", "failed"]
            .map(|class| format!("{class} {}", run[namespace][class]))
            .join(", ")
    };
    format!("{} | {} | {}", of("settings"), of("query_configs"), run["stopped"])
}

fn hours(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    format!("{} h {:02} min", minutes / 60, minutes % 60)
}

/// Makes the kernel forget the peak, where it may.
fn forget_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that the process has held, in kB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or_default()
}
