//! Plants drift of every class in full namespaces, and tells what a report must count.
//!
//! Of every hundred indexes, and of every hundred query configs, one has each kind of drift; two
//! indexes share a shop id. The rest are right.

mod expected;
mod parts;
mod plant;

pub use expected::{Changes, Counts, Stage};
pub use parts::Drift;
pub use plant::hold_all_stale;
