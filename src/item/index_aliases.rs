//! `index_aliases` as the search proxy reads it.
//!
//! Blocks that are not exported, and unknown ones, are not looked at: what is wrong in them must not
//! hold up a change that live traffic waits for. The same goes for a block that a legacy attribute
//! overrides. NULL counts as absent throughout.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Rejection;
use super::alias_blocks::{ALIAS_BLOCKS, PointsAt};
use super::fields::Fields;
use crate::json::Json;

/// How far the weights of enabled targets may sum up from 1.0 without a warning: 0.001, and what
/// adding decimal fractions up in binary may be off.
const WEIGHT_SUM_TOLERANCE: f64 = 0.001 + 1e-9;

/// The exported blocks, by name.
#[derive(Debug, Serialize)]
pub struct IndexAliases(BTreeMap<&'static str, Block>);

/// A block as it is written: its fields ascend by name.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Block {
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
    pub fn decode(item: &Fields<'_>) -> Result<Self, Rejection> {
        let aliases = item.map("index_aliases")?;
        let mut blocks = BTreeMap::new();
        for block in ALIAS_BLOCKS.iter().filter(|block| block.exported) {
            let legacy = match block.overridden_by {
                Some(name) => item.non_empty_string(name)?,
                None => None,
            };
            let fields = match &aliases {
                Some(aliases) if legacy.is_none() => aliases.map(block.name)?,
                _ => None,
            };
            let decoded = fields.map(|fields| Block::decode(&block.points_at, &fields));
            let exported = legacy.map(Block::legacy).or(decoded.transpose()?);
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
            let Block::Targets { enabled: true, targets } = block else { return None };
            let enabled = targets.iter().filter(|target| target.enabled != Some(false));
            let sum: f64 = enabled.map(|target| target.weight).sum();
            ((sum - 1.0).abs() > WEIGHT_SUM_TOLERANCE).then(|| {
                format!("index_aliases.{name}.targets: the weights sum to {sum}, not to 1.0")
            })
        })
    }
}

impl Block {
    fn legacy(index_id: String) -> Self {
        let target = Target { enabled: None, index_id, internal: false, weight: 1.0 };
        Self::Targets { enabled: true, targets: vec![target] }
    }

    fn decode(points_at: &PointsAt, block: &Fields<'_>) -> Result<Self, Rejection> {
        let enabled = block.boolean("enabled")?.unwrap_or(false);
        match points_at {
            PointsAt::OneIndex => {
                let index_id = block.string("index_id")?.map(str::to_owned);
                let internal = block.boolean("internal")?.unwrap_or(false);
                Ok(Self::OneIndex { enabled, index_id, internal })
            }
            PointsAt::Targets => {
                let targets = block.list_of_maps("targets")?;
                let targets = targets.iter().map(Target::decode).collect::<Result<_, _>>()?;
                Ok(Self::Targets { enabled, targets })
            }
        }
    }
}

impl Target {
    fn decode(target: &Fields<'_>) -> Result<Self, Rejection> {
        let index_id = target.string("index_id")?;
        let weight = target.number("weight")?.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&weight) {
            return Err(target.reject("weight", "must be between 0 and 1"));
        }
        Ok(Self {
            enabled: target.boolean("enabled")?,
            index_id: index_id.ok_or_else(|| target.reject("index_id", "is required"))?.to_owned(),
            internal: target.boolean("internal")?.unwrap_or(false),
            // A negative zero would give other bytes for the same weight.
            weight: weight.abs(),
        })
    }
}
