//! Chains of reconcile runs over a whole fleet, in simulated time. With `FLEET_TIMES=10` the fleets of
//! [`accounts`], [`floods`] and [`kills`] are ten times as large.

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
