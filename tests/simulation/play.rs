//! Who acts in a history: the table's writers, the consumers of its stream, the operators.

mod consumer;
mod driver;
mod operators;
mod sim;

pub use self::driver::run;
