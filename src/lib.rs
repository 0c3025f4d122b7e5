//! Carries index settings from DynamoDB to Cloudflare KV, where the search proxy reads them.
//!
//! ```text
//! payload ─ stream ─ plan ─ export ──┐                    ┌ services/cloudflare_kv
//!         ├ re_export ───────────────┼ bulk, api_keys ─── ports ─ services/api_keys
//!         └ reconcile ───────────────┘ settle             └ services/settings_table
//! ```
//!
//! Decode → gather → plan → apply → answer. [`record`], [`stream`], [`plan`], [`payload`],
//! [`entry`] and [`settle::decide`] are pure; the use cases know the outside world by its
//! [`ports`] alone; [`services`] implement those and know no use case. Imports run one way:
//! services → ports → record, use cases → ports, plan, record; `main` alone names the real
//! services.
//!
//! What holds throughout:
//!
//! - A key is deleted only by [`settle`] or, for query configs, [`query_configs::remove`]: after
//!   the table was read, and with another look behind it.
//! - No value without an API key is ever encoded: [`record::IndexSettings`] has no other way out.
//! - Every call to the outside is bounded by the invocation's deadline: [`run::Run::call`].
//! - Values and keys can't be printed: their types' `Debug` shows sizes.

pub mod api_keys;
pub mod bulk;
pub mod config;
pub mod cursor;
pub mod digest;
pub mod entry;
pub mod export;
pub mod handler;
pub mod limits;
pub mod payload;
pub mod plan;
pub mod ports;
pub mod query_configs;
pub mod re_export;
pub mod reconcile;
pub mod record;
pub mod retry;
pub mod run;
pub mod services;
pub mod settings_keys;
pub mod settle;
pub mod stream;
pub mod tally;
