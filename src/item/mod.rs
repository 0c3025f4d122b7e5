//! What the table holds, as the exporter understands it. Pure: no clock, no network, no logs.
//!
//! Items of the table and images of the stream are both an [`Item`], decoded into a [`Map`] of
//! [`Attribute`]s. From that follow the values that KV gets ([`IndexSettings`], [`query_config_value`]),
//! the keys that an item asks for ([`claimed_keys`]), and what its aliases protect ([`alias_targets()`]).

mod alias_blocks;
pub mod alias_targets;
mod attribute;
mod index_aliases;
mod index_settings;
pub mod keys;
mod map;
mod query_config;
mod rejection;
pub mod stream_record;
mod table_item;

pub use alias_targets::{AliasTarget, CLAIM_PATHS, alias_targets};
pub use attribute::Attribute;
pub use index_settings::IndexSettings;
pub use keys::{ItemKey, claimed_keys};
pub use map::Map;
pub use query_config::query_config_value;
pub use rejection::Rejection;
pub use stream_record::{Change, RecordedChange, StreamRecord};
pub use table_item::Item;
