//! The kind of drift of each index and each query config, by its number.

use serde_json::{Value, json};
use testbed::proxy::query_config_key;

use crate::report::Outcome;
use crate::workload::{ACCOUNTS, index_item, keys, query_config, typical};

pub const EVERY: usize = 100;

/// The index that has the query configs.
pub const OWNER: (&str, &str) = ("account-00000", "index-000000");
/// Another account's index whose query configs get the same keys.
pub const TWIN: (&str, &str) = ("account", "00000-index-000000");
/// The cell whose gateway fails once KV is full.
pub const BROKEN_CELL: &str = "broken";

/// The kind of drift of an index.
#[derive(PartialEq)]
pub enum Part {
    Missing,
    Stale,
    /// Shares its shop id with the next index, whose settings KV holds under it.
    SharesFirst,
    SharesSecond,
    /// Its item changes to one that can't be exported.
    Rejected,
    /// Its alias protects the keys of an index that has no item.
    Withholds,
    /// Its alias points at an index that does not exist.
    Dangles,
    /// Its API key is not available.
    Unjudged,
    Right,
}

pub fn part(number: usize) -> Part {
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

/// The drift among this many indexes and query configs.
pub struct Drift {
    pub indexes: usize,
    pub configs: usize,
}

impl Drift {
    /// Both numbers must be multiples of a hundred.
    pub fn new(indexes: usize, configs: usize) -> Outcome<Self> {
        if [indexes, configs].iter().any(|count| !count.is_multiple_of(EVERY)) {
            return Err(format!("{indexes} and {configs} are not multiples of {EVERY}").into());
        }
        Ok(Self { indexes, configs })
    }

    /// The table's items before drift is planted.
    pub fn items(&self) -> impl Iterator<Item = Value> {
        let configs = (0..self.configs).map(|number| query_config(OWNER.0, OWNER.1, number));
        (0..self.indexes).map(index).chain(configs)
    }
}

/// An index's item.
pub fn index(number: usize) -> Value {
    let mut item = index_item(number, ACCOUNTS, typical(number));
    item["shop_id"]["S"] = json!(shop_id(number));
    let target = match part(number) {
        Part::Withholds => held_id(number),
        Part::Dangles => format!("gone-nobody-{number}"),
        // An alias to itself protects nothing.
        _ => index_id(number),
    };
    let targets = &mut item["index_aliases"]["M"]["doc_reads"]["M"]["targets"]["L"];
    *targets = json!([{"M": {"index_id": {"S": target}, "weight": {"N": "1"}}}]);
    if part(number) == Part::Unjudged {
        item["cell"] = json!({"S": BROKEN_CELL});
    }
    item
}

pub fn index_id(number: usize) -> String {
    let keys = keys(number, ACCOUNTS);
    let [pk, sk] = ["pk", "sk"].map(|name| keys[name]["S"].as_str().unwrap_or_default());
    format!("{pk}-{}", sk.trim_start_matches("INDEX#"))
}

pub fn shop_id(number: usize) -> String {
    let number = if part(number) == Part::SharesSecond { number - 1 } else { number };
    format!("shop-{number:06}.myshopify.com")
}

pub fn settings_keys(number: usize) -> [String; 2] {
    [index_id(number), shop_id(number)]
}

pub fn held_name(number: usize) -> String {
    format!("held-{number}")
}

pub fn held_id(number: usize) -> String {
    format!("gone-{}", held_name(number))
}

pub fn orphan(number: usize) -> String {
    format!("orphan-{number}")
}

pub fn config_key(number: usize) -> String {
    query_config_key(OWNER.0, OWNER.1, &format!("query number {number:07}"))
}

pub fn orphaned_config(number: usize) -> String {
    query_config_key("gone", "gone", &format!("gone {number}"))
}
