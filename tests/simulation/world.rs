//! What is simulated, and what happens to it.

mod aliases;
pub mod changes;
mod environment;
mod events;
mod faults;
mod held;
mod invocation;
mod keys;
mod model;
mod past;
mod seen;
mod shape;
mod small;
mod start;
mod state;

// Of the exporter, the model uses the words for keys, and no decision.
pub use ecom_settings_exporter::index::IndexRef;
pub use ecom_settings_exporter::item::ItemKey;
pub use ecom_settings_exporter::kv::Namespace;

pub use self::aliases::{Aliases, WriteAlias};
pub use self::changes::{change, garbage, put, set};
pub use self::environment::{Environment, ItemPast, Reconcile, Record, Shard};
pub use self::events::{fire, mutated};
pub use self::faults::{Call, Failure, Fault, OTHER_FAULTS, READ_FAULTS, WRITE_FAULTS};
pub use self::held::{Change, Held, Named};
pub use self::invocation::{Deleted, Done, Invocation, Kind, Told, told};
pub use self::keys::{
    index, index_id, index_of, is_index_id, item_key, query_item_key, query_kv_key, query_of,
    sha256,
};
pub use self::model::{Content, Flaw, Image, Settings, query_value, version_of};
pub use self::past::{Past, Step};
pub use self::seen::SeenKeys;
pub use self::shape::{Crowd, DEFAULT_CELL, OTHER_CELL, Shape};
pub use self::small::{About, Small};
pub use self::start::prepare;
pub use self::state::{Counts, EPOCH, MAX_AGE, State};
