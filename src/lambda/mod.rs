//! Lambda's side: payload → use case → answer.

pub mod answer;
pub mod handler;
pub mod payload;

pub use answer::Answer;
pub use handler::{Handled, Handler};
