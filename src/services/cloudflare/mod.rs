//! Cloudflare KV: the client, what goes over the wire, the token, and the dry run.

pub mod client;
pub mod dry_run;
mod error_codes;
pub mod token;
pub mod wire;
