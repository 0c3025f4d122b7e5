//! Drift of every class that a reconcile tells apart, planted in full namespaces, and what a report
//! has to say of it.
//!
//! Of a hundred indexes, and of a hundred query configs, one has each part below; two share a shop
//! id. All others are right.

mod expected;
mod parts;
mod plant;

pub use expected::{Changes, Counts, Stage};
pub use parts::Drift;
pub use plant::hold_all_stale;
