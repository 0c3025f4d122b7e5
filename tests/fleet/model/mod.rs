//! A fleet of any size in memory: its table, its namespaces and their drift are worked out from
//! numbers where somebody asks for them, so that nothing of ten million keys is held. What changes is
//! held beside it.
//!
//! Time is tokio's paused clock. What a request takes and what the function's share of a CPU costs is
//! [`pace::Pace`]'s; Cloudflare's limit of requests is [`limit::Limit`]'s.

mod backend;
mod chain;
mod drift;
mod fleet;
mod held;
mod limit;
#[path = "../../support/memory.rs"]
#[expect(dead_code, reason = "a fleet's faults are those of its limit")]
mod memory;
mod pace;
mod stack;
pub mod world;

pub use self::chain::{Followed, INVOCATION, audit, follow, repair, run};
pub use self::drift::{Drift, Found, STALE, mixed};
pub use self::fleet::{Fleet, ItemId, Size, api_key};
pub use self::held::{ENVIRONMENT, Held, Namespaces};
pub use self::limit::{Limit, REQUESTS};
pub use self::memory::{Memory, config};
pub use self::pace::{Cpu, Pace, Work};
pub use self::stack::{Ports, process, process_with};
pub use self::world::{Gateway, World};
