//! The use cases: a stream batch, a re-export, a reconcile, an explain. They see the outside world only through
//! [`ports`](crate::ports).
//!
//! Four modules carry them: [`judge`] gives the verdict on a key, [`write`](mod@write) writes items,
//! [`remove`] removes keys, and [`bulk`] makes KV's requests.

pub mod api_keys;
pub mod batch;
pub mod bulk;
pub mod error;
pub mod explain;
pub mod exportable;
pub mod invocation;
pub mod judge;
pub mod re_export;
pub mod reconcile;
pub mod remove;
mod retry;
pub mod table;
pub mod write;

#[cfg(test)]
#[path = "../../tests/support/fakes.rs"]
pub(crate) mod fakes;

#[cfg(test)]
#[path = "../../tests/support/memory.rs"]
mod memory;
