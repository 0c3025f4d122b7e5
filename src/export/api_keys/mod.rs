//! The accounts' API keys: asking for them, and what follows where there is none.

mod gather;
mod resolve;

pub use gather::{ApiKeyOwner, Gathering, Waiting};
pub use resolve::{ApiKeyUnavailable, ApiKeys, NotExportable};
