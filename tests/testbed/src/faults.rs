//! Scripted faults: what a stand-in does instead of its work, before it or after it.
//!
//! Every HTTP stand-in has a queue of rules. The first rule that matches a request and is not used
//! up decides. Without such a rule, the request is served. Rules count the requests that match, so
//! a script reads in the order in which things go wrong:
//!
//! ```
//! # use testbed::faults::{Fault, Faults, Rule};
//! # let faults = Faults::default();
//! faults.add(Rule::on("PUT", "/bulk", Fault::status(503)).times(2));
//! faults.add(Rule::operation("Scan", Fault::throttled()).after(1));
//! ```

mod fault;
mod rule;
mod script;

pub use fault::{Fault, Hook, KeyPredicate};
pub use rule::Rule;
pub use script::Faults;
