//! Reconcile: what it finds, what it mends, and what it leaves alone, through the real services.

mod accounts;
mod differences;
mod drift;
mod failures;
mod races;
mod reports;
