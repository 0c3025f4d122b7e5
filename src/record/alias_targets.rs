//! Which index ids an item's active aliases point at.
//!
//! Read leniently, from whatever of the item can be read: a key that is wrongly kept is found by
//! the next reconcile, a key that is wrongly deleted takes a shop down.

use super::attribute::{Attribute, Fields};
use super::{Image, IndexRef};

/// Something that an active alias points at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AliasTarget {
    /// An index, by its index id.
    IndexId(String),
    /// Whatever lives under this shop id: named by an `index_write_aliases` entry.
    ShopId(String),
}

/// Everything that the active aliases of `owner`'s item point at, itself included.
///
/// Active are `doc_reads`, `doc_writes` and `analytics` with `enabled: true`, a `read_alias` (which
/// overrides `doc_reads`), and every entry of `add_docs_config.index_write_aliases`.
pub fn alias_targets(owner: &IndexRef, image: &Image<'_>) -> Vec<AliasTarget> {
    let mut targets = Vec::new();
    let aliases = map(image, "index_aliases");
    let block = |name: &str| aliases.map(name).filter(|block| is_active(block));
    match image.optional_string("read_alias") {
        Ok(Some(index_id)) => targets.push(AliasTarget::IndexId(index_id)),
        _ => targets.extend(block("doc_reads").into_iter().flat_map(block_targets)),
    }
    targets.extend(block("doc_writes").into_iter().flat_map(block_targets));
    if let Some(index_id) = block("analytics").and_then(|block| block.text("index_id")) {
        targets.push(AliasTarget::IndexId(index_id.to_owned()));
    }

    for entry in map(image, "add_docs_config").list("index_write_aliases") {
        if let Some(name) = entry.as_text() {
            targets.push(AliasTarget::IndexId(name.to_owned()));
            targets.push(AliasTarget::ShopId(name.to_owned()));
        }
        let Some(entry) = entry.as_map() else { continue };
        if let Some(index_id) = entry.text("index_id") {
            targets.push(AliasTarget::IndexId(index_id.to_owned()));
        }
        if let Some(shop_id) = entry.text("shop_id") {
            targets.push(AliasTarget::ShopId(shop_id.to_owned()));
        }
        if let Some(index) = entry.text("index_name") {
            let account = entry.text("system_account_id").unwrap_or(&owner.account);
            targets.push(AliasTarget::IndexId(format!("{account}-{index}")));
        }
    }
    targets
}

/// A map of the item; empty where it has none.
fn map<'a>(image: &Image<'a>, name: &str) -> Fields<'a> {
    image.optional_map(name).ok().flatten().unwrap_or_default()
}

/// Active unless it says plainly that it isn't: an unreadable `enabled` is a doubt.
fn is_active(block: &Fields<'_>) -> bool {
    !matches!(block.get("enabled"), None | Some(Attribute::Flag(false)))
}

fn block_targets(block: &Fields<'_>) -> Vec<AliasTarget> {
    let targets = block.list("targets").iter().filter_map(Attribute::as_map);
    targets
        .filter_map(|target| target.text("index_id"))
        .map(|index_id| AliasTarget::IndexId(index_id.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Cursor;

    fn targets(item: &str) -> Vec<AliasTarget> {
        let image = Image::read(&mut Cursor::new(item)).unwrap();
        let mut targets = alias_targets(&IndexRef::parse("acct1", "main").unwrap(), &image);
        targets.sort();
        targets
    }

    fn ids(ids: &[&str]) -> Vec<AliasTarget> {
        ids.iter().map(|id| AliasTarget::IndexId((*id).to_owned())).collect()
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
    fn read_alias_overrides_doc_reads_but_not_doc_writes() {
        assert_eq!(
            targets(
                r#"{"read_alias":{"S":"legacy"},"index_aliases":{"M":{
                "doc_reads":{"M":{"enabled":{"BOOL":true},"targets":{"L":[{"M":{"index_id":{"S":"r"}}}]}}},
                "doc_writes":{"M":{"enabled":{"BOOL":true},"targets":{"L":[{"M":{"index_id":{"S":"w"}}}]}}}}}}"#
            ),
            ids(&["legacy", "w"])
        );
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
                r#"{"index_aliases":{"M":{"analytics":{"M":{"enabled":{"S":"true"},"index_id":{"S":"n"}}}}},
                "add_docs_config":{"M":{"index_write_aliases":{"L":[{"S":"bare"}]}}}}"#
            ),
            [ids(&["bare", "n"]), vec![AliasTarget::ShopId("bare".into())]].concat()
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
