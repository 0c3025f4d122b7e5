//! The one list of alias blocks. What is exported ([`super::index_aliases`]) and what protects a KV key
//! ([`super::alias_targets`]) both go over it, so no block can be exported without protecting.

use self::PointsAt::{OneIndex, Targets};

/// A block of `index_aliases`. While it is enabled, what it points at keeps its KV key.
pub struct Block {
    pub name: &'static str,
    pub points_at: PointsAt,
    /// Whether the search proxy gets the block.
    pub exported: bool,
    /// The item's attribute, an index id, that takes the block's place where it is present.
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
