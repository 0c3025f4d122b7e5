//! Where a command works: on the stack of an environment in AWS, or on the local one.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::local::Local;
use crate::report::{self, parsed};
use crate::words::Words;
use crate::{Failure, at, aws, failed, wrong_use};

/// Where `make local` serves Lambda's API.
const LOCAL: &str = "http://127.0.0.1:9001";

/// Looks up a variable of the environment that is not empty.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

pub enum Place {
    Local(Local),
    Aws(Stack),
}

pub struct Stack {
    pub name: String,
    /// What the names of its alarms and of its schedule begin with.
    pub prefix: String,
}

impl Place {
    pub fn of(words: &Words, variables: Variables<'_>) -> Result<Self, Failure> {
        let environment = variables("ENVIRONMENT");
        if words.is("LOCAL") || environment.as_deref() == Some("local") {
            let url = variables("AWS_ENDPOINT_URL_LAMBDA");
            return Ok(Self::Local(Local(url.unwrap_or_else(|| LOCAL.to_owned()))));
        }
        let environment = environment
            .ok_or_else(|| wrong_use("this needs ENVIRONMENT: export ENVIRONMENT=prod"))?;
        let prefix = format!("{environment}-ecom-settings-exporter");
        let name = variables("STACK").unwrap_or_else(|| prefix.clone());
        Ok(Self::Aws(Stack { name, prefix }))
    }

    /// Invokes the function once: a second request would run beside the first. Returns what it answers,
    /// which is JSON, or its error.
    pub fn invoke(&self, payload: &Value, qualifier: &str) -> Result<String, Failure> {
        let (answer, is_error) = match self {
            Self::Local(local) => local.invoke(payload)?,
            Self::Aws(stack) => aws::invoke(&stack.output("FunctionName")?, qualifier, payload)?,
        };
        if is_error { Err(failed(report::error(&parsed(&answer)))) } else { Ok(answer) }
    }

    /// The stack in AWS. The local one lacks what the command is about.
    pub fn in_aws(&self, lacking: &str) -> Result<&Stack, Failure> {
        match self {
            Self::Aws(stack) => Ok(stack),
            Self::Local(_) => Err(wrong_use(format_args!("the local stack has no {lacking}"))),
        }
    }
}

impl Stack {
    /// The outputs of the stack, with their names.
    pub fn outputs(&self) -> Result<BTreeMap<String, String>, Failure> {
        let query = "Stacks[0].Outputs[].[OutputKey,OutputValue]";
        let command = "cloudformation describe-stacks --stack-name";
        let outputs = aws::json(command, &[&self.name, "--query", query])?;
        let outputs: Vec<(String, String)> = serde_json::from_value(outputs)
            .map_err(at(format_args!("the outputs of the stack {}", self.name)))?;
        Ok(outputs.into_iter().collect())
    }

    pub fn output(&self, name: &str) -> Result<String, Failure> {
        let missing = || failed(format_args!("the stack {} has no output {name}", self.name));
        self.outputs()?.remove(name).ok_or_else(missing)
    }
}
