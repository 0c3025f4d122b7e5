//! The operator's program and the Makefile's targets, with an `aws` that answers by a script.

mod desk;
mod history;
mod invoking;
mod reconcile;
mod runbook;
mod status;
mod wrong_use;
