//! Carries index settings from DynamoDB to Cloudflare KV, where the search proxy reads them.
//!
//! Imports run one way: `docs/architecture.md` draws the layers, and follows a record through them. What
//! holds throughout:
//!
//! - A key is deleted only in [`export::remove`]: the table is read before, and once more after it.
//! - No value is written without an API key: [`item::IndexSettings::value`] takes one, and there is
//!   no other way to a value.
//! - Every call to the outside is bounded by the invocation's deadline:
//!   [`export::invocation::Invocation::call`].
//! - Values and API keys can't be printed: the `Debug` of their types shows sizes, where there is one.

#![warn(clippy::dbg_macro, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

pub mod config;
pub mod export;
pub mod index;
pub mod item;
pub mod json;
pub mod kv;
pub mod lambda;
pub mod ports;
pub mod services;
pub mod telemetry;
pub mod text;

/// The commit that this was built from, as `make build` names it.
pub const COMMIT: &str = match option_env!("EXPORTER_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

// All tests share the services in memory, which name this crate as the integration tests do.
#[cfg(test)]
extern crate self as ecom_settings_exporter;
