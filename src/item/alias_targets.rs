//! Which indexes an item's active aliases point at.
//!
//! Whatever can be read counts, and so does what is in doubt: a key that is wrongly kept is found by
//! the next reconcile, a key that is wrongly deleted takes a shop down.

use super::alias_blocks::{BLOCKS, PointsAt};
use super::keys::{MAX_PK_BYTES, MAX_SK_BYTES};
use super::{Attribute, Map};

/// The attributes that say which KV keys an item asks for and what its aliases point at. A delete needs all of
/// them.
pub const CLAIM_PATHS: [&str; 4] =
    ["shop_id", "index_aliases", "read_alias", "add_docs_config.index_write_aliases"];

/// No index id is longer. A longer name points at nothing.
const MAX_NAME_BYTES: usize = MAX_PK_BYTES + "-".len() + MAX_SK_BYTES;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AliasTarget {
    IndexId(String),
    /// Whatever lives under this shop id: named by an `index_write_aliases` entry.
    ShopId(String),
}

impl AliasTarget {
    pub fn name(&self) -> &str {
        match self {
            Self::IndexId(name) | Self::ShopId(name) => name,
        }
    }
}

/// Returns everything that the active aliases of an item of `account` point at, itself included. These
/// are active: blocks with `enabled: true`, the legacy attributes that take their place, and every entry
/// of `add_docs_config.index_write_aliases`.
pub fn alias_targets(account: &str, item: &Map) -> Vec<AliasTarget> {
    let mut targets = Vec::new();
    let aliases = item.map("index_aliases");
    for block in &BLOCKS {
        let legacy = block.legacy.and_then(|name| item.text(name));
        let index_ids = match (legacy, aliases.and_then(|aliases| aliases.map(block.name))) {
            (Some(index_id), _) => vec![index_id],
            (None, Some(fields)) if is_active(fields) => index_ids(&block.points_at, fields),
            (None, _) => vec![],
        };
        targets.extend(index_ids.into_iter().map(|id| AliasTarget::IndexId(id.to_owned())));
    }
    if let Some(config) = item.map("add_docs_config") {
        let entries = config.list("index_write_aliases").iter();
        targets.extend(entries.flat_map(|entry| write_targets(account, entry)));
    }
    targets.retain(|target| target.name().len() <= MAX_NAME_BYTES);
    targets
}

/// Returns whether a block is active: unless `enabled` is absent, NULL or false. One that can't be read is in
/// doubt, and counts.
fn is_active(block: &Map) -> bool {
    !matches!(block.get("enabled"), None | Some(Attribute::BOOL(false)))
}

/// Returns the index ids in a block. A target that is a bare text instead of a map may be one.
fn index_ids<'a>(points_at: &PointsAt, block: &'a Map) -> Vec<&'a str> {
    let of_target = |target: &'a Attribute| match target {
        Attribute::M(target) => target.text("index_id"),
        other => other.as_text(),
    };
    match points_at {
        PointsAt::OneIndex => block.text("index_id").into_iter().collect(),
        PointsAt::Targets => block.list("targets").iter().filter_map(of_target).collect(),
    }
}

/// Returns what an entry of `index_write_aliases` points at: a bare text may be an index id or a shop id.
fn write_targets(account: &str, entry: &Attribute) -> Vec<AliasTarget> {
    let (index_ids, shop_id) = match entry {
        Attribute::M(entry) => {
            let account = entry.text("system_account_id").unwrap_or(account);
            let by_name = entry.text("index_name").map(|name| format!("{account}-{name}"));
            ([entry.text("index_id").map(str::to_owned), by_name], entry.text("shop_id"))
        }
        other => ([other.as_text().map(str::to_owned), None], other.as_text()),
    };
    let index_ids = index_ids.into_iter().flatten().map(AliasTarget::IndexId);
    index_ids.chain(shop_id.map(|shop_id| AliasTarget::ShopId(shop_id.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Names, the shop ids among them behind `shop:`.
    fn targets(item: Value) -> Vec<String> {
        let targets = alias_targets("acct1", &Map::from(item)).into_iter();
        let mut names: Vec<String> = targets
            .map(|target| match target {
                AliasTarget::IndexId(name) => name,
                AliasTarget::ShopId(name) => format!("shop:{name}"),
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_counts_as_an_active_alias() {
        let enabled = json!({"BOOL": true});
        let target = |name: &str| json!([{"M": {"index_id": {"S": name}}}]);
        let targets_of = |list| json!({"M": {"enabled": enabled, "targets": {"L": list}}});
        let block = |name: &str, block| json!({"index_aliases": {"M": {name: block}}});
        let doc_reads = |list| block("doc_reads", targets_of(list));
        let blocks_and = |read_alias| {
            let blocks = json!({"doc_reads": targets_of(target("r")), "doc_writes": targets_of(target("w"))});
            json!({"read_alias": read_alias, "index_aliases": {"M": blocks}})
        };
        let write_alias =
            |entry| json!({"add_docs_config": {"M": {"index_write_aliases": {"L": [entry]}}}});
        let doubtful = json!({"M": {"enabled": {"S": "false"}, "index_id": {"S": "n"}}});
        let absent = json!({"M": {"index_id": {"S": "n"}}});
        let odd = json!({"index_id": {"S": "r"}, "enabled": {"BOOL": false}, "weight": {"N": "7"}});
        let by_shop_id = json!({"shop_id": {"S": "s"}, "index_id": {"N": "1"}});
        let by_account = json!({"index_name": {"S": "other"}, "system_account_id": {"S": "acct9"}});
        let longest = "n".repeat(3_073);
        let rows: [(&str, Value, &[&str]); 17] = [
            ("nothing", json!({}), &[]),
            ("no enabled", block("analytics", absent), &[]),
            ("a doubtful enabled", block("analytics", doubtful), &["n"]),
            ("a target that is a text", doc_reads(json!([{"S": "r"}])), &["r"]),
            ("a broken target and an odd one", doc_reads(json!([{"N": "1"}, {"M": odd}])), &["r"]),
            ("an unknown block", block("shadow", targets_of(target("s"))), &[]),
            (
                "read_alias overrides doc_reads",
                blocks_and(json!({"S": "legacy"})),
                &["legacy", "w"],
            ),
            ("an empty read_alias", blocks_and(json!({"S": ""})), &["r", "w"]),
            ("a broken read_alias", blocks_and(json!({"N": "1"})), &["r", "w"]),
            ("by index id", write_alias(json!({"M": {"index_id": {"S": "a-1"}}})), &["a-1"]),
            ("by shop id", write_alias(json!({"M": by_shop_id})), &["shop:s"]),
            ("by name", write_alias(json!({"M": {"index_name": {"S": "own"}}})), &["acct1-own"]),
            ("by account and name", write_alias(json!({"M": by_account})), &["acct9-other"]),
            ("by a text", write_alias(json!({"S": "bare"})), &["bare", "shop:bare"]),
            ("by nothing", write_alias(json!({"N": "7"})), &[]),
            ("the longest name", json!({"read_alias": {"S": longest}}), &[&longest]),
            ("a longer name", json!({"read_alias": {"S": format!("{longest}n")}}), &[]),
        ];
        for (name, item, expected) in rows {
            assert_eq!(targets(item), expected, "{name}");
        }
    }
}
