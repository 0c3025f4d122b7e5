//! What is simulated, and what happens to it.

mod environment;
mod events;
mod faults;
mod held;
mod image;
mod invocation;
mod past;
mod shape;
mod start;
mod state;

pub use ecom_settings_exporter::export::judge::KvKey;
pub use ecom_settings_exporter::index::{IndexRef, ItemRef};
pub use ecom_settings_exporter::item::ItemKey;
pub use ecom_settings_exporter::kv::Namespace;

pub use self::environment::{Environment, ItemPast, Reconcile, Record, Shard, asks};
pub use self::events::{Event, fire, mutated};
pub use self::faults::{Call, Fault, OTHER_FAULTS, READ_FAULTS, WRITE_FAULTS};
pub use self::held::Held;
pub use self::image::Image;
pub use self::invocation::{Deleted, Done, Invocation, Kind};
pub use self::past::{Past, Step, When};
pub use self::shape::{Crowd, DEFAULT_CELL, OTHER_CELL, Shape};
pub use self::start::prepare;
pub use self::state::{Counts, EPOCH, MAX_AGE, State};
