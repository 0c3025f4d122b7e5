//! The Makefile's targets for AWS, with programs that answer by a script.

mod desk;
mod history;
mod reconcile;
mod runbook;
mod status;
mod targets;
