//! The accounts' API keys: asking for them, and what follows where there is none.

mod asking;
mod exportable;
mod resolve;
mod reuse;

pub use asking::{
    AskingForApiKeys, BATCH_TIME_FOR_API_KEYS, LATE_TIME_FOR_API_KEYS, Patience, Reuse,
    TIME_FOR_ONE_TRY,
};
pub use exportable::{ApiKeyOwner, Exportable};
pub use resolve::{ApiKeyUnavailable, ApiKeys, NotExportable, WhyNoApiKey};
