//! What the table holds, as this function understands it. Pure: no clock, no network, no logs.
//!
//! [`keys`] says what an item is, [`image`] reads its attributes whether they come from the stream
//! or, as an [`item`], from the table; [`index_settings`] and [`query_config`] turn them into the bytes that KV
//! gets, [`alias_targets`] reads who points at whom.

pub mod alias_targets;
pub mod aliases;
pub mod attribute;
pub mod encoded;
pub mod image;
pub mod index_settings;
pub mod item;
pub mod json;
pub mod keys;
pub mod query_config;
pub mod rejection;
pub mod transcode;

pub use encoded::{Draft, Encoded};
pub use image::Image;
pub use index_settings::IndexSettings;
pub use item::Item;
pub use keys::{IndexRef, ItemKey, ItemKind, QueryConfigRef};
pub use query_config::QueryConfig;
pub use rejection::Rejection;
