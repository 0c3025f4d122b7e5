//! Batches of the stream: what is written, what is removed, and what becomes of each record.

mod batches;
mod held;
mod metadata;
mod parked;
mod query_configs;
mod receipts;
mod removals;
mod table;
mod values;
