//! Which indexes an item's active aliases point at.
//!
//! Whatever can be read counts, and so does what is in doubt: a key that is wrongly kept is found by
//! the next reconcile, a key that is wrongly deleted takes a shop down.

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
/// are active: blocks with `enabled: true`, `read_alias`, which takes the place of `doc_reads`, and every
/// entry of `add_docs_config.index_write_aliases`.
pub fn alias_targets(account: &str, item: &Map) -> Vec<AliasTarget> {
    let active = |name| item.map("index_aliases")?.map(name).filter(|block| is_active(block));
    let doc_writes = active("doc_writes").map(target_ids);
    let doc_reads = match item.text("read_alias") {
        Some(index_id) => Some(vec![index_id]),
        None => active("doc_reads").map(target_ids),
    };
    let analytics = active("analytics").and_then(|block| block.text("index_id"));
    let index_ids = doc_writes.into_iter().chain(doc_reads).flatten().chain(analytics);
    let mut targets: Vec<_> = index_ids.map(|id| AliasTarget::IndexId(id.to_owned())).collect();
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

/// Returns the index ids of a block's targets. A target that is a bare text instead of a map may be one.
fn target_ids(block: &Map) -> Vec<&str> {
    let index_ids = block.list("targets").iter().filter_map(|target| match target {
        Attribute::M(target) => target.text("index_id"),
        other => other.as_text(),
    });
    index_ids.collect()
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

    /// Returns the targets in what a pass over the table reads of an item, the shop ids behind `shop:`.
    fn targets(mut item: Value) -> Vec<String> {
        let read = CLAIM_PATHS.map(|path| path.split('.').next().unwrap());
        item.as_object_mut().unwrap().retain(|name, _| read.contains(&&**name));
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
        let text = |text: &str| json!({"S": text});
        let [on, off, null] =
            [json!({"BOOL": true}), json!({"BOOL": false}), json!({"NULL": true})];
        // Blocks that all have each attribute that any block has, and a `read_alias`.
        let blocks = |enabled: &Value, read_alias: &Value| {
            let block = |name| {
                let targets = json!({"L": [{"M": {"index_id": text(name)}}]});
                json!({"M": {"enabled": enabled, "index_id": text(name), "targets": targets}})
            };
            let blocks =
                [("doc_reads", "r"), ("doc_writes", "w"), ("analytics", "n"), ("new", "x")];
            let blocks: Value =
                blocks.map(|(name, target)| (name, block(target))).into_iter().collect();
            json!({"read_alias": read_alias, "index_aliases": {"M": blocks}})
        };
        let doc_reads = |targets: Value| {
            let fields = json!({"enabled": on, "targets": {"L": targets}});
            json!({"index_aliases": {"M": {"doc_reads": {"M": fields}}}})
        };
        let write_alias =
            |entry| json!({"add_docs_config": {"M": {"index_write_aliases": {"L": [entry]}}}});
        let odd = json!({"index_id": text("r"), "enabled": off, "weight": {"N": "7"}});
        let by_shop_id = json!({"shop_id": text("s"), "index_id": {"N": "1"}});
        let by_account = json!({"index_name": text("other"), "system_account_id": text("acct9")});
        let longest = "n".repeat(3_073);
        let rows: [(&str, Value, &[&str]); 19] = [
            ("nothing", json!({}), &[]),
            ("enabled blocks", blocks(&on, &null), &["n", "r", "w"]),
            ("disabled blocks", blocks(&off, &null), &[]),
            ("an absent enabled", blocks(&null, &null), &[]),
            ("a doubtful enabled", blocks(&text("false"), &null), &["n", "r", "w"]),
            ("read_alias overrides doc_reads", blocks(&on, &text("l")), &["l", "n", "w"]),
            ("read_alias beside disabled blocks", blocks(&off, &text("l")), &["l"]),
            ("an empty read_alias", blocks(&on, &text("")), &["n", "r", "w"]),
            ("a broken read_alias", blocks(&on, &json!({"N": "1"})), &["n", "r", "w"]),
            ("a target that is a text", doc_reads(json!([text("r")])), &["r"]),
            ("a broken target and an odd one", doc_reads(json!([{"N": "1"}, {"M": odd}])), &["r"]),
            ("by index id", write_alias(json!({"M": {"index_id": text("a-1")}})), &["a-1"]),
            ("by shop id", write_alias(json!({"M": by_shop_id})), &["shop:s"]),
            ("by name", write_alias(json!({"M": {"index_name": text("own")}})), &["acct1-own"]),
            ("by account and name", write_alias(json!({"M": by_account})), &["acct9-other"]),
            ("by a text", write_alias(text("bare")), &["bare", "shop:bare"]),
            ("by nothing", write_alias(json!({"N": "7"})), &[]),
            ("the longest name", json!({"read_alias": text(&longest)}), &[&longest]),
            ("a longer name", json!({"read_alias": text(&format!("{longest}n"))}), &[]),
        ];
        for (name, item, expected) in rows {
            assert_eq!(targets(item), expected, "{name}");
        }
    }
}
