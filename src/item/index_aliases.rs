//! `index_aliases` as the search proxy reads it.
//!
//! Blocks that are not exported, and unknown ones, are not looked at: what is wrong in them must not
//! hold up a change that live traffic waits for. The same goes for a block whose place a legacy
//! attribute takes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::alias_blocks::{BLOCKS, Block, PointsAt};
use super::{Map, Rejection};
use crate::json::Json;

/// How far the weights of enabled targets may sum up from 1.0 without a warning: 0.001, and what
/// adding decimal fractions up in binary may be off.
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

    /// What is exported all the same but is worth a look.
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
                    index_id: fields.read_string("index_id")?.map(str::to_owned),
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
        let index_id = target.read_string("index_id")?;
        let index_id = index_id.ok_or_else(|| Rejection::new("index_id", "is required"))?;
        let weight = target.read_number("weight")?.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&weight) {
            return Err(Rejection::new("weight", "must be between 0 and 1"));
        }
        Ok(Self {
            enabled: target.read_bool("enabled")?,
            index_id: index_id.to_owned(),
            internal: flag(target, "internal")?,
            // A negative zero would give other bytes for the same weight.
            weight: weight.abs(),
        })
    }
}

/// Reads a boolean; an absent one is false.
fn flag(fields: &Map, name: &str) -> Result<bool, Rejection> {
    Ok(fields.read_bool(name)?.unwrap_or(false))
}
