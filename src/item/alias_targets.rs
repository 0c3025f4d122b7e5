//! Which indexes an item's active aliases point at.
//!
//! Whatever can be read counts, and so does what is in doubt: a key that is wrongly kept is found by
//! the next reconcile, a key that is wrongly deleted takes a shop down.

use super::{Attribute, Map};

/// What says which KV keys an item asks for and what its aliases point at: a delete needs all of it.
pub const CLAIM_PATHS: [&str; 4] =
    ["shop_id", "index_aliases", "read_alias", "add_docs_config.index_write_aliases"];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AliasTarget {
    IndexId(String),
    /// Whatever lives under this shop id: named by an `index_write_aliases` entry.
    ShopId(String),
}

/// Everything that the active aliases of an item of `account` point at, itself included. Active are
/// `doc_reads`, `doc_writes` and `analytics` with `enabled: true`, a `read_alias` (which overrides
/// `doc_reads`), and every entry of `add_docs_config.index_write_aliases`.
pub fn alias_targets(account: &str, item: &Map<'_>) -> Vec<AliasTarget> {
    let mut targets = Vec::new();
    let aliases = item.map("index_aliases");
    let block = |name: &str| aliases?.map(name).filter(|block| is_active(block));
    match item.text("read_alias") {
        Some(index_id) => targets.push(AliasTarget::IndexId(index_id.to_owned())),
        None => targets.extend(block("doc_reads").into_iter().flat_map(targets_of)),
    }
    targets.extend(block("doc_writes").into_iter().flat_map(targets_of));
    if let Some(index_id) = block("analytics").and_then(|block| block.text("index_id")) {
        targets.push(AliasTarget::IndexId(index_id.to_owned()));
    }
    let entries = item.map("add_docs_config").map(|config| config.list("index_write_aliases"));
    for entry in entries.unwrap_or_default() {
        write_alias_targets(account, entry, &mut targets);
    }
    targets
}

/// Active unless `enabled` is absent, NULL or false: an unreadable one is a doubt, and counts.
fn is_active(block: &Map<'_>) -> bool {
    !matches!(block.get("enabled"), None | Some(Attribute::BOOL(false)))
}

/// What a block's targets name: a bare text may be an index id.
fn targets_of(block: &Map<'_>) -> impl Iterator<Item = AliasTarget> {
    block.list("targets").iter().filter_map(|target| {
        let index_id = match target {
            Attribute::M(target) => target.text("index_id"),
            other => other.as_text(),
        };
        Some(AliasTarget::IndexId(index_id?.to_owned()))
    })
}

/// What an entry of `index_write_aliases` names: a bare text may be an index id or a shop id.
fn write_alias_targets(account: &str, entry: &Attribute<'_>, targets: &mut Vec<AliasTarget>) {
    if let Some(name) = entry.as_text() {
        targets.push(AliasTarget::IndexId(name.to_owned()));
        targets.push(AliasTarget::ShopId(name.to_owned()));
    }
    let Attribute::M(entry) = entry else { return };
    if let Some(index_id) = entry.text("index_id") {
        targets.push(AliasTarget::IndexId(index_id.to_owned()));
    }
    if let Some(shop_id) = entry.text("shop_id") {
        targets.push(AliasTarget::ShopId(shop_id.to_owned()));
    }
    if let Some(name) = entry.text("index_name") {
        let account = entry.text("system_account_id").unwrap_or(account);
        targets.push(AliasTarget::IndexId(format!("{account}-{name}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(item: &str) -> Vec<AliasTarget> {
        let item = serde_json::value::RawValue::from_string(item.to_owned()).unwrap();
        let mut targets = alias_targets("acct1", &Map::read(&item).unwrap());
        targets.sort();
        targets
    }

    fn ids(ids: &[&str]) -> Vec<AliasTarget> {
        ids.iter().map(|id| AliasTarget::IndexId((*id).to_owned())).collect()
    }

    #[test]
    fn the_claim_paths_lead_to_all_that_is_read() {
        let item = serde_json::json!({
            "shop_id": {"S": "s"}, "index_endpoint": {"S": "https://h"}, "read_alias": {"S": "r"},
            "index_aliases": {"M": {"analytics": {"M": {"enabled": {"BOOL": true}, "index_id": {"S": "n"}}}}},
            "add_docs_config": {"M": {"index_write_aliases": {"L": [{"S": "w"}]}}},
        });
        let mut projected = item.clone();
        projected
            .as_object_mut()
            .unwrap()
            .retain(|name, _| CLAIM_PATHS.iter().any(|path| path.split('.').next() == Some(name)));
        let index = crate::index::IndexRef::parse("acct1", "main").unwrap();
        let claims = |item: &serde_json::Value| {
            let item = serde_json::value::to_raw_value(item).unwrap();
            let map = Map::read(&item).unwrap();
            (crate::item::keys::claimed_keys(&index, &map), alias_targets("acct1", &map))
        };
        assert_eq!(claims(&projected), claims(&item));
        assert_eq!(claims(&item).1.len(), 4);
    }

    #[test]
    fn enabled_blocks_point_whatever_the_weight_and_disabled_ones_do_not() {
        let item = |enabled: bool| {
            format!(
                r#"{{"index_aliases":{{"M":{{
                "doc_reads":{{"M":{{"enabled":{{"BOOL":{enabled}}},"targets":{{"L":[{{"M":{{"index_id":{{"S":"r"}},"weight":{{"N":"0"}}}}}}]}}}}}},
                "doc_writes":{{"M":{{"enabled":{{"BOOL":{enabled}}},"targets":{{"L":[{{"M":{{"index_id":{{"S":"w"}}}}}}]}}}}}},
                "analytics":{{"M":{{"enabled":{{"BOOL":{enabled}}},"index_id":{{"S":"n"}}}}}}}}}}}}"#
            )
        };
        assert_eq!(targets(&item(true)), ids(&["n", "r", "w"]));
        assert_eq!(targets(&item(false)), []);
    }

    #[test]
    fn read_alias_overrides_doc_reads_but_not_doc_writes_unless_it_is_empty() {
        let item = r#"{"read_alias":{"S":"legacy"},"index_aliases":{"M":{
            "doc_reads":{"M":{"enabled":{"BOOL":true},"targets":{"L":[{"M":{"index_id":{"S":"r"}}}]}}},
            "doc_writes":{"M":{"enabled":{"BOOL":true},"targets":{"L":[{"M":{"index_id":{"S":"w"}}}]}}}}}}"#;
        assert_eq!(targets(item), ids(&["legacy", "w"]));
        assert_eq!(targets(&item.replace("legacy", "")), ids(&["r", "w"]));
    }

    #[test]
    fn write_aliases_name_by_index_id_shop_id_or_account_and_name() {
        assert_eq!(
            targets(
                r#"{"add_docs_config":{"M":{"index_write_aliases":{"L":[
                {"M":{"index_id":{"S":"a-1"}}},{"M":{"shop_id":{"S":"s-1"}}},
                {"M":{"index_name":{"S":"own"}}},
                {"M":{"index_name":{"S":"other"},"system_account_id":{"S":"acct9"}}}]}}}}"#
            ),
            [ids(&["a-1", "acct1-own", "acct9-other"]), vec![AliasTarget::ShopId("s-1".into())]]
                .concat()
        );
    }

    #[test]
    fn a_doubt_counts_as_pointing() {
        assert_eq!(
            targets(
                r#"{"index_aliases":{"M":{"analytics":{"M":{"enabled":{"S":"true"},"index_id":{"S":"n"}}},
                "doc_reads":{"M":{"enabled":{"BOOL":true},"targets":{"L":[{"S":"r"}]}}}}},
                "add_docs_config":{"M":{"index_write_aliases":{"L":[{"S":"bare"}]}}}}"#
            ),
            [ids(&["bare", "n", "r"]), vec![AliasTarget::ShopId("bare".into())]].concat()
        );
    }

    #[test]
    fn what_is_broken_does_not_hide_the_rest() {
        assert_eq!(
            targets(
                r#"{"index_endpoint":{"N":"1"},"read_alias":{"N":"1"},"add_docs_config":{"M":{"index_write_aliases":{"L":[{"N":"7"},{"M":{"index_id":{"N":"1"},"shop_id":{"S":"s"}}}]}}},
                "index_aliases":{"M":{"doc_reads":{"M":{"enabled":{"BOOL":true},"targets":{"L":[{"N":"1"},{"M":{"index_id":{"S":"r"},"weight":{"N":"7"}}}]}}},"doc_writes":{"S":"x"}}}}"#
            ),
            [ids(&["r"]), vec![AliasTarget::ShopId("s".into())]].concat()
        );
    }
}
