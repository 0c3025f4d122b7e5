//! A definition in Amazon States Language, as far as the template uses it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::choice::Choice;
use super::path::{Path, Template, reference};
use super::retry::{Retrier, errors};
use super::task::Resource;

/// A state machine. What the stand-in does not run is refused when it is read.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Definition {
    #[serde(rename = "Comment")]
    _comment: String,
    pub(super) start_at: String,
    pub(super) timeout_seconds: u32,
    pub(super) states: BTreeMap<String, State>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "Type")]
pub(super) enum State {
    Task(Task),
    Choice(Choices),
    Pass(Pass),
    Succeed(Succeed),
    Fail(Fail),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Task {
    #[serde(default, rename = "Comment")]
    _comment: String,
    pub resource: Resource,
    pub parameters: Template,
    pub timeout_seconds: u32,
    pub result_selector: Option<Template>,
    #[serde(default, deserialize_with = "reference")]
    pub result_path: Option<Path>,
    #[serde(default)]
    pub retry: Vec<Retrier>,
    #[serde(default)]
    pub catch: Vec<Catcher>,
    pub next: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Catcher {
    #[serde(deserialize_with = "errors")]
    pub error_equals: Vec<String>,
    #[serde(default, deserialize_with = "reference")]
    pub result_path: Option<Path>,
    pub next: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Choices {
    #[serde(default, rename = "Comment")]
    _comment: String,
    pub choices: Vec<Choice>,
    pub default: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Pass {
    pub input_path: Path,
    #[serde(default, deserialize_with = "reference")]
    pub result_path: Option<Path>,
    pub next: Option<String>,
    #[serde(default)]
    pub end: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Succeed {}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Fail {
    pub error_path: Path,
    pub cause_path: Path,
}

impl State {
    /// The first word of its events in the history.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Task(_) => "Task",
            Self::Choice(_) => "Choice",
            Self::Pass(_) => "Pass",
            Self::Succeed(_) => "Succeed",
            Self::Fail(_) => "Fail",
        }
    }
}

impl Definition {
    /// Reads a definition, and puts in what the template's `DefinitionSubstitutions` name.
    pub fn parse(text: &str, substitutions: &[(&str, &str)]) -> Result<Self, String> {
        let mut text = text.to_owned();
        for (name, value) in substitutions {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        if let Some((_, rest)) = text.split_once("${") {
            let name = rest.split('}').next().unwrap_or_default();
            return Err(format!("nothing is given for ${{{name}}}"));
        }
        let definition: Self = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        definition.check()?;
        Ok(definition)
    }

    fn check(&self) -> Result<(), String> {
        let mut named = vec![&self.start_at];
        for (name, state) in &self.states {
            match state {
                State::Task(task) => {
                    named.push(&task.next);
                    named.extend(task.catch.iter().map(|catcher| &catcher.next));
                }
                State::Choice(choices) => {
                    named.push(&choices.default);
                    named.extend(choices.choices.iter().map(|choice| &choice.next));
                }
                State::Pass(pass) if pass.next.is_some() == pass.end => {
                    return Err(format!("{name}: either Next or End"));
                }
                State::Pass(pass) => named.extend(&pass.next),
                State::Succeed(_) | State::Fail(_) => {}
            }
        }
        let missing = named.into_iter().find(|name| !self.states.contains_key(*name));
        missing.map_or(Ok(()), |name| Err(format!("there is no state {name}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step_functions::RECONCILE;

    const SUBSTITUTIONS: [(&str, &str); 2] = [("Partition", "aws"), ("FunctionArn", "f")];

    #[test]
    fn the_definition_of_the_template_is_taken() {
        Definition::parse(RECONCILE, &SUBSTITUTIONS).unwrap();
    }

    #[test]
    fn a_substitution_that_is_missing_is_named() {
        let error = Definition::parse(RECONCILE, &SUBSTITUTIONS[..1]).unwrap_err();
        assert_eq!(error, "nothing is given for ${FunctionArn}");
    }

    #[test]
    fn whatever_the_stand_in_does_not_run_is_refused() {
        for (known, unknown) in [
            (r#""Type": "Pass""#, r#""Type": "Wait""#),
            (r#""Next": "IsThereMore""#, r#""Next": "Nowhere""#),
            (r#""StartAt": "#, r#""QueryLanguage": "JSONata", "StartAt": "#),
            (r#""BackoffRate": 2"#, r#""BackoffRate": 2, "JitterStrategy": "FULL""#),
            (r#""End": true"#, r#""OutputPath": "$", "End": true"#),
            (r#""IsPresent": true"#, r#""IsString": true"#),
            (r#""$.run.report.continue", "IsPresent": true"#, r#""$.run.report.continue""#),
            ("$.running.Executions[0].", "$.running.Executions[*]."),
            ("$.running.Executions[0].", "$.running..Executions."),
            (r#""$.Payload""#, r#""States.Array($.Payload)""#),
            (r#""ResultPath": "$.run""#, r#""ResultPath": "$.run[0]""#),
            (r#""ResultPath": "$.run""#, r#""ResultPath": "$$.run""#),
            ("aws-sdk:sfn:listExecutions", "aws-sdk:sfn:listStateMachines"),
            (r#""States.Timeout""#, r#""States.TaskFailed""#),
            (r#""Type": "Succeed""#, r#""Type": "Succeed", "Comment": "unknown here""#),
        ] {
            assert!(RECONCILE.contains(known), "{known}");
            let changed = RECONCILE.replacen(known, unknown, 1);
            let read = Definition::parse(&changed, &SUBSTITUTIONS);
            assert!(read.is_err(), "{unknown}");
        }
    }
}
