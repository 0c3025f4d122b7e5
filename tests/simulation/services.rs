//! The services that the exporter calls, in memory.

mod calls;
mod kv;
pub mod ports;
