//! Parts of log lines.

use serde_json::Value;

use crate::printed::Printed;

pub fn fields(line: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), line[*name].clone())).collect()
}

/// The invocation line's counts that are not zero.
pub fn story(printed: &Printed) -> Value {
    let line = printed.invocation().as_object().unwrap().iter();
    let counts = line.filter(|(name, value)| {
        value.as_u64().is_some_and(|count| count > 0) && !name.ends_with("_ms")
    });
    counts.map(|(name, value)| (name.clone(), value.clone())).collect()
}
