//! Who acts in a history: the table's writers, the consumers of its stream, the operators.

mod consumer;
pub mod driver;
mod operators;
mod sim;
