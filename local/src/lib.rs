//! Stand-ins.

pub mod api_keys;
pub mod faults;
pub mod http;
pub mod kv;
pub mod lambda;
pub mod poller;
pub mod secrets;
pub mod stack;
pub mod stream;
pub mod table;

/// The region that everything here claims to be in.
pub const REGION: &str = "us-east-1";
