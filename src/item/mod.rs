//! What the table holds, as this function understands it. Pure: no clock, no network, no logs.
//!
//! Items of the table and images of the stream are both read as a [`Map`] of [`Attribute`]s, of which
//! [`IndexSettings`] and [`QueryConfig`] make the values that KV gets.

pub mod alias_targets;
pub mod attribute;
pub mod fields;
pub mod index_aliases;
pub mod index_settings;
pub mod keys;
pub mod query_config;
pub mod stream_record;
pub mod table_item;

pub use attribute::{Attribute, Map};
pub use fields::Rejection;
pub use index_settings::IndexSettings;
pub use keys::{ItemKey, ItemKind, QueryConfigRef};
pub use query_config::QueryConfig;
pub use stream_record::{Change, Content, StreamRecord};
pub use table_item::Item;
