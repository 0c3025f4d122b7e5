//! The history of an execution.

use serde_json::{Value, json};

/// What happened in an execution, in its order, as `GetExecutionHistory` answers.
#[derive(Debug, Clone, Default)]
pub struct History(Vec<Value>);

impl History {
    /// Enters an event, with its details under their name.
    pub fn enter(&mut self, now: f64, kind: &str, details: &str, content: Value) {
        let id = self.0.len() + 1;
        self.0.push(json!({
            "id": id, "previousEventId": id - 1, "timestamp": now, "type": kind, details: content,
        }));
    }

    /// The events so far.
    pub fn events(&self) -> &[Value] {
        &self.0
    }
}
