//! Reconcile: what it finds, what it repairs, and what it leaves alone, with the real services.

mod accounts;
mod brakes;
mod chains;
mod differences;
mod drift;
mod failures;
mod owners;
mod previews;
mod races;
mod reports;
mod requests;
