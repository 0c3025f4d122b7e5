//! Which indexes an item's active aliases point at.
//!
//! Whatever can be read counts, and so does what is in doubt: a key that is wrongly kept is found by
//! the next reconcile, a key that is wrongly deleted takes a shop down.

use super::alias_blocks::{ALIAS_BLOCKS, PointsAt};
use super::{Attribute, Map};

/// What says which KV keys an item asks for and what its aliases point at: a delete needs all of it.
pub const CLAIM_PATHS: [&str; 4] =
    ["shop_id", "index_aliases", "read_alias", "add_docs_config.index_write_aliases"];

/// The longest index id: DynamoDB's longest partition key, a dash, and its longest sort key. What is
/// longer points at nothing.
const MAX_NAME_BYTES: usize = 2_048 + 1 + 1_024;

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

/// Returns everything that the active aliases of an item of `account` point at, itself included. Active
/// are the blocks with `enabled: true`, the legacy attributes that override them, and every entry of
/// `add_docs_config.index_write_aliases`.
pub fn alias_targets(account: &str, item: &Map) -> Vec<AliasTarget> {
    let mut targets = Vec::new();
    let aliases = item.map("index_aliases");
    for block in &ALIAS_BLOCKS {
        let legacy = block.overridden_by.and_then(|name| item.text(name));
        let fields = aliases.and_then(|aliases| aliases.map(block.name));
        match (legacy, fields) {
            (Some(index_id), _) => targets.push(AliasTarget::IndexId(index_id.to_owned())),
            (None, Some(fields)) if is_active(fields) => {
                targets.extend(block_targets(&block.points_at, fields));
            }
            _ => {}
        }
    }
    let entries = item.map("add_docs_config").map(|config| config.list("index_write_aliases"));
    targets
        .extend(entries.unwrap_or_default().iter().flat_map(|entry| write_targets(account, entry)));
    targets.retain(|target| target.name().len() <= MAX_NAME_BYTES);
    targets
}

/// Active unless `enabled` is absent, NULL or false: an unreadable one is a doubt, and counts.
fn is_active(block: &Map) -> bool {
    !matches!(block.get("enabled"), None | Some(Attribute::BOOL(false)))
}

fn block_targets(points_at: &PointsAt, block: &Map) -> Vec<AliasTarget> {
    let index_ids: Vec<&str> = match points_at {
        PointsAt::OneIndex => block.text("index_id").into_iter().collect(),
        PointsAt::Targets => block.list("targets").iter().filter_map(index_id).collect(),
    };
    index_ids.into_iter().map(|index_id| AliasTarget::IndexId(index_id.to_owned())).collect()
}

/// The index id of a target: where it should be a map, a bare text may be one.
fn index_id(target: &Attribute) -> Option<&str> {
    match target {
        Attribute::M(target) => target.text("index_id"),
        other => other.as_text(),
    }
}

/// What an entry of `index_write_aliases` points at: a bare text may be an index id or a shop id.
fn write_targets(account: &str, entry: &Attribute) -> Vec<AliasTarget> {
    let (index_id, shop_id, by_name) = match entry {
        Attribute::M(entry) => {
            let account = entry.text("system_account_id").unwrap_or(account);
            let by_name = entry.text("index_name").map(|name| format!("{account}-{name}"));
            (entry.text("index_id"), entry.text("shop_id"), by_name)
        }
        other => (other.as_text(), other.as_text(), None),
    };
    let index_ids = [index_id.map(str::to_owned), by_name].into_iter().flatten();
    let shop_id = shop_id.map(|shop_id| AliasTarget::ShopId(shop_id.to_owned()));
    index_ids.map(AliasTarget::IndexId).chain(shop_id).collect()
}
