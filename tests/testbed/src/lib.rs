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
