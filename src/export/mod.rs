//! The use cases: a stream batch, a re-export, a reconcile, an explain. They know the outside world by
//! [`ports`](crate::ports) alone.
//!
//! [`batch`], [`re_export`] and [`reconcile`] stand on [`settle`], `verified_write` and
//! [`query_config_removal`]; all of them on [`desired`], [`api_keys`], [`bulk`] and `table`, and
//! those on [`invocation`]. [`explain`] changes nothing, and uses the decisions of the others.

pub mod api_keys;
pub mod batch;
pub mod bulk;
pub mod desired;
pub mod differs;
pub mod error;
pub mod explain;
pub mod invocation;
pub mod other_environments;
pub mod query_config_removal;
mod rate_limiter;
pub mod re_export;
pub mod receipt;
pub mod reconcile;
mod retry;
pub mod settle;
mod table;
mod verified_write;

/// The most rounds in which a use case follows a table that changes.
pub const MAX_ROUNDS: usize = 5;

#[cfg(test)]
#[path = "../../tests/support/fakes.rs"]
mod fakes;

#[cfg(test)]
#[path = "../../tests/support/memory.rs"]
#[expect(dead_code, reason = "the simulation has more faults")]
mod memory;
