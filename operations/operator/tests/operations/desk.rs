//! Where an operator sits: the Makefile, a build folder of its own, and a PATH with programs that
//! answer by a script.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const SCRIPTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/operations/scripted");

#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A place to run commands at. Its folder goes with it.
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
        symlink(SCRIPTED, folder.join("bin/aws")).unwrap();
        symlink("/bin/true", folder.join("bin/cargo")).unwrap();
        Self { folder, env: Vec::new() }
    }

    /// A desk in an environment whose stack says how the function and its state machine are called.
    pub fn of(environment: &str) -> Self {
        let outputs = r#"[["FunctionName", "the-function"], ["StateMachineArn", "arn:machine"]]"#;
        Self::new().with("ENVIRONMENT", environment).answers(
            &format!("aws cloudformation describe-stacks --stack-name {environment}-ecom-settings-exporter \
                      --query Stacks?0?.Outputs* --output json"),
            outputs,
        )
    }

    /// The same with a variable in the environment.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// What a program answers to calls that match a pattern of bash. The first answer that fits counts.
    pub fn answers(self, pattern: &str, answer: impl AsRef<[u8]>) -> Self {
        let answers = self.path("answers");
        let number = fs::read_dir(&answers).unwrap().count();
        let content = [pattern.as_bytes(), answer.as_ref(), b""].join(&b'\n');
        fs::write(answers.join(format!("{number:03}")), content).unwrap();
        self
    }

    pub fn make(&self, args: &[&str]) -> Ended {
        self.run("make", &[&["--no-print-directory"], args].concat())
    }

    pub fn operator(&self, args: &[&str]) -> Ended {
        self.run(env!("CARGO_BIN_EXE_operator"), args)
    }

    /// Runs a line of a page, in the shell.
    pub fn shell(&self, line: &str) -> Ended {
        self.run("sh", &["-c", line])
    }

    fn run(&self, program: &str, args: &[&str]) -> Ended {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.path("bin").display());
        let mut command = Command::new(program);
        command.current_dir(ROOT).args(args).env_clear().env("PATH", path);
        command.env("CARGO_TARGET_DIR", &self.folder).envs(self.env.iter().cloned());
        command.env("ANSWERS", self.path("answers")).env("CALLS", self.path("calls"));
        let output = command.output().unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        Ended { code: output.status.code(), stdout, stderr }
    }

    /// The calls so far, but for those that look up the stack's outputs.
    pub fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let calls = calls.lines().filter(|call| !call.contains("Stacks[0].Outputs"));
        calls.map(str::to_owned).collect()
    }

    /// A file in the build folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Serves the local stack's Lambda API: each request gets the answer to its path and body. Returns its URL.
pub fn serve(mut answer: impl FnMut(&str, &str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            while !is_whole(&request) {
                let mut part = [0; 4096];
                let read = stream.read(&mut part).unwrap();
                request += std::str::from_utf8(&part[..read]).unwrap();
            }
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            let answer = answer(head.split(' ').nth(1).unwrap(), body);
            stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{answer}").as_bytes()).unwrap();
        }
    });
    url
}

fn is_whole(request: &str) -> bool {
    let length = |head: &str| head.split_once("Content-Length: ")?.1.parse::<usize>().ok();
    request.split_once("\r\n\r\n").is_some_and(|(head, body)| length(head) == Some(body.len()))
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
