//! The handler over the real clients, pointed at the stand-ins, and the items and records that it
//! is given.

mod checked;
mod clock;
mod held;
mod items;
mod logs;
mod payloads;
mod row;
mod rules;
mod samples;
mod world;

pub use checked::*;
pub use held::*;
pub use items::*;
pub use payloads::*;
pub use row::*;
pub use rules::*;
pub use samples::*;
pub use testbed::proxy::query_config_key;
pub use world::*;
