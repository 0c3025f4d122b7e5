//! What the exporter does, shown with real parts: the clients over HTTP against the stand-ins in
//! `testbed`, an embedded DynamoDB with its stream, and the real binary with a Lambda Runtime API.
//!
//! All tests are one binary, because linking takes longer than running. Each module tests one part
//! of what the function promises. [`helpers`] builds the handler, [`process`] runs the binary, and
//! [`printed`] reads what the binary prints.

// The type of the handler's future over the real clients is nested this deep.
#![recursion_limit = "256"]

mod documentation;
mod end_to_end;
mod explain;
mod helpers;
mod observability;
mod payloads;
mod printed;
mod process;
mod re_exports;
mod reconcile;
mod runbook;
mod schemas;
mod secrecy;
mod services;
mod start;
mod stream;
