//! The services: how they are called, and what follows when they fail.

mod api_keys;
mod aws;
mod deadline;
mod hostile_names;
mod kv;
mod requests;
mod token;
