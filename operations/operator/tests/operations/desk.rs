//! Where an operator sits: the Makefile, a build folder of its own, and a PATH with programs that
//! answer by a script.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const SCRIPTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operations/scripted");

#[derive(Debug)]
pub struct Made {
    pub succeeded: bool,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A place to run `make` at. Its folder goes with it.
pub struct Desk {
    folder: PathBuf,
    env: Vec<(String, String)>,
}

impl Desk {
    /// A place whose programs have no answers yet. Cargo builds nothing there.
    pub fn new() -> Self {
        static DESKS: AtomicUsize = AtomicUsize::new(0);
        let number = DESKS.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("desk-{}-{number}", std::process::id()));
        for part in ["bin", "debug", "answers"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_operator"), folder.join("debug/operator")).unwrap();
        for program in ["aws", "sam", "unzip"] {
            symlink(SCRIPTED, folder.join("bin").join(program)).unwrap();
        }
        symlink("/bin/true", folder.join("bin/cargo")).unwrap();
        Self { folder, env: Vec::new() }
    }

    /// The same with a variable in the environment.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// What a program answers to calls that match a pattern of bash. The first answer that fits counts.
    pub fn answers(self, pattern: &str, answer: impl AsRef<[u8]>) -> Self {
        let answers = self.folder.join("answers");
        let number = fs::read_dir(&answers).unwrap().count();
        let content = [pattern.as_bytes(), answer.as_ref(), b""].join(&b'\n');
        fs::write(answers.join(format!("{number:03}")), content).unwrap();
        self
    }

    pub fn make(&self, args: &[&str]) -> Made {
        self.run("make", &[&["--no-print-directory"], args].concat())
    }

    pub fn operator(&self, args: &[&str]) -> Made {
        self.run(env!("CARGO_BIN_EXE_operator"), args)
    }

    /// Runs a line of a page, in the shell.
    pub fn shell(&self, line: &str) -> Made {
        self.run("sh", &["-c", line])
    }

    fn run(&self, program: &str, args: &[&str]) -> Made {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("bin").display());
        let made = Command::new(program)
            .current_dir(ROOT)
            .args(args)
            .env_clear()
            .env("PATH", path)
            .env("CARGO_TARGET_DIR", &self.folder)
            .env("ANSWERS", self.path("answers"))
            .env("CALLS", self.path("calls"))
            .envs(self.env.iter().cloned())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(made.stdout), text(made.stderr));
        Made { succeeded: made.status.success(), code: made.status.code(), stdout, stderr }
    }

    /// The calls so far, one on a line.
    pub fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }

    /// A file in the build folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(Path::new(name))
    }
}

/// A desk where the stack of an environment says how the function and its state machine are called.
pub fn outputs(environment: &str) -> Desk {
    let outputs = [("FunctionName", "the-function"), ("StateMachineArn", "arn:machine")];
    let outputs = outputs.map(|(name, value)| json!({"OutputKey": name, "OutputValue": value}));
    let stacks = json!({"Stacks": [{"Outputs": outputs}]});
    let asked = format!("aws cloudformation describe-stacks --stack-name {environment}-ecom-*");
    Desk::new().with("ENVIRONMENT", environment).answers(&asked, stacks.to_string())
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
