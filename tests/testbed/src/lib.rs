//! Stand-ins for every service that the settings exporter talks to, for tests and for local work.
//!
//! Each one serves real HTTP on the loopback interface, holds its state in memory, and stops when
//! its last handle is dropped.
//!
//! | module | what it stands in for |
//! | --- | --- |
//! | [`stack`] | all services at once, and the environment that points the function at them |
//! | [`table`] | the DynamoDB table, an embedded engine behind a layer with faults and a log |
//! | [`stream`] | the table's stream, its records shaped as Lambda delivers them |
//! | [`poller`] | the event source mapping that carries the stream to a function |
//! | [`lambda`] | Lambda: runs the real binary behind a Runtime API, and serves the Invoke API and the log |
//! | [`kv`] | Cloudflare KV's REST API |
//! | [`api_keys`] | the API keys service |
//! | [`secrets`] | AWS Secrets Manager |
//! | [`aws`] | the region and the account of AWS |
//! | [`proxy`] | what the proxy that reads KV knows: keys and digests |
//! | [`clock`] | the time of the stand-ins, which tests move |
//! | [`faults`] | scripted faults, the same for all of them |
//! | [`http`] | the server and the client below |
//!
//! A test that runs the real binary:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use testbed::faults::{Fault, Rule};
//! use testbed::poller::PollerOptions;
//! use testbed::stack::{SETTINGS, Stack, StackOptions};
//!
//! let stack = Stack::start(StackOptions::default()).await?;
//! stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::status(503)).times(2));
//! let function = stack.function("target/debug/bootstrap", [("HTTP_RETRY_BASE_MS", "1")]).await?;
//! let poller = stack.poll(&function, PollerOptions::default());
//! stack.table.put(&serde_json::json!({
//!     "pk": "acme", "sk": "INDEX#products", "index_endpoint": "https://products.example.com",
//! }));
//! poller.caught_up().await;
//! assert!(stack.kv.get(SETTINGS, "acme-products").is_some());
//! # Ok(())
//! # }
//! ```
//!
//! A test that drives the handler in its own process gives [`poller::Poller::start`] a closure
//! instead of a function.

pub mod api_keys;
pub mod aws;
pub mod clock;
pub mod faults;
pub mod http;
pub mod kv;
pub mod lambda;
pub mod poller;
pub mod proxy;
mod request_log;
pub mod secrets;
pub mod stack;
pub mod stream;
mod sync;
pub mod table;
