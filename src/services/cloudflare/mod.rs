//! Cloudflare KV: the client, what goes over the wire, and the token.

pub mod client;
mod error_codes;
pub mod token;
pub mod wire;
