//! The accounts' API keys: asking for them, and what follows where there is none.

mod gather;
mod resolve;
mod reuse;

pub use gather::{
    ApiKeyOwner, Gathering, MAX_IN_FLIGHT_PER_CELL, TIME_FOR_API_KEYS, Waiting, fetch_api_key,
};
pub use resolve::{ApiKeyUnavailable, ApiKeys, NotExportable};
