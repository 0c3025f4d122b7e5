//! The one list of alias blocks. What is exported ([`super::index_aliases`]) and what protects a KV key
//! ([`super::alias_targets()`]) both go over it, so a block can't be exported without protecting its targets.

use self::PointsAt::{OneIndex, Targets};

/// A block of `index_aliases`. While it is enabled, the index that it points at keeps its KV key.
pub struct Block {
    pub name: &'static str,
    pub points_at: PointsAt,
    /// Whether the search proxy gets the block.
    pub exported: bool,
    /// The attribute of the item that replaces the block where it is present. It is an index id.
    pub legacy: Option<&'static str>,
}

pub enum PointsAt {
    /// `index_id`.
    OneIndex,
    /// `targets`, a list of index ids with weights.
    Targets,
}

pub const BLOCKS: [Block; 3] = [
    Block { name: "doc_writes", points_at: Targets, exported: false, legacy: None },
    Block { name: "doc_reads", points_at: Targets, exported: true, legacy: Some("read_alias") },
    Block { name: "analytics", points_at: OneIndex, exported: true, legacy: None },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::index_aliases::IndexAliases;
    use crate::item::{AliasTarget, CLAIM_PATHS, Map, alias_targets};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn item(block: &Block, enabled: bool) -> Value {
        let mut fields = match block.points_at {
            OneIndex => json!({"index_id": {"S": "a-v2"}}),
            Targets => json!({"targets": {"L": [
                {"M": {"index_id": {"S": "a-v2"}, "weight": {"N": "0"}}},
            ]}}),
        };
        fields["enabled"] = json!({"BOOL": enabled});
        json!({"index_aliases": {"M": {block.name: {"M": fields}}}})
    }

    /// Returns the alias targets in what a pass over the table reads of an item.
    fn targets(mut item: Value) -> Vec<AliasTarget> {
        let claimed =
            |name: &String| CLAIM_PATHS.iter().any(|path| path.split('.').next() == Some(name));
        item.as_object_mut().unwrap().retain(|name, _| claimed(name));
        alias_targets("a", &Map::from(item))
    }

    #[test]
    fn every_block_protects_its_targets_while_it_is_enabled() {
        for block in &BLOCKS {
            let protected = [AliasTarget::IndexId("a-v2".to_owned())];
            assert_eq!(targets(item(block, true)), protected, "{}", block.name);
            assert_eq!(targets(item(block, false)), [], "{}", block.name);
            let Some(legacy) = block.legacy else { continue };
            let mut item = item(block, true);
            item[legacy] = json!({"S": "a-v1"});
            let protected = [AliasTarget::IndexId("a-v1".to_owned())];
            assert_eq!(
                targets(item),
                protected,
                "CLAIM_PATHS of alias_targets.rs has to name {legacy}, which replaces {}",
                block.name
            );
        }
    }

    #[test]
    fn the_schema_and_the_page_for_readers_name_every_exported_block() {
        let schema: Value =
            serde_json::from_str(include_str!("../../schema/settings.json")).unwrap();
        let described = schema["properties"]["index_aliases"]["properties"].as_object().unwrap();
        let described: BTreeSet<&str> = described.keys().map(String::as_str).collect();
        let exported: BTreeSet<&str> =
            BLOCKS.iter().filter(|block| block.exported).map(|block| block.name).collect();
        assert_eq!(described, exported, "schema/settings.json");
        let page = include_str!("../../docs/kv.md");
        for name in exported {
            assert!(page.contains(&format!("`{name}`")), "docs/kv.md does not name {name}");
        }
    }

    #[test]
    fn a_block_is_exported_with_its_targets_or_not_at_all() {
        for block in &BLOCKS {
            for enabled in [true, false] {
                let aliases = IndexAliases::decode(&item(block, enabled).into()).unwrap();
                let json = aliases.to_json().map(|json| json.get().to_owned());
                let shown = json.as_ref().is_some_and(|json| json.contains("a-v2"));
                assert_eq!(
                    (shown, json.is_some()),
                    (block.exported, block.exported),
                    "{}",
                    block.name
                );
            }
        }
    }
}
