//! Reconcile: what it finds, what it repairs, and what it leaves alone, with the real services.

mod accounts;
mod differences;
mod drift;
mod failures;
mod races;
mod reports;
