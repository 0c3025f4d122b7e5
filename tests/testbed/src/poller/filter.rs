//! The filter of a mapping: patterns, of which a record has to match one.

use serde_json::Value;

#[derive(Debug, Clone)]
pub struct Filter(Vec<Value>);

impl Filter {
    /// Patterns, as `FilterCriteria` has them.
    ///
    /// # Errors
    ///
    /// For a pattern that is no object, or has an operator that is not known here.
    pub fn new(patterns: Vec<Value>) -> Result<Self, String> {
        patterns.iter().try_for_each(check)?;
        Ok(Self(patterns))
    }

    pub fn passes(&self, record: &Value) -> bool {
        self.0.iter().any(|pattern| matches(pattern, Some(record)))
    }
}

fn check(pattern: &Value) -> Result<(), String> {
    match pattern {
        Value::Object(fields) => fields.values().try_for_each(check),
        Value::Array(conditions) => conditions.iter().try_for_each(check_condition),
        other => Err(format!("{other} in a filter should be a list of conditions")),
    }
}

fn check_condition(condition: &Value) -> Result<(), String> {
    let Value::Object(operators) = condition else { return Ok(()) };
    for (operator, operand) in operators {
        let known = match operator.as_str() {
            "prefix" => operand.is_string(),
            "exists" => operand.is_boolean(),
            "anything-but" => !operand.is_object(),
            _ => false,
        };
        if !known {
            return Err(format!("the filter's {condition} is not known to this stand-in"));
        }
    }
    Ok(())
}

fn matches(pattern: &Value, value: Option<&Value>) -> bool {
    match pattern {
        Value::Object(fields) => fields
            .iter()
            .all(|(name, pattern)| matches(pattern, value.and_then(|value| value.get(name)))),
        Value::Array(conditions) => conditions.iter().any(|condition| holds(condition, value)),
        _ => false,
    }
}

fn holds(condition: &Value, value: Option<&Value>) -> bool {
    if let Some(exists) = condition.get("exists") {
        return *exists == value.is_some();
    }
    let Some(value) = value else { return false };
    if let Some(prefix) = condition.get("prefix").and_then(Value::as_str) {
        return value.as_str().is_some_and(|text| text.starts_with(prefix));
    }
    match condition.get("anything-but") {
        Some(Value::Array(excluded)) => !excluded.contains(value),
        Some(excluded) => excluded != value,
        None => condition == value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::poller::PollerOptions;

    fn record(name: &str, sk: &str) -> Value {
        let keys = json!({"sk": {"S": sk}});
        let mut record = json!({"eventName": name, "dynamodb": {"Keys": keys}});
        if name != "REMOVE" {
            record["dynamodb"]["NewImage"] = keys;
        }
        record
    }

    #[test]
    fn the_template_lets_through_what_the_function_may_export_or_remove() {
        let filter = PollerOptions::default().filter;
        for (name, sk, passes) in [
            ("INSERT", "INDEX#main", true),
            ("MODIFY", "INDEX#main#QUERY#shoes", true),
            ("MODIFY", "INDEX#DEFAULT_CONFIG", false),
            ("INSERT", "OTHER#main", false),
            ("REMOVE", "INDEX#main", true),
            ("REMOVE", "OTHER#main", false),
        ] {
            assert_eq!(filter.passes(&record(name, sk)), passes, "{name} {sk}");
        }
    }

    #[test]
    fn each_operator_has_its_meaning() {
        let passes = |condition: Value, record: Value| {
            Filter::new(vec![json!({"a": [condition]})]).unwrap().passes(&record)
        };
        for (condition, holds, does_not) in [
            (json!("x"), json!({"a": "x"}), json!({"a": "xy"})),
            (json!(1), json!({"a": 1}), json!({"a": "1"})),
            (json!({"prefix": "x"}), json!({"a": "xy"}), json!({})),
            (json!({"exists": true}), json!({"a": null}), json!({"b": 1})),
            (json!({"exists": false}), json!({"b": 1}), json!({"a": 1})),
            (json!({"anything-but": ["x", "y"]}), json!({"a": "z"}), json!({"a": "y"})),
            (json!({"anything-but": "x"}), json!({"a": "y"}), json!({})),
        ] {
            assert!(passes(condition.clone(), holds), "{condition}");
            assert!(!passes(condition.clone(), does_not), "{condition}");
        }
    }

    #[test]
    fn an_operator_that_is_not_known_is_refused() {
        for unknown in [
            json!({"a": [{"suffix": "x"}]}),
            json!({"a": [{"anything-but": {"prefix": "x"}}]}),
            json!({"a": "x"}),
        ] {
            assert!(Filter::new(vec![unknown.clone()]).is_err(), "{unknown}");
        }
    }
}
