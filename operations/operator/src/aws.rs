//! The AWS CLI, as a child process. It knows the region, the credentials and the endpoints.
//!
//! What it is given are arguments and files, never a line for a shell.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::failure::Failure;

/// The first version of the AWS CLI that reads `AWS_ENDPOINT_URL`, of either major version. An older one
/// would ask AWS where it is told to ask a stand-in.
const OLDEST: [(u32, u32); 2] = [(2, 13), (1, 29)];

/// The AWS CLI, with a folder for what it reads and writes.
pub struct Aws {
    folder: PathBuf,
}

pub struct Call(Child);

impl Aws {
    /// Fails if the CLI is missing or too old.
    pub fn new() -> Result<Self, Failure> {
        let version = Command::new("aws").arg("--version").output();
        let version = version.map_err(|error| {
            Failure::of("aws", format!("{error}: install version 2 of the AWS CLI"))
        })?;
        // Some versions print it to standard error.
        let said = [version.stdout, version.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if !is_new_enough(&said) {
            return Err(Failure::because(format!(
                "{}: AWS CLI 2.13 or later is needed (or 1.29 of version 1)",
                said.split_whitespace().next().unwrap_or("no version"),
            )));
        }
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let name = format!("settings-exporter-{}-{now}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| Failure::of(folder.display(), error))?;
        Ok(Self { folder })
    }

    /// A file that the CLI writes.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A file that the CLI reads, as its argument.
    pub fn file(&self, kind: &str, name: &str, content: &Value) -> Result<String, Failure> {
        let path = self.path(name);
        let written = fs::write(&path, content.to_string());
        written.map_err(|error| Failure::of(path.display(), error))?;
        Ok(format!("{kind}://{}", path.display()))
    }

    /// Begins a call, so that several can be under way. The words of the command stand as the CLI's help
    /// has them; what is given follows them, each as one argument.
    pub fn begin(&self, command: &str, given: &[&str]) -> Result<Call, Failure> {
        let mut aws = Command::new("aws");
        aws.args(command.split(' ')).args(given).args(["--output", "json"]);
        // Version 2 would show long answers in a pager. A second try of an invocation would run beside
        // the first.
        aws.env("AWS_PAGER", "");
        if command.starts_with("lambda invoke") {
            aws.env("AWS_MAX_ATTEMPTS", "1");
        }
        aws.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        aws.spawn().map(Call).map_err(|error| Failure::of("aws", error))
    }

    pub fn call(&self, command: &str, given: &[&str]) -> Result<Value, Failure> {
        self.begin(command, given)?.answer()
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Call {
    /// Waits for the answer. Null if there is none.
    pub fn answer(self) -> Result<Value, Failure> {
        let output = self.0.wait_with_output();
        let output = output.map_err(|error| Failure::of("aws", error))?;
        if !output.status.success() {
            return Err(Failure::because(String::from_utf8_lossy(&output.stderr).trim()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text)
            .map_err(|error| Failure::of("an answer of aws can't be read", error))
    }
}

fn is_new_enough(version: &str) -> bool {
    let numbers = version.trim().strip_prefix("aws-cli/").and_then(|rest| {
        let mut parts = rest.split(['.', ' ']).map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    });
    numbers.is_some_and(|(major, minor)| {
        major > 2 || OLDEST.iter().any(|oldest| oldest.0 == major && oldest.1 <= minor)
    })
}

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn versions_that_ignore_the_endpoints_of_the_environment_are_refused() {
        for (version, new_enough) in [
            ("aws-cli/2.13.0 Python/3.11.4 Linux/6.1", true),
            ("aws-cli/2.38.1 Python/3.13", true),
            ("aws-cli/3.0.0", true),
            ("aws-cli/1.29.0 Python/3.8", true),
            ("aws-cli/2.12.7 Python/3.11.4", false),
            ("aws-cli/1.28.9 Python/3.8", false),
            ("aws: not found", false),
        ] {
            assert_eq!(is_new_enough(version), new_enough, "{version}");
        }
    }
}
