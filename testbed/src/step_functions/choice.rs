//! The rules of a choice.

use serde::Deserialize;
use serde_json::Value;

use super::path::Path;

/// A rule, and the state that follows if it holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Choice {
    pub rule: Rule,
    pub next: String,
}

/// What may hold for a state's input.
#[derive(Debug, Clone)]
pub enum Rule {
    And(Vec<Rule>),
    Not(Box<Rule>),
    IsPresent(Path, bool),
    StringEqualsPath(Path, Path),
}

impl Rule {
    /// Whether it holds. An error is a path that leads nowhere.
    pub fn holds(&self, input: &Value, context: &Value) -> Result<bool, Path> {
        let found = |path: &Path| {
            path.find(input, context).and_then(Value::as_str).ok_or_else(|| path.clone())
        };
        match self {
            Self::And(rules) => {
                for rule in rules {
                    if !rule.holds(input, context)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Not(rule) => rule.holds(input, context).map(|holds| !holds),
            Self::IsPresent(path, wanted) => Ok(path.find(input, context).is_some() == *wanted),
            Self::StringEqualsPath(one, other) => Ok(found(one)? == found(other)?),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Fields {
    variable: Option<Path>,
    is_present: Option<bool>,
    string_equals_path: Option<Path>,
    and: Option<Vec<Fields>>,
    not: Option<Box<Fields>>,
    next: Option<String>,
}

impl TryFrom<Fields> for Choice {
    type Error = String;

    fn try_from(mut fields: Fields) -> Result<Self, String> {
        let next = fields.next.take().ok_or("a choice without Next")?;
        Ok(Self { rule: fields.try_into()?, next })
    }
}

impl TryFrom<Fields> for Rule {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let Fields { variable, is_present, string_equals_path, and, not, next } = fields;
        match (variable, is_present, string_equals_path, and, not, next) {
            (Some(path), Some(wanted), None, None, None, None) => Ok(Self::IsPresent(path, wanted)),
            (Some(one), None, Some(other), None, None, None) => {
                Ok(Self::StringEqualsPath(one, other))
            }
            (None, None, None, Some(rules), None, None) => {
                let rules = rules.into_iter().map(Self::try_from);
                rules.collect::<Result<_, _>>().map(Self::And)
            }
            (None, None, None, None, Some(rule), None) => {
                Ok(Self::Not(Box::new(Self::try_from(*rule)?)))
            }
            _ => Err("a rule with other fields than the stand-in knows".to_owned()),
        }
    }
}
