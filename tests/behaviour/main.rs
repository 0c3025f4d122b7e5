//! What the exporter does, shown with real parts: the clients over HTTP against the stand-ins in
//! `testbed`, an embedded DynamoDB with its stream, and the real binary with a Lambda Runtime API.
//!
//! All tests are one binary, because linking takes longer than running. Each module tests one part
//! of what the function promises. [`helpers`] builds the handler, [`process`] runs the binary, and
//! [`printed`] reads what the binary prints.

// The type of the handler's future over the real clients is nested this deep.
#![recursion_limit = "256"]

mod api_key_faults;
mod aws;
mod batches;
mod budgets;
mod deadline;
mod documentation;
mod emergencies;
mod end_to_end;
mod explain;
mod held_removals;
mod helpers;
mod hostile_answers;
mod hostile_input;
mod kept_keys;
mod kv_faults;
mod late_records;
mod messages;
mod observability;
mod owners;
mod parked;
mod payloads;
mod poison;
mod printed;
mod process;
mod put_back;
mod query_config_removals;
mod re_exports;
mod receipts;
mod reconcile;
mod runbook;
mod schemas;
mod secrecy;
mod settling;
mod stale_absence;
mod start;
mod table_faults;
mod token;
mod twin_keys;
mod values;
