//! Chains of reconcile runs over a whole fleet, in simulated time.

mod cells;
mod chains;
mod limits;
mod model;
mod small;
