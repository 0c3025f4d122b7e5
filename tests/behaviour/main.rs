//! What the exporter does, shown with real parts: the clients over HTTP against the stand-ins in
//! `testbed`, an embedded DynamoDB with its stream, and the real binary behind a Lambda Runtime API.
//!
//! One binary, because linking takes longer than running. Each module holds the tests of one part
//! of what the function promises; [`helpers`] builds the handler, [`process`] runs the binary,
//! [`printed`] reads what that prints.

// The layout of the handler's future over the real clients is that deep.
#![recursion_limit = "256"]

mod api_key_faults;
mod aws;
mod batches;
mod budgets;
mod deadline;
mod documentation;
mod end_to_end;
mod helpers;
mod hostile_input;
mod kept_keys;
mod kv_faults;
mod observability;
mod payloads;
mod printed;
mod process;
mod query_config_removals;
mod re_exports;
mod reconcile;
mod runbook;
mod secrecy;
mod settling;
mod start;
mod table_faults;
mod token;
mod values;
