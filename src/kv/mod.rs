//! What KV holds and takes: entries with their metadata, limits, stored values. Pure.

pub mod digest;
pub mod entry;
pub mod limits;
pub mod metadata;
pub mod stored;

pub use digest::Digest;
pub use entry::{Entry, Pair};
pub use limits::{LimitExceeded, check_key};
pub use metadata::{Metadata, Provenance, Source, Stamp, rfc3339};
pub use stored::{StoredSettings, StoredValue};
