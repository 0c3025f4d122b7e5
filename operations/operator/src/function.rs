//! The function, in AWS or on the local stack.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::Value;

use crate::aws::Aws;
use crate::failure::Failure;
use crate::given::Given;
use crate::local::Local;

/// The environment's name that stands for the local stack.
const LOCAL: &str = "local";
/// What `make local-env` puts in the place of AWS: nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

pub enum Place {
    Local(Local),
    Aws(Stack),
}

/// The stack of an environment, asked through the AWS CLI.
pub struct Stack {
    pub aws: Aws,
    pub environment: String,
    pub name: String,
    /// Names that the environment gives, in the place of the stack's outputs.
    known: BTreeMap<&'static str, String>,
    on_this_machine: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// JSON.
    pub text: String,
    pub failed: bool,
}

pub struct Variables(BTreeMap<String, String>);

impl Variables {
    pub fn of(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(variables.filter_map(text).collect())
    }

    /// A variable that is there and not empty.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl Place {
    /// Where a command works: the local stack if it is asked for or the environment is called so.
    pub fn of(given: &Given, variables: &Variables) -> Result<Self, Failure> {
        let environment = variables.get("ENVIRONMENT");
        if given.switch("LOCAL")? || environment == Some(LOCAL) {
            return Ok(Self::Local(Local::at(variables.get("AWS_ENDPOINT_URL_LAMBDA"))));
        }
        let environment = environment
            .ok_or_else(|| Failure::usage("this needs ENVIRONMENT: export ENVIRONMENT=prod"))?;
        let endpoint = variables.get("AWS_ENDPOINT_URL");
        if endpoint == Some(NOWHERE) {
            return Err(Failure::usage(format!(
                "this shell asks the local stack, not {environment}: open another one"
            )));
        }
        let known = [("FunctionName", "FUNCTION"), ("StateMachineArn", "STATE_MACHINE")];
        let known = known.map(|(output, name)| Some((output, variables.get(name)?.to_owned())));
        let name = variables.get("STACK").map(str::to_owned);
        let lambda = variables.get("AWS_ENDPOINT_URL_LAMBDA").or(endpoint);
        Ok(Self::Aws(Stack {
            aws: Aws::new()?,
            name: name.unwrap_or_else(|| format!("{environment}-ecom-settings-exporter")),
            environment: environment.to_owned(),
            known: known.into_iter().flatten().collect(),
            on_this_machine: lambda.is_some_and(|url| {
                ["http://127.0.0.1:", "http://localhost:"].iter().any(|here| url.starts_with(here))
            }),
        }))
    }

    /// Whether stand-ins on this machine answer for Lambda.
    pub fn is_on_this_machine(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Aws(stack) => stack.on_this_machine,
        }
    }

    /// One invocation, and one try: a second request would run beside the first.
    pub fn invoke(&self, payload: &Value, qualifier: &str) -> Result<Answer, Failure> {
        match self {
            Self::Local(local) => local.invoke(payload),
            Self::Aws(stack) => stack.invoke(payload, qualifier),
        }
    }
}

impl Stack {
    pub fn output(&self, name: &str) -> Result<String, Failure> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let described = self.describe()?;
        self.output_in(&described, name)
            .ok_or_else(|| Failure::because(format!("the stack {} has no {name}", self.name)))
    }

    pub fn describe(&self) -> Result<Value, Failure> {
        let command = "cloudformation describe-stacks --stack-name";
        Ok(self.aws.call(command, &[&self.name])?["Stacks"][0].take())
    }

    /// The same where the stack's description is there.
    pub fn output_in(&self, stack: &Value, name: &str) -> Option<String> {
        let output = || {
            let mut outputs = stack["Outputs"].as_array()?.iter();
            outputs.find(|output| output["OutputKey"] == name)?["OutputValue"].as_str()
        };
        self.known.get(name).map(String::as_str).or_else(output).map(str::to_owned)
    }

    fn invoke(&self, payload: &Value, qualifier: &str) -> Result<Answer, Failure> {
        let function = self.output("FunctionName")?;
        eprintln!("asking {function}");
        let payload = self.aws.file("fileb", "payload.json", payload)?;
        let path = self.aws.path("answer.json");
        let answer = path.to_string_lossy();
        let given = [&*function, "--qualifier", qualifier, "--payload", &*payload, &*answer];
        let command = "lambda invoke --cli-read-timeout 0 --function-name";
        let answered = self.aws.call(command, &given)?;
        let text =
            std::fs::read_to_string(&path).map_err(|error| Failure::of(path.display(), error))?;
        Ok(Answer { text, failed: !answered["FunctionError"].is_null() })
    }
}
