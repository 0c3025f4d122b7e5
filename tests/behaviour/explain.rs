//! Explain: what it says of an index or a key, what it reads for that, and that it changes nothing.

mod asking;
mod bounds;
mod query_configs;
mod secrecy;
mod trying;
mod verdicts;
