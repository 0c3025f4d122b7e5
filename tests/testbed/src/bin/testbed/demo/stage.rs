//! What the steps of the demo are made of: changes and invocations, shown and checked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::kv::{KvRequest, Stored};
use testbed::lambda::{Failure, Function};
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
    pub stack: Stack,
    pub function: Function,
    pub poller: Poller,
}

impl Demo {
    pub fn step(&self, title: &str) {
        println!("\n{}", self.screen.paint(Style::Bold, title));
    }

    pub fn put(&self, item: &Value) {
        const SHOWN: usize = 400;
        let text = item.to_string();
        let shown: String = text.chars().take(SHOWN).collect();
        let more = if shown.len() < text.len() { "…" } else { "" };
        self.screen.line(Style::Dim, "item", &format!("{shown}{more}"));
        self.stack.table.put(item);
    }

    pub fn delete(&self, pk: &str, sk: &str) {
        self.screen.line(Style::Dim, "delete", &format!("{pk} {sk}"));
        self.stack.table.delete(pk, sk);
    }

    /// Changes the table, and waits until the function has answered for the change. Shows the
    /// requests to KV, the warnings, and how long the change took to reach KV.
    pub async fn carry(&self, change: impl FnOnce()) -> Result<Carried, String> {
        self.stack.kv.clock().pass(BETWEEN_STEPS);
        self.stack.kv.clear_log();
        let printed = self.function.logs().len();
        let began = Instant::now();
        change();
        let carried = tokio::time::timeout(PATIENCE, self.poller.caught_up()).await;
        carried.map_err(|_| format!("the stream made no progress for {PATIENCE:?}"))?;
        let requests = self.show_requests();
        let warnings = self.show_warnings(&self.function, printed);
        if let Some(last) = requests.last().and_then(|request| request.finished_at) {
            let took = millis(last - began);
            self.screen.line(Style::Dim, "took", &format!("{took} from the table to KV"));
        }
        match self.poller.deliveries().pop().map(|delivery| delivery.verdict) {
            Some(Verdict::Done) | None => Ok(Carried { requests, warnings }),
            Some(verdict) => Err(format!("the function failed the batch: {verdict:?}")),
        }
    }

    /// Invokes the function by hand. Shows the payload, the requests to KV, the warnings and the
    /// answer.
    pub async fn invoke(&self, payload: Value) -> Result<Asked, String> {
        self.invoke_on(&self.function, payload).await
    }

    /// The same with a function of other settings.
    pub async fn invoke_on(&self, function: &Function, payload: Value) -> Result<Asked, String> {
        self.screen.line(Style::Bold, "asked", &payload.to_string());
        self.send(function, &payload).await
    }

    /// The same with a batch that the stream does not carry.
    pub async fn deliver(&self, event: &Value) -> Result<Asked, String> {
        self.send(&self.function, event).await
    }

    async fn send(&self, function: &Function, payload: &Value) -> Result<Asked, String> {
        self.stack.kv.clock().pass(BETWEEN_STEPS);
        self.stack.kv.clear_log();
        let printed = function.logs().len();
        let invocation = function.invoke(payload).await.map_err(|error| error.to_string())?;
        self.show_requests();
        let warnings = self.show_warnings(function, printed);
        match &invocation.result {
            Ok(answer) => self.screen.line(Style::Bold, "answer", &answer.to_string()),
            Err(failure) => self.screen.line(Style::Red, "error", &failure.to_string()),
        }
        Ok(Asked { result: invocation.result, warnings })
    }

    fn show_requests(&self) -> Vec<KvRequest> {
        let mut requests = self.stack.kv.log();
        requests.retain(|request| request.verb.writes());
        requests.iter().for_each(|request| self.screen.request(request));
        requests
    }

    fn show_warnings(&self, function: &Function, from: usize) -> Vec<String> {
        let lines = function.logs().split_off(from);
        lines.iter().for_each(|line| self.screen.warning(line));
        lines.iter().filter_map(warning).map(|(_, _, text)| text).collect()
    }

    /// What a key holds; an error if it is missing.
    pub fn stored(&self, namespace: &str, key: &str) -> Result<Stored, String> {
        self.stack.kv.get(namespace, key).ok_or_else(|| format!("KV lacks {key} in {namespace}"))
    }

    /// Shows and checks an exported pair: the digest and origin in its metadata.
    pub fn exported(&self, namespace: &str, key: &str, source: &str) -> Result<Value, String> {
        let stored = self.stored(namespace, key)?;
        let metadata = stored.metadata.clone().unwrap_or_default();
        self.screen.line(Style::Bold, "key", key);
        self.screen.fields(&stored.value);
        self.screen.line(Style::Dim, "meta", &metadata.to_string());
        let digest = digest(&stored.value);
        self.check("its metadata holds the value's digest", metadata["digest"] == digest.as_str())?;
        self.check(&format!("and its source, {source}"), metadata["source"] == source)?;
        Ok(stored.json())
    }

    /// Shows what was checked; an error if it does not hold.
    pub fn check(&self, what: &str, holds: bool) -> Checked {
        if holds {
            self.screen.line(Style::Green, "ok", what);
            return Ok(());
        }
        Err(format!("this does not hold: {what}"))
    }

    pub fn keys(&self) -> Vec<String> {
        self.stack.kv.keys(SETTINGS)
    }
}

pub struct Carried {
    pub requests: Vec<KvRequest>,
    pub warnings: Vec<String>,
}

/// What an invocation by hand came to.
pub struct Asked {
    pub result: Result<Value, Failure>,
    pub warnings: Vec<String>,
}

impl Asked {
    pub fn answer(self) -> Result<Value, String> {
        self.result.map_err(|failure| failure.to_string())
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

/// An alias block with one target that gets all the weight.
pub fn reads(enabled: bool, target: &str) -> Value {
    json!({"enabled": enabled, "targets": [{"index_id": target, "weight": 1.0}]})
}
