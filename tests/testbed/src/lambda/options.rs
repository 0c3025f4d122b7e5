//! What a function is started with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::versions::Version;
use crate::aws::{FUNCTION, REGION};

/// What the function is told. Nothing enforces it.
const MEMORY_MEGABYTES: &str = "128";

#[derive(Debug, Clone)]
pub struct FunctionOptions {
    /// The binary of the first version.
    pub binary: PathBuf,
    /// The environment that is the first version's own; Lambda's variables are added.
    pub env: BTreeMap<String, String>,
    /// How long an invocation may take.
    pub timeout: Duration,
    /// The port of the API; 0 for any.
    pub port: u16,
}

impl FunctionOptions {
    /// The binary with this environment and a minute.
    pub fn new(binary: impl Into<PathBuf>, env: BTreeMap<String, String>) -> Self {
        Self { binary: binary.into(), env, timeout: Duration::from_secs(60), port: 0 }
    }

    /// Lambda's environment, overridden by the version's own.
    pub(super) fn environment(
        &self,
        runtime_api: &str,
        number: usize,
        version: &Version,
    ) -> BTreeMap<String, String> {
        let number = number.to_string();
        let log_group = format!("/aws/lambda/{FUNCTION}");
        let lambda = [
            ("AWS_DEFAULT_REGION", REGION),
            ("AWS_EXECUTION_ENV", "AWS_Lambda_provided.al2023"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", MEMORY_MEGABYTES),
            ("AWS_LAMBDA_FUNCTION_NAME", FUNCTION),
            ("AWS_LAMBDA_FUNCTION_VERSION", &number),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", &log_group),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "local"),
            ("AWS_LAMBDA_RUNTIME_API", runtime_api),
            ("AWS_REGION", REGION),
            ("TZ", ":UTC"),
            ("_HANDLER", "bootstrap"),
        ];
        let lambda = lambda.map(|(name, value)| (name.to_owned(), value.to_owned()));
        lambda.into_iter().chain(version.env.clone()).collect()
    }
}
