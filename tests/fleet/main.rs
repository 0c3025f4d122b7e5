//! Chains of reconcile runs over whole fleets, in simulated time. With `FLEET_TIMES=5` the fleets of
//! [`capacity`] and [`kills`] are five times as large: a million keys.

mod allocated;
mod capacity;
mod chain;
mod chains;
mod items;
mod kills;
#[path = "../support/memory.rs"]
#[expect(dead_code, reason = "a fleet has no faulty requests to KV")]
mod memory;
mod services;

#[global_allocator]
static ALLOCATOR: allocated::Counting = allocated::Counting;
