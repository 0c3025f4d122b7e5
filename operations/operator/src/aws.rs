//! The AWS CLI, as a child process. It knows the region, the credentials and the endpoints.
//!
//! It gets arguments and files, never a line for a shell.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::{Failure, at, failed};

/// A call that is under way.
pub struct Call(Child);

/// Begins a call, so that several can be under way. `command` has the words of the CLI's help; each of
/// `values` follows as one argument.
pub fn begin(command: &str, values: &[&str]) -> Result<Call, Failure> {
    let mut aws = Command::new("aws");
    aws.args(command.split(' ')).args(values).env("AWS_PAGER", "");
    if command.starts_with("lambda invoke") {
        // A second try would run beside the first.
        aws.env("AWS_MAX_ATTEMPTS", "1");
    }
    aws.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    aws.spawn().map(Call).map_err(at("version 2 of the AWS CLI, `aws`, is needed"))
}

impl Call {
    /// Waits for what the CLI prints.
    pub fn text(self) -> Result<String, Failure> {
        let output = self.0.wait_with_output().map_err(at("aws"))?;
        let [printed, why] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        match output.status.success() {
            true => Ok(printed),
            false => Err(failed(format_args!("aws, {}: {why}", output.status))),
        }
    }
}

/// Makes a call whose answer is JSON, or nothing.
pub fn json(command: &str, values: &[&str]) -> Result<Value, Failure> {
    let text = begin(command, &[values, &["--output", "json"]].concat())?.text()?;
    let text = if text.is_empty() { "null" } else { &text };
    serde_json::from_str(text).map_err(at("what aws printed is not JSON"))
}

/// Invokes a function. Returns what it answers, and whether that is an error. Payload and answer go through a file that nobody else can read.
pub fn invoke(function: &str, qualifier: &str, payload: &Value) -> Result<(String, bool), Failure> {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let path = std::env::temp_dir().join(format!("operator-{}-{now}.json", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| file.write_all(payload.to_string().as_bytes()));
    written.map_err(at(path.display()))?;
    let file = path.to_string_lossy();
    let values = ["--qualifier", qualifier, "--payload", &format!("fileb://{file}"), &file];
    let command = "lambda invoke --cli-read-timeout 0 --function-name";
    let invoked = json(command, &[&[function], &values[..]].concat());
    let text = fs::read_to_string(&path).map_err(at(path.display()));
    let _ = fs::remove_file(&path);
    Ok((text?, !invoked?["FunctionError"].is_null()))
}
