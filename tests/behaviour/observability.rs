//! What an operator sees: the lines and metrics that the real binary prints, and what the template makes
//! of them.

mod alarms;
mod invocations;
mod template;
