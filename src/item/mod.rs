//! What the table holds, as this function understands it. Pure: no clock, no network, no logs.
//!
//! [`keys`] says what an item is and which KV keys it asks for. [`Item`]s of the table and images
//! of the stream are both read as a [`Map`] of [`Attribute`]s; [`IndexSettings`] and
//! [`QueryConfig`] make the values of them that KV gets, and [`alias_targets`] reads which indexes
//! an item's aliases point at.

pub mod alias_targets;
pub mod attribute;
pub mod fields;
pub mod index_aliases;
pub mod index_settings;
pub mod keys;
pub mod query_config;
pub mod rejection;
pub mod stream_record;
pub mod table_item;

pub use attribute::{Attribute, Map};
pub use index_settings::IndexSettings;
pub use keys::{ItemKey, ItemKind, QueryConfigRef};
pub use query_config::QueryConfig;
pub use rejection::Rejection;
pub use stream_record::{Change, Content, StreamRecord};
pub use table_item::Item;
