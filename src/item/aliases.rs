//! The aliases of an item: what the search proxy gets of them, and which keys they protect from deletion.
//! Both go over the one list, [`BLOCKS`], so a block can't be exported without protecting its targets.
//!
//! - [`IndexAliases`], which is exported, is read strictly. Blocks that are not exported, and unknown ones, are
//!   not looked at: what is wrong in them must not hold up a change that live traffic waits for. The same goes
//!   for a block whose place a legacy attribute takes.
//! - [`alias_targets`] counts whatever can be read, and what is in doubt: a key that is wrongly kept is found by
//!   the next reconcile, a key that is wrongly deleted takes a shop down.

use std::collections::BTreeMap;

use serde::Serialize;

use self::PointsAt::{OneIndex, Targets};
use super::keys::{MAX_PK_BYTES, MAX_SK_BYTES};
use super::{Attribute, Map, Rejection};
use crate::json::Json;

/// A block of `index_aliases`. While it is enabled, the index that it points at keeps its KV key.
pub struct Block {
    pub name: &'static str,
    points_at: PointsAt,
    /// Whether the search proxy gets the block.
    pub exported: bool,
    /// The attribute of the item that replaces the block where it is present. It is an index id.
    legacy: Option<&'static str>,
}

enum PointsAt {
    /// `index_id`.
    OneIndex,
    /// `targets`, a list of index ids with weights.
    Targets,
}

pub const BLOCKS: &[Block] = &[
    Block { name: "doc_writes", points_at: Targets, exported: false, legacy: None },
    Block { name: "doc_reads", points_at: Targets, exported: true, legacy: Some("read_alias") },
    Block { name: "analytics", points_at: OneIndex, exported: true, legacy: None },
];

/// The attributes that say which KV keys an item asks for and what its aliases point at. A delete needs all of
/// them.
pub const CLAIM_PATHS: [&str; 4] =
    ["shop_id", "index_aliases", "read_alias", "add_docs_config.index_write_aliases"];

/// How far the sum of the weights of enabled targets may be from 1.0 without a warning: 0.001, and what
/// binary sums of decimal fractions may be off.
const WEIGHT_SUM_TOLERANCE: f64 = 0.001 + 1e-9;

/// The exported blocks, by name.
#[derive(Serialize)]
pub struct IndexAliases(BTreeMap<&'static str, Exported>);

/// A block as it is written: its fields ascend by name.
#[derive(Serialize)]
#[serde(untagged)]
enum Exported {
    OneIndex { enabled: bool, index_id: Option<String>, internal: bool },
    Targets { enabled: bool, targets: Vec<Target> },
}

#[derive(Serialize)]
struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    index_id: String,
    internal: bool,
    weight: f64,
}

impl IndexAliases {
    pub fn decode(item: &Map) -> Result<Self, Rejection> {
        let mut blocks = BTreeMap::new();
        for block in BLOCKS.iter().filter(|block| block.exported) {
            blocks.extend(block.export(item)?.map(|exported| (block.name, exported)));
        }
        Ok(Self(blocks))
    }

    /// Returns `None` if nothing is left to export.
    pub fn to_json(&self) -> Option<Json> {
        Json::of(self).ok().filter(|_| !self.0.is_empty())
    }

    /// Returns what is odd about the aliases, which are exported all the same.
    pub fn warning(&self) -> Option<String> {
        self.0.iter().find_map(|(name, block)| {
            let Exported::Targets { enabled: true, targets } = block else { return None };
            let enabled = targets.iter().filter(|target| target.enabled != Some(false));
            let sum: f64 = enabled.map(|target| target.weight).sum();
            ((sum - 1.0).abs() > WEIGHT_SUM_TOLERANCE).then(|| {
                format!("index_aliases.{name}.targets: the weights sum to {sum}, not to 1.0")
            })
        })
    }
}

impl Block {
    /// Returns the block as it is exported, if the item has it.
    fn export(&self, item: &Map) -> Result<Option<Exported>, Rejection> {
        if let Some(name) = self.legacy
            && let Some(index_id) = item.read_text(name)?
        {
            let target = Target { enabled: None, index_id, internal: false, weight: 1.0 };
            return Ok(Some(Exported::Targets { enabled: true, targets: vec![target] }));
        }
        let exported = item.read_map("index_aliases", |blocks| {
            blocks.read_map(self.name, |fields| match self.points_at {
                OneIndex => Ok(Exported::OneIndex {
                    enabled: flag(fields, "enabled")?,
                    index_id: fields.read_as("index_id", Attribute::as_string)?.map(str::to_owned),
                    internal: flag(fields, "internal")?,
                }),
                Targets => Ok(Exported::Targets {
                    enabled: flag(fields, "enabled")?,
                    targets: fields.read_maps("targets", Target::decode)?,
                }),
            })
        })?;
        Ok(exported.flatten())
    }

    /// Returns the index ids that the block points at, if it is active.
    fn protect<'a>(&self, item: &'a Map) -> Vec<&'a str> {
        if let Some(index_id) = self.legacy.and_then(|name| item.text(name)) {
            return vec![index_id];
        }
        let block = item.map("index_aliases").and_then(|blocks| blocks.map(self.name));
        // An `enabled` that can't be read is in doubt, and counts.
        let is_active =
            |block: &&Map| !matches!(block.get("enabled"), None | Some(Attribute::BOOL(false)));
        let Some(block) = block.filter(is_active) else { return vec![] };
        match self.points_at {
            OneIndex => block.text("index_id").into_iter().collect(),
            Targets => elements(block, "targets").iter().filter_map(Element::index_id).collect(),
        }
    }
}

impl Target {
    fn decode(target: &Map) -> Result<Self, Rejection> {
        let index_id = target.read_as("index_id", Attribute::as_string)?;
        let index_id = index_id.ok_or_else(|| Rejection::new("index_id", "is required"))?;
        let weight = target.read_as("weight", Attribute::as_f64)?.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&weight) {
            return Err(Rejection::new("weight", "must be between 0 and 1"));
        }
        Ok(Self {
            enabled: target.read_as("enabled", Attribute::as_bool)?,
            index_id: index_id.to_owned(),
            internal: flag(target, "internal")?,
            // A negative zero would give other bytes for the same weight.
            weight: weight.abs(),
        })
    }
}

/// Returns a boolean; an absent one is false.
fn flag(fields: &Map, name: &str) -> Result<bool, Rejection> {
    Ok(fields.read_as(name, Attribute::as_bool)?.unwrap_or(false))
}

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
    let index_ids = BLOCKS.iter().flat_map(|block| block.protect(item));
    let mut targets: Vec<_> = index_ids.map(|id| AliasTarget::IndexId(id.to_owned())).collect();
    if let Some(config) = item.map("add_docs_config") {
        let entries = elements(config, "index_write_aliases").into_iter();
        targets.extend(entries.flat_map(|entry| write_targets(account, entry)));
    }
    targets.retain(|target| target.name().len() <= MAX_NAME_BYTES);
    targets
}

/// An element of a list of targets.
enum Element<'a> {
    Fields(&'a Map),
    /// A bare text in the place of a map: it may be an index id.
    Text(&'a str),
}

impl<'a> Element<'a> {
    fn index_id(&self) -> Option<&'a str> {
        match self {
            Self::Fields(fields) => fields.text("index_id"),
            Self::Text(text) => Some(text),
        }
    }
}

/// Returns the elements of a list. A set of texts, and an element in the place of a list, are in doubt, and count.
fn elements<'a>(fields: &'a Map, name: &str) -> Vec<Element<'a>> {
    let element = |attribute: &'a Attribute| match attribute {
        Attribute::M(fields) => Some(Element::Fields(fields)),
        other => other.as_text().map(Element::Text),
    };
    match fields.get(name) {
        Some(Attribute::L(list)) => list.iter().filter_map(element).collect(),
        Some(Attribute::SS(texts)) => texts.iter().map(|text| Element::Text(text)).collect(),
        other => other.and_then(element).into_iter().collect(),
    }
}

/// Returns what an entry of `index_write_aliases` points at. A bare text may also be a shop id.
fn write_targets(account: &str, entry: Element<'_>) -> impl Iterator<Item = AliasTarget> {
    let (by_name, shop_id) = match &entry {
        Element::Fields(fields) => {
            let account = fields.text("system_account_id").unwrap_or(account);
            let by_name = fields.text("index_name").map(|name| format!("{account}-{name}"));
            (by_name, fields.text("shop_id"))
        }
        Element::Text(text) => (None, Some(*text)),
    };
    let index_ids = entry.index_id().map(str::to_owned).into_iter().chain(by_name);
    let shop_id = shop_id.map(|shop_id| AliasTarget::ShopId(shop_id.to_owned()));
    index_ids.map(AliasTarget::IndexId).chain(shop_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn decode(item: &Value) -> Result<IndexAliases, Rejection> {
        IndexAliases::decode(&Map::read(&item.to_string()))
    }

    fn exported(item: &Value) -> String {
        let json = decode(item).map(|aliases| aliases.to_json());
        json.unwrap().map_or(String::new(), |json| json.get().to_owned())
    }

    /// Returns the names in what a pass over the table reads of an item, the shop ids among them behind `shop:`.
    fn protected(mut item: Value) -> Vec<String> {
        let claimed =
            |name: &String| CLAIM_PATHS.iter().any(|path| path.split('.').next() == Some(name));
        item.as_object_mut().unwrap().retain(|name, _| claimed(name));
        let targets = alias_targets("acct1", &Map::from(item)).into_iter();
        targets
            .map(|target| match target {
                AliasTarget::IndexId(name) => name,
                AliasTarget::ShopId(name) => format!("shop:{name}"),
            })
            .collect()
    }

    fn block(name: &str, fields: Value) -> Value {
        json!({"index_aliases": {"M": {name: {"M": fields}}}})
    }

    fn doc_reads(enabled: bool, targets: &[Value]) -> Value {
        block("doc_reads", json!({"enabled": {"BOOL": enabled}, "targets": {"L": targets}}))
    }

    /// A target named `a`, with one more field.
    fn target(field: &str, value: Value) -> Value {
        json!({"M": {"index_id": {"S": "a"}, field: value}})
    }

    fn weighted(weight: &str) -> Value {
        target("weight", json!({"N": weight}))
    }

    #[test]
    fn every_block_is_exported_or_not_and_protects_its_targets_while_it_is_enabled() {
        for Block { name, points_at, exported: is_exported, legacy } in BLOCKS {
            for enabled in [true, false] {
                let mut fields = match points_at {
                    OneIndex => json!({"index_id": {"S": "a"}}),
                    Targets => json!({"targets": {"L": [weighted("0")]}}),
                };
                fields["enabled"] = json!({"BOOL": enabled});
                let mut item = block(name, fields);
                assert_eq!(exported(&item).contains("\"a\""), *is_exported, "{name}");
                assert_eq!(exported(&item).is_empty(), !is_exported, "{name}");
                let expected: &[&str] = if enabled { &["a"] } else { &[] };
                assert_eq!(protected(item.clone()), expected, "{name}");
                let Some(legacy) = legacy else { continue };
                item[legacy] = json!({"S": "v1"});
                let hint = "CLAIM_PATHS has to name what replaces a block";
                assert_eq!(protected(item), ["v1"], "{legacy}: {hint}");
            }
        }
    }

    #[test]
    fn blocks_are_exported_with_their_defaults_and_nothing_unknown() {
        let rows = [
            ("no aliases", json!({"index_aliases": {"NULL": true}}), ""),
            ("no blocks", json!({"index_aliases": {"M": {"doc_reads": {"NULL": true}}}}), ""),
            ("an empty read_alias", json!({"read_alias": {"S": ""}}), ""),
            (
                "absent fields of analytics",
                block("analytics", json!({})),
                r#"{"analytics":{"enabled":false,"index_id":null,"internal":false}}"#,
            ),
            (
                "absent fields of doc_reads",
                block("doc_reads", json!({})),
                r#"{"doc_reads":{"enabled":false,"targets":[]}}"#,
            ),
            (
                "a disabled alias keeps its targets",
                doc_reads(false, &[target("internal", json!({"BOOL": true}))]),
                r#"{"doc_reads":{"enabled":false,"targets":[{"index_id":"a","internal":true,"weight":1.0}]}}"#,
            ),
            (
                "a target's own enabled, and a weight with a sign",
                doc_reads(true, &[target("enabled", json!({"BOOL": false})), weighted("-0.0")]),
                r#"{"doc_reads":{"enabled":true,"targets":[{"enabled":false,"index_id":"a","internal":false,"weight":1.0},{"index_id":"a","internal":false,"weight":0.0}]}}"#,
            ),
            (
                "unknown blocks and fields",
                json!({"index_aliases": {"M": {"doc_writes": {"S": "broken"}, "shadow": {"M": {}},
                    "analytics": {"M": {"index_id": {"S": ""}, "sampling": {"N": "1"}}}}}}),
                r#"{"analytics":{"enabled":false,"index_id":"","internal":false}}"#,
            ),
            (
                "read_alias in the place of a broken doc_reads",
                json!({"read_alias": {"S": "v2"}, "index_aliases": {"M": {"doc_reads": {"S": "x"}}}}),
                r#"{"doc_reads":{"enabled":true,"targets":[{"index_id":"v2","internal":false,"weight":1.0}]}}"#,
            ),
        ];
        for (name, item, expected) in rows {
            assert_eq!(exported(&item), expected, "{name}");
        }
    }

    #[test]
    fn what_counts_as_an_active_alias() {
        let blocks_and = |read_alias| {
            let block = |name: &str| json!({"M": {"enabled": {"BOOL": true}, "targets": {"L": [{"S": name}]}}});
            let blocks = json!({"doc_reads": block("r"), "doc_writes": block("w")});
            json!({"read_alias": read_alias, "index_aliases": {"M": blocks}})
        };
        let write_aliases = |list| json!({"add_docs_config": {"M": {"index_write_aliases": list}}});
        let write_alias = |entry| write_aliases(json!({"L": [entry]}));
        let targets =
            |list| block("doc_reads", json!({"enabled": {"BOOL": true}, "targets": list}));
        let (set, text) = (json!({"SS": ["a", "b"]}), json!({"S": "a"}));
        let doubtful = json!({"enabled": {"S": "false"}, "index_id": {"S": "n"}});
        let off = target("enabled", json!({"BOOL": false}));
        let by_shop_id = json!({"shop_id": {"S": "s"}, "index_id": {"N": "1"}});
        let by_account = json!({"index_name": {"S": "other"}, "system_account_id": {"S": "acct9"}});
        let longest = "n".repeat(3_073);
        let rows: [(&str, Value, &[&str]); 22] = [
            ("nothing", json!({}), &[]),
            ("no enabled", block("analytics", json!({"index_id": {"S": "n"}})), &[]),
            ("a doubtful enabled", block("analytics", doubtful), &["n"]),
            ("a target that is a text", doc_reads(true, &[json!({"S": "r"})]), &["r"]),
            (
                "a broken target and odd ones",
                doc_reads(true, &[json!({"N": "1"}), off, weighted("7")]),
                &["a", "a"],
            ),
            (
                "an unknown block",
                block("shadow", json!({"enabled": {"BOOL": true}, "index_id": {"S": "n"}})),
                &[],
            ),
            (
                "read_alias overrides doc_reads",
                blocks_and(json!({"S": "legacy"})),
                &["w", "legacy"],
            ),
            ("an empty read_alias", blocks_and(json!({"S": ""})), &["w", "r"]),
            ("a broken read_alias", blocks_and(json!({"N": "1"})), &["w", "r"]),
            ("by index id", write_alias(json!({"M": {"index_id": {"S": "a-1"}}})), &["a-1"]),
            ("by shop id", write_alias(json!({"M": by_shop_id})), &["shop:s"]),
            ("by name", write_alias(json!({"M": {"index_name": {"S": "own"}}})), &["acct1-own"]),
            ("by account and name", write_alias(json!({"M": by_account})), &["acct9-other"]),
            ("by a text", write_alias(json!({"S": "bare"})), &["bare", "shop:bare"]),
            ("by nothing", write_alias(json!({"N": "7"})), &[]),
            ("a set of targets", targets(set.clone()), &["a", "b"]),
            ("one target", targets(weighted("1")), &["a"]),
            ("a text as targets", targets(text.clone()), &["a"]),
            ("by a set", write_aliases(set), &["a", "shop:a", "b", "shop:b"]),
            ("by one entry", write_aliases(weighted("1")), &["a"]),
            ("by a text alone", write_aliases(text), &["a", "shop:a"]),
            ("the longest name", json!({"read_alias": {"S": longest}}), &[&longest]),
        ];
        for (name, item, expected) in rows {
            assert_eq!(protected(item), expected, "{name}");
        }
        assert!(protected(json!({"read_alias": {"S": format!("{longest}n")}})).is_empty());
    }

    #[test]
    fn weights_of_enabled_targets_that_do_not_sum_to_one_are_warned_about() {
        let rows: [(&str, bool, &[&str], bool); 9] = [
            ("too little", true, &["0.5", "0.4"], true),
            ("a little too much", true, &["0.5", "0.502"], true),
            ("a little too little", true, &["0.5", "0.4989"], true),
            ("the upper tolerance", true, &["0.5", "0.501"], false),
            ("the lower tolerance", true, &["0.5", "0.499"], false),
            ("a disabled block", false, &["0.5", "0.1"], false),
            ("no targets", true, &[], true),
            ("beside a disabled target", true, &["1", "off"], false),
            ("a disabled target alone", true, &["off"], true),
        ];
        for (name, enabled, weights, warned) in rows {
            let target = |weight: &&str| match *weight {
                "off" => target("enabled", json!({"BOOL": false})),
                weight => weighted(weight),
            };
            let targets: Vec<Value> = weights.iter().map(target).collect();
            let aliases = decode(&doc_reads(enabled, &targets)).unwrap();
            assert_eq!(aliases.warning().is_some(), warned, "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let path = |item: &Value| decode(item).map(|_| ()).unwrap_err().path;
        let rows = [
            (json!({"read_alias": {"N": "1"}}), "read_alias"),
            (json!({"index_aliases": {"S": "x"}}), "index_aliases"),
            (json!({"index_aliases": {"M": {"analytics": {"S": "x"}}}}), "index_aliases.analytics"),
            (
                block("analytics", json!({"enabled": {"S": "true"}})),
                "index_aliases.analytics.enabled",
            ),
            (block("doc_reads", json!({"targets": {"M": {}}})), "index_aliases.doc_reads.targets"),
            (doc_reads(true, &[json!({"S": "a"})]), "index_aliases.doc_reads.targets[0]"),
        ];
        for (item, expected) in rows {
            assert_eq!(path(&item), expected, "{item}");
        }
        let mut targets = vec![
            (json!({"M": {}}), "index_id"),
            (target("index_id", json!({"N": "1"})), "index_id"),
            (target("internal", json!({"N": "1"})), "internal"),
            (target("enabled", json!({"S": "yes"})), "enabled"),
        ];
        let weights = ["-0.0001", "1.0001", "7", "1E400", "abc"];
        targets.extend(weights.map(|weight| (weighted(weight), "weight")));
        for (target, field) in targets {
            let expected = format!("index_aliases.doc_reads.targets[0].{field}");
            assert_eq!(path(&doc_reads(true, &[target])), expected);
        }
    }
}
