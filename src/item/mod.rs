//! What the table holds, as the exporter understands it. Pure: no clock, no network, no logs.
//!
//! Items of the table and images of the stream are both an [`Item`], decoded into a [`Map`] of
//! [`Attribute`]s. From that follow the values that KV gets ([`IndexSettings`], [`query_config_value`]),
//! the keys that an item asks for ([`claimed_keys`]), and what its aliases protect ([`alias_targets`]).

mod alias_blocks;
pub mod alias_targets;
pub mod attribute;
pub mod fields;
pub mod index_aliases;
pub mod index_settings;
pub mod keys;
pub mod query_config;
pub mod stream_record;
pub mod table_item;

pub use alias_targets::{AliasTarget, CLAIM_PATHS, alias_targets};
pub use attribute::{Attribute, Map};
pub use fields::Rejection;
pub use index_settings::IndexSettings;
pub use keys::{ItemKey, claimed_keys};
pub use query_config::query_config_value;
pub use stream_record::{Change, Content, RecordedChange, StreamRecord};
pub use table_item::Item;
