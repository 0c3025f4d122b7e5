//! `index_aliases` as the search proxy reads it.
//!
//! Blocks that are not exported, and unknown ones, are not looked at: what is wrong in them must not
//! hold up a change that live traffic waits for. The same goes for a block whose place a legacy
//! attribute takes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::alias_blocks::{BLOCKS, Block, PointsAt};
use super::{Attribute, Map, Rejection};
use crate::json::Json;

/// How far the sum of the weights of enabled targets may be from 1.0 without a warning: 0.001, and what
/// binary sums of decimal fractions may be off.
const WEIGHT_SUM_TOLERANCE: f64 = 0.001 + 1e-9;

/// The exported blocks, by name.
#[derive(Debug, Serialize)]
pub struct IndexAliases(BTreeMap<&'static str, Exported>);

/// A block as it is written: its fields ascend by name.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Exported {
    OneIndex { enabled: bool, index_id: Option<String>, internal: bool },
    Targets { enabled: bool, targets: Vec<Target> },
}

#[derive(Debug, Serialize)]
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
            let exported = Exported::decode(block, item)?;
            blocks.extend(exported.map(|exported| (block.name, exported)));
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

impl Exported {
    fn decode(block: &Block, item: &Map) -> Result<Option<Self>, Rejection> {
        if let Some(name) = block.legacy
            && let Some(index_id) = item.read_text(name)?
        {
            let target = Target { enabled: None, index_id, internal: false, weight: 1.0 };
            return Ok(Some(Self::Targets { enabled: true, targets: vec![target] }));
        }
        let exported = item.read_map("index_aliases", |blocks| {
            blocks.read_map(block.name, |fields| match block.points_at {
                PointsAt::OneIndex => Ok(Self::OneIndex {
                    enabled: flag(fields, "enabled")?,
                    index_id: fields.read_as("index_id", Attribute::as_string)?.map(str::to_owned),
                    internal: flag(fields, "internal")?,
                }),
                PointsAt::Targets => Ok(Self::Targets {
                    enabled: flag(fields, "enabled")?,
                    targets: fields.read_maps("targets", Target::decode)?,
                }),
            })
        })?;
        Ok(exported.flatten())
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn decode(item: &Value) -> Result<IndexAliases, Rejection> {
        IndexAliases::decode(&Map::read(&item.to_string()))
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
                "absent fields of a target, and its own enabled",
                doc_reads(true, &[target("enabled", json!({"BOOL": false}))]),
                r#"{"doc_reads":{"enabled":true,"targets":[{"enabled":false,"index_id":"a","internal":false,"weight":1.0}]}}"#,
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
            let json = decode(&item).unwrap().to_json();
            assert_eq!(json.as_ref().map_or("", |json| json.get()), expected, "{name}");
        }
    }

    #[test]
    fn a_weight_is_written_as_a_double() {
        for (weight, written) in [("0", "0.0"), ("1", "1.0"), ("-0.0", "0.0"), ("0.25", "0.25")] {
            let json = decode(&doc_reads(true, &[weighted(weight)])).unwrap().to_json().unwrap();
            assert!(json.get().contains(&format!("\"weight\":{written}}}")), "{weight}");
        }
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
        let mut rows = vec![
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
        let fields = [
            (json!({"M": {}}), "index_aliases.doc_reads.targets[0].index_id"),
            (target("index_id", json!({"N": "1"})), "index_aliases.doc_reads.targets[0].index_id"),
            (target("internal", json!({"N": "1"})), "index_aliases.doc_reads.targets[0].internal"),
            (target("enabled", json!({"S": "yes"})), "index_aliases.doc_reads.targets[0].enabled"),
        ];
        rows.extend(fields.map(|(target, path)| (doc_reads(true, &[target]), path)));
        for weight in ["-0.0001", "1.0001", "7", "1E400", "abc"] {
            let path = "index_aliases.doc_reads.targets[0].weight";
            rows.push((doc_reads(true, &[weighted(weight)]), path));
        }
        for (item, path) in rows {
            assert_eq!(decode(&item).unwrap_err().path, path, "{item}");
        }
    }
}
