//! Scripted faults: what a stand-in does to the requests that a rule picks, instead of, before or
//! after its work.
//!
//! Every HTTP stand-in has one queue of rules. For each request the first rule that picks it and
//! is not used up decides; without one the request is served. Rules count the requests they pick,
//! so a script reads in the order in which things go wrong:
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
