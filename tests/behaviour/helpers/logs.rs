//! What the handler logged.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tracing::subscriber::DefaultGuard;

/// What the handler logged, as the JSON lines that the binary prints.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// Captures what this thread logs: the tests' runtimes have one thread each.
    pub fn capture(&self) -> DefaultGuard {
        let logs = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || logs.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    /// Everything, as it would be printed.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The function's own lines, parsed.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let own = |line: &Value| {
            line["target"].as_str().is_some_and(|target| target.starts_with("ecom_settings"))
        };
        lines.filter(own).collect()
    }

    pub fn of(&self, message: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["message"] == message).collect()
    }

    /// The only line with this message.
    #[track_caller]
    pub fn only(&self, message: &str) -> Value {
        let [line] = &self.of(message)[..] else { panic!("one {message:?}: {}", self.text()) };
        line.clone()
    }

    pub fn warnings(&self) -> Vec<Value> {
        self.at("WARN")
    }

    pub fn at(&self, level: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["level"] == level).collect()
    }

    /// Forgets everything so far.
    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

impl io::Write for Logs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
