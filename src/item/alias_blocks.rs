//! The one list of alias blocks. What is exported ([`super::index_aliases`]) and what protects a KV key
//! ([`super::alias_targets`]) both go over it, so no block can be exported without protecting.

/// A block of `index_aliases`. While it is enabled, what it points at keeps its KV key.
pub struct AliasBlock {
    pub name: &'static str,
    pub points_at: PointsAt,
    /// Whether the search proxy gets the block.
    pub exported: bool,
    /// The item's legacy attribute that takes the place of the block where it is present: an index id.
    pub overridden_by: Option<&'static str>,
}

pub enum PointsAt {
    /// `index_id`.
    OneIndex,
    /// `targets`, a list of index ids with weights.
    Targets,
}

pub const ALIAS_BLOCKS: [AliasBlock; 3] = [
    AliasBlock {
        name: "doc_writes",
        points_at: PointsAt::Targets,
        exported: false,
        overridden_by: None,
    },
    AliasBlock {
        name: "doc_reads",
        points_at: PointsAt::Targets,
        exported: true,
        overridden_by: Some("read_alias"),
    },
    AliasBlock {
        name: "analytics",
        points_at: PointsAt::OneIndex,
        exported: true,
        overridden_by: None,
    },
];
