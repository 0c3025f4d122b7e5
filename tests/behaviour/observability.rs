//! What an operator sees: every line that the real binary prints, and its metrics.

mod alarms;
mod batches;
mod by_hand;
mod lines;
mod template;
