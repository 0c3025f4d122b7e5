//! What is simulated, and what happens to it.

pub mod aliases;
pub mod changes;
pub mod environment;
pub mod events;
pub mod faults;
pub mod held;
pub mod invocation;
pub mod keys;
pub mod model;
pub mod past;
pub mod seen;
pub mod shape;
pub mod small;
mod small_events;
pub mod start;
pub mod state;
