//! The Makefile's targets for AWS, with programs that answer by a script.

mod desk;
mod history;
mod reconcile;
mod release;
mod status;
mod targets;
