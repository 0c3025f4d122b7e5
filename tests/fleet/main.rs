//! Chains of reconcile runs over a whole fleet, in simulated time. With `FLEET_TIMES=50` the fleets of
//! [`accounts`], [`floods`] and [`kills`] are fifty times as large, with a million keys to kill runs at.

mod accounts;
mod cells;
mod chains;
mod floods;
mod imports;
mod kills;
mod limits;
mod memory;
mod model;
mod small;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;
