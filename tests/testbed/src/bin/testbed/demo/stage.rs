//! What the steps of the demo are made of: changes and invocations, shown and checked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::kv::{KvRequest, Stored};
use testbed::lambda::{Function, LogLine};
use testbed::poller::{Poller, Verdict};
use testbed::proxy::digest;
use testbed::stack::{SETTINGS, Stack};

use crate::screen::{Screen, Style, millis, warning};

/// How long a change may take before the demo gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What passes for KV between two steps, so that no step is slowed by the one before it.
const BETWEEN_STEPS: Duration = Duration::from_secs(1);

/// Whether everything was as expected.
pub type Checked = Result<(), String>;

/// The stack, its function, and the screen that shows them.
pub struct Demo {
    pub screen: Screen,
    pub verbose: bool,
    pub stack: Stack,
    pub function: Function,
    pub poller: Poller,
}

/// What became of a change.
pub struct Carried {
    /// The writes and deletes that KV was asked for.
    pub requests: Vec<KvRequest>,
    /// Warnings and errors of the function.
    pub warnings: Vec<String>,
    /// How long it took until KV had it, for people.
    pub took: String,
}

impl Carried {
    pub fn says(&self, what: &str) -> bool {
        self.warnings.iter().any(|warning| warning.contains(what))
    }
}

impl Demo {
    pub fn step(&self, number: u32, title: &str) {
        println!("\n{}", self.screen.paint(Style::Bold, &format!("{number}  {title}")));
    }

    pub fn changed(&self, what: &str) {
        self.screen.line(Style::Yellow, "changed", what);
    }

    pub fn in_kv(&self, what: &str) {
        self.screen.line(Style::Green, "in KV", what);
    }

    pub fn verbose(&self, label: &str, what: &str) {
        if self.verbose {
            self.screen.line(Style::Dim, label, what);
        }
    }

    /// Fails if this does not hold.
    pub fn check(&self, what: &str, holds: bool) -> Checked {
        if !holds {
            return Err(format!("this does not hold: {what}"));
        }
        self.verbose("ok", what);
        Ok(())
    }

    /// Puts items into the table, and waits until the function has answered for them.
    pub async fn put(&self, items: &[&Value]) -> Result<Carried, String> {
        self.carry(|| {
            for item in items {
                self.verbose("item", &item.to_string());
                self.stack.table.put(item);
            }
        })
        .await
    }

    /// Changes the table, and waits until the function has answered for the change.
    pub async fn carry(&self, change: impl FnOnce()) -> Result<Carried, String> {
        self.stack.kv.clock().pass(BETWEEN_STEPS);
        self.stack.kv.clear_log();
        let printed = self.function.logs().len();
        let began = Instant::now();
        change();
        let carried = tokio::time::timeout(PATIENCE, self.poller.caught_up()).await;
        carried.map_err(|_| format!("the stream made no progress for {PATIENCE:?}"))?;
        let requests = self.writes();
        let last = requests.iter().filter_map(|request| request.finished_at).max();
        let took = millis(last.map_or_else(|| began.elapsed(), |last| last - began));
        let verdict = self.poller.deliveries().pop().map(|delivery| delivery.verdict);
        let warnings = self.warnings(&self.function.logs()[printed..]);
        let done = matches!(verdict, Some(Verdict::Done));
        self.check("no record failed", done).map_err(|error| format!("{error}: {verdict:?}"))?;
        Ok(Carried { requests, warnings, took })
    }

    /// Invokes the function by hand.
    pub async fn invoke(&self, payload: Value) -> Result<Value, String> {
        self.stack.kv.clock().pass(BETWEEN_STEPS);
        self.stack.kv.clear_log();
        self.verbose("asked", &payload.to_string());
        let answered = self.function.invoke(&payload).await.map_err(|error| error.to_string())?;
        self.writes();
        self.warnings(&answered.logs);
        let answer = answered.result.map_err(|failure| failure.to_string())?;
        self.verbose("answer", &answer.to_string());
        Ok(answer)
    }

    fn writes(&self) -> Vec<KvRequest> {
        let mut requests = self.stack.kv.log();
        requests.retain(|request| request.verb.writes());
        if self.verbose {
            requests.iter().for_each(|request| self.screen.request(request));
        }
        requests
    }

    fn warnings(&self, lines: &[LogLine]) -> Vec<String> {
        let lines = lines.iter().filter_map(|line| warning(&line.text));
        let told = lines.map(|(style, level, text)| {
            if self.verbose {
                self.screen.line(style, level, &text);
            }
            text
        });
        told.collect()
    }

    /// What a key of the settings namespace holds. Its digest has to be right.
    pub fn stored(&self, key: &str) -> Result<Stored, String> {
        let stored = self.stack.kv.get(SETTINGS, key);
        let stored = stored.ok_or_else(|| format!("KV lacks {key}"))?;
        let metadata = stored.metadata.clone().unwrap_or_default();
        self.verbose("meta", &format!("{key} {metadata}"));
        let is_right = metadata["digest"] == digest(&stored.value).as_str();
        self.check(&format!("the digest of {key} is that of its value"), is_right)?;
        Ok(stored)
    }

    pub fn holds(&self, key: &str) -> bool {
        self.stack.kv.get(SETTINGS, key).is_some()
    }
}

/// An index-settings item: the keys, an endpoint, and what else it holds.
pub fn index(name: &str, more: Value) -> Value {
    let mut item = json!({
        "pk": "acme", "sk": format!("INDEX#{name}"),
        "index_endpoint": format!("https://{name}.example.com"),
    });
    if let (Some(item), Value::Object(more)) = (item.as_object_mut(), more) {
        item.extend(more);
    }
    item
}
