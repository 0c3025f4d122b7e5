//! Batches of the stream: what is written, what is removed, and what becomes of each record.

mod batches;
mod metadata;
mod parked;
mod receipts;
mod removals;
mod table;
