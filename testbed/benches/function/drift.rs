//! Drift of every class that a reconcile tells apart, planted in full namespaces, and what a report
//! has to say of it.
//!
//! Of a hundred indexes, and of a hundred query configs, one has each part below; two share a shop
//! id. All others are right.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testbed::faults::Fault;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS, Stack};

use crate::runs::{ACCOUNTS, Outcome};
use crate::workload::{index_item, keys, query_config, typical};

const EVERY: usize = 100;

/// The index that has the query configs.
const OWNER: (&str, &str) = ("account-00000", "index-000000");
/// Another account's index whose query configs get the same keys.
const TWIN: (&str, &str) = ("account", "00000-index-000000");
/// The cell whose gateway fails once KV is full.
const BROKEN_CELL: &str = "broken";

/// The part of an index by its number.
#[derive(PartialEq)]
enum Part {
    Missing,
    Stale,
    /// Asks for the shop id first; KV holds the second one's settings under it.
    SharesFirst,
    SharesSecond,
    /// Its item becomes one that can't be exported.
    Rejected,
    /// Its alias keeps an index in KV that has no item.
    Withholds,
    /// Its alias points at an index that is nowhere.
    Dangles,
    /// Its API key can't be had.
    Unjudged,
    Right,
}

fn part(number: usize) -> Part {
    match number % EVERY {
        0 => Part::Missing,
        1 => Part::Stale,
        2 => Part::SharesFirst,
        3 => Part::SharesSecond,
        4 => Part::Rejected,
        5 => Part::Withholds,
        6 => Part::Dangles,
        7 => Part::Unjudged,
        _ => Part::Right,
    }
}

/// What a reconcile meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing in KV.
    Fill,
    /// The drift, to be told.
    Audit,
    /// The drift, to be mended.
    Repair,
    /// What is left when it was mended.
    Again,
}

/// Keys of a namespace by class.
pub type Counts = BTreeMap<&'static str, usize>;

/// Keys that are written or deleted, in order.
pub type Changes = BTreeMap<(KvVerb, String), Vec<String>>;

/// The drift of so many indexes and query configs.
pub struct Drift {
    indexes: usize,
    configs: usize,
}

impl Drift {
    /// Drift among so many, which have to be whole hundreds.
    pub fn new(indexes: usize, configs: usize) -> Outcome<Self> {
        if [indexes, configs].iter().any(|count| !count.is_multiple_of(EVERY)) {
            return Err(format!("{indexes} and {configs} are not multiples of {EVERY}").into());
        }
        Ok(Self { indexes, configs })
    }

    /// The table before anything is planted.
    pub fn items(&self) -> impl Iterator<Item = Value> {
        let configs = (0..self.configs).map(|number| query_config(OWNER.0, OWNER.1, number));
        (0..self.indexes).map(index).chain(configs)
    }

    /// Brings table and KV apart.
    pub fn plant(&self, stack: &Stack) -> Outcome {
        self.plant_settings(stack)?;
        self.plant_query_configs(stack)?;
        stack.api_keys.break_cell(BROKEN_CELL, Fault::status(403));
        Ok(())
    }

    fn plant_settings(&self, stack: &Stack) -> Outcome {
        let kv = &stack.kv;
        for number in 0..self.indexes {
            match part(number) {
                Part::Missing => settings_keys(number).iter().for_each(|key| {
                    kv.delete(SETTINGS, key);
                }),
                Part::Stale => {
                    for key in settings_keys(number) {
                        make_stale(stack, SETTINGS, &key)?;
                    }
                }
                Part::SharesSecond => {
                    let second = kv.get(SETTINGS, &index_id(number)).ok_or("a key is not there")?;
                    kv.put(SETTINGS, &shop_id(number - 1), &second.value, second.metadata);
                }
                Part::Withholds => put_ours(stack, SETTINGS, &held_id(number), &held_name(number)),
                _ => {}
            }
        }
        let rejected = (0..self.indexes).filter(|number| part(*number) == Part::Rejected);
        stack.table.load(rejected.map(|number| {
            let mut item = index(number);
            item["index_endpoint"] = json!({"N": "7"});
            item
        }));
        for number in 0..self.indexes / EVERY {
            put_ours(stack, SETTINGS, &orphan(number), "orphan");
            put_foreign(stack, SETTINGS, number);
        }
        Ok(())
    }

    fn plant_query_configs(&self, stack: &Stack) -> Outcome {
        for number in (0..self.configs).step_by(EVERY) {
            stack.kv.delete(QUERY_CONFIGS, &config_key(number));
            make_stale(stack, QUERY_CONFIGS, &config_key(number + 1))?;
        }
        for number in 0..self.configs / EVERY {
            let query = format!("gone {number}");
            let value = json!({
                "system_account_id": "gone", "index_name": "gone", "normalized_query": query,
            });
            let key = orphaned_config(number);
            stack.kv.put(QUERY_CONFIGS, &key, &value.to_string(), Some(metadata("gone")));
            // Nothing in its value says whose it is.
            put_ours(stack, QUERY_CONFIGS, &format!("nameless-{number}"), "gone");
            put_foreign(stack, QUERY_CONFIGS, number);
        }
        // KV can't hold the key of a name that long.
        let long = "x".repeat(500);
        stack.table.load((0..self.configs).step_by(EVERY).flat_map(|number| {
            [query_config(TWIN.0, TWIN.1, number + 2), query_config("rejected", &long, number)]
        }));
        Ok(())
    }

    /// What the report has to count; classes left out are zero.
    pub fn expected(&self, stage: Stage) -> BTreeMap<&'static str, Counts> {
        let (n, c) = (self.indexes / EVERY, self.configs / EVERY);
        // Two of a hundred indexes have one shop id between them.
        let (keys, configs) = (self.indexes * 2 - n, self.configs);
        if stage == Stage::Fill {
            let settings = [
                ("desired", keys),
                ("missing", keys),
                ("written", keys),
                ("conflicting", n),
                // What is withheld later dangles as long as KV has nothing of it.
                ("dangling", 2 * n),
            ];
            let configs = [("desired", configs), ("missing", configs), ("written", configs)];
            return [("settings", settings.into()), ("query_configs", configs.into())].into();
        }
        let mut settings = Counts::from([
            // Keys of rejected items are not counted.
            ("desired", keys - 2 * n),
            ("listed", keys + n),
            ("withheld", n),
            ("dangling", n),
            ("foreign", n),
            ("conflicting", n),
            ("rejected", n),
            ("failed", 2 * n),
        ]);
        let mut configs = Counts::from([
            ("desired", configs),
            ("listed", configs + 2 * c),
            // Those that don't say whose they are; a repair fails on them.
            ("orphaned", c),
            ("foreign", c),
            ("conflicting", c),
            ("rejected", c),
        ]);
        if stage == Stage::Again {
            settings.insert("listed", keys + 2 * n);
        } else {
            settings.extend([("missing", 2 * n), ("stale", 2 * n), ("orphaned", n)]);
            configs.extend([("missing", c), ("stale", c), ("orphaned", 2 * c)]);
        }
        if stage == Stage::Repair {
            settings.extend([("written", 4 * n), ("deleted", n)]);
            configs.extend([("written", 2 * c), ("deleted", c)]);
        }
        if stage != Stage::Audit {
            configs.insert("failed", c);
        }
        [("settings", settings), ("query_configs", configs)].into()
    }

    /// What has to be written and deleted, each key once.
    pub fn changes(&self, stage: Stage) -> Changes {
        let settings = |picks: &dyn Fn(Part) -> bool| -> Vec<String> {
            let picked = (0..self.indexes).filter(|number| picks(part(*number)));
            picked.flat_map(settings_keys).collect()
        };
        let configs = |picks: &dyn Fn(usize) -> bool| -> Vec<String> {
            (0..self.configs).filter(|number| picks(number % EVERY)).map(config_key).collect()
        };
        let changes = match stage {
            Stage::Fill => vec![
                (KvVerb::PutBulk, SETTINGS, settings(&|_| true)),
                (KvVerb::PutBulk, QUERY_CONFIGS, configs(&|_| true)),
            ],
            Stage::Audit | Stage::Again => Vec::new(),
            Stage::Repair => vec![
                (
                    KvVerb::PutBulk,
                    SETTINGS,
                    settings(&|part| matches!(part, Part::Missing | Part::Stale)),
                ),
                (KvVerb::PutBulk, QUERY_CONFIGS, configs(&|part| part < 2)),
                (KvVerb::DeleteBulk, SETTINGS, (0..self.indexes / EVERY).map(orphan).collect()),
                (
                    KvVerb::DeleteBulk,
                    QUERY_CONFIGS,
                    (0..self.configs / EVERY).map(orphaned_config).collect(),
                ),
            ],
        };
        let sorted = |(verb, namespace, mut keys): (KvVerb, &str, Vec<String>)| {
            keys.sort_unstable();
            // The two that share a shop id name it both.
            keys.dedup();
            ((verb, namespace.to_owned()), keys)
        };
        changes.into_iter().map(sorted).collect()
    }
}

/// An index's item.
fn index(number: usize) -> Value {
    let mut item = index_item(number, ACCOUNTS, typical(number));
    item["shop_id"]["S"] = json!(shop_id(number));
    let target = match part(number) {
        Part::Withholds => held_id(number),
        Part::Dangles => format!("gone-nobody-{number}"),
        // To itself, which counts for nothing.
        _ => index_id(number),
    };
    let targets = &mut item["index_aliases"]["M"]["doc_reads"]["M"]["targets"]["L"];
    *targets = json!([{"M": {"index_id": {"S": target}, "weight": {"N": "1"}}}]);
    if part(number) == Part::Unjudged {
        item["cell"] = json!({"S": BROKEN_CELL});
    }
    item
}

fn index_id(number: usize) -> String {
    let keys = keys(number, ACCOUNTS);
    let [pk, sk] = ["pk", "sk"].map(|name| keys[name]["S"].as_str().unwrap_or_default());
    format!("{pk}-{}", sk.trim_start_matches("INDEX#"))
}

fn shop_id(number: usize) -> String {
    let number = if part(number) == Part::SharesSecond { number - 1 } else { number };
    format!("shop-{number:06}.myshopify.com")
}

fn settings_keys(number: usize) -> [String; 2] {
    [index_id(number), shop_id(number)]
}

fn held_name(number: usize) -> String {
    format!("held-{number}")
}

fn held_id(number: usize) -> String {
    format!("gone-{}", held_name(number))
}

fn orphan(number: usize) -> String {
    format!("orphan-{number}")
}

fn config_key(number: usize) -> String {
    query_key(OWNER, &format!("query number {number:07}"))
}

fn orphaned_config(number: usize) -> String {
    query_key(("gone", "gone"), &format!("gone {number}"))
}

fn query_key((account, index): (&str, &str), query: &str) -> String {
    let digest: String = Sha256::digest(query).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("qcfg-{account}-{index}-{digest}")
}

/// Every key of so many indexes and query configs, held with a digest that is another's.
pub fn hold_all_stale(stack: &Stack, indexes: usize, configs: usize) {
    for number in 0..indexes {
        put_ours(stack, SETTINGS, &index_id(number), "stale");
        put_ours(stack, SETTINGS, &format!("shop-{number:06}.myshopify.com"), "stale");
    }
    for number in 0..configs {
        put_ours(stack, QUERY_CONFIGS, &config_key(number), "stale");
    }
}

/// Metadata of ours, of an index of the account `gone`.
fn metadata(index: &str) -> Value {
    json!({
        "digest": "0".repeat(64), "exported_at": "2026-01-01T00:00:00.000Z", "source": "stream",
        "system_account_id": "gone", "index_name": index,
    })
}

/// A pair of an index of the account `gone`.
fn put_ours(stack: &Stack, namespace: &str, key: &str, index: &str) {
    let value = json!({"system_account_id": "gone", "index_name": index}).to_string();
    stack.kv.put(namespace, key, &value, Some(metadata(index)));
}

/// Every other one with metadata, but not ours.
fn put_foreign(stack: &Stack, namespace: &str, number: usize) {
    let metadata = (number % 2 == 1).then(|| json!({"by": "another tool"}));
    stack.kv.put(namespace, &format!("foreign-{number}"), "theirs", metadata);
}

fn make_stale(stack: &Stack, namespace: &str, key: &str) -> Outcome {
    let stored = stack.kv.get(namespace, key).ok_or("a key is not there")?;
    let mut metadata = stored.metadata.ok_or("a key is without metadata")?;
    metadata["digest"] = json!("0".repeat(64));
    stack.kv.put(namespace, key, &stored.value, Some(metadata));
    Ok(())
}
