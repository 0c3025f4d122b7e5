//! A fleet of any size in memory: its table, its namespaces and their drift are worked out from
//! numbers where somebody asks for them, so that nothing of ten million keys is held. What changes is
//! held beside it.
//!
//! Time is tokio's paused clock. What a request takes and what the function's share of a CPU costs is
//! [`pace::Pace`]'s; Cloudflare's limit of requests is [`limit::Limit`]'s.

mod backend;
pub mod chain;
pub mod drift;
pub mod fleet;
pub mod held;
pub mod limit;
#[path = "../../support/memory.rs"]
#[expect(dead_code, reason = "a fleet's faults are those of its limit")]
pub mod memory;
pub mod pace;
pub mod stack;
pub mod world;
