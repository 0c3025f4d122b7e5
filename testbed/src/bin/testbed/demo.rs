//! `testbed demo`: real changes through the real binary, from the table to KV, each one checked.

mod changes;
mod reconcile;
mod removals;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testbed::kv::{KvRequest, Stored};
use testbed::lambda::{Function, Invocation};
use testbed::poller::{Poller, PollerOptions, Verdict};
use testbed::stack::{SETTINGS, Stack, StackOptions, TOKEN};

use crate::args::Args;
use crate::screen::{Screen, Style, millis, warning};

/// How long a batch waits for more records here.
const WINDOW: Duration = Duration::from_millis(200);
/// How long a change may take before the demo gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

type Checked = Result<(), String>;

pub async fn run(mut args: Args) -> Result<(), String> {
    let binary = args.bootstrap()?;
    args.end()?;
    let stack = Stack::start(StackOptions::default()).await.map_err(|error| error.to_string())?;
    let function = stack.function(&binary, []).await.map_err(|error| error.to_string())?;
    let init = function.warm().await.map_err(|error| error.to_string())?.unwrap_or_default();
    let mapping = PollerOptions { window: WINDOW, ..PollerOptions::default() };
    let poller = stack.poll(&function, mapping);
    let demo = Demo { screen: Screen::new(), stack, function, poller };
    println!("{} polled first after {}.", binary.display(), millis(init));
    println!("Changes wait {} for others of their batch here; in production 10 s.", millis(WINDOW));
    let ended = demo.play().await;
    if let Err(reason) = &ended {
        demo.screen.line(Style::Red, "fail", reason);
        return Err("The demo failed.".to_owned());
    }
    demo.usage().await;
    ended
}

struct Demo {
    screen: Screen,
    stack: Stack,
    function: Function,
    poller: Poller,
}

impl Demo {
    async fn play(&self) -> Checked {
        changes::play(self).await?;
        reconcile::play(self).await?;
        removals::play(self).await?;
        self.silent()
    }

    /// Checks that the function printed no secret in all that time.
    fn silent(&self) -> Checked {
        self.step("14. All that the function printed");
        let secrets = ["key-acme", TOKEN];
        let printed = self.function.logs();
        let told =
            printed.iter().any(|line| secrets.iter().any(|secret| line.text.contains(secret)));
        self.check(&format!("{} lines, no API key and no token in them", printed.len()), !told)
    }

    async fn usage(&self) {
        if let Ok(usage) = self.function.usage().await {
            let memory = usage.peak_memory as f64 / 1e6;
            let cpu = millis(usage.cpu);
            println!(
                "\nAll as it should be. The function held {memory:.1} MB at most, {cpu} of CPU."
            );
        }
    }

    fn step(&self, title: &str) {
        println!("\n{}", self.screen.paint(Style::Bold, title));
    }

    /// Puts an item, and shows it, or how it begins.
    fn put(&self, item: &Value) {
        const SHOWN: usize = 400;
        let text = item.to_string();
        let shown: String = text.chars().take(SHOWN).collect();
        let more = if shown.len() < text.len() { "…" } else { "" };
        self.screen.line(Style::Dim, "item", &format!("{shown}{more}"));
        self.stack.table.put(item);
    }

    /// Deletes an item, and says so.
    fn delete(&self, pk: &str, sk: &str) {
        self.screen.line(Style::Dim, "delete", &format!("{pk} {sk}"));
        self.stack.table.delete(pk, sk);
    }

    /// Makes a change to the table and waits until the stream has carried it through the function.
    /// Shows what was sent and warned, and how long the change took to reach KV.
    async fn carry(&self, change: impl FnOnce()) -> Result<Carried, String> {
        self.stack.kv.clear_log();
        let printed = self.function.logs().len();
        let began = Instant::now();
        change();
        let carried = tokio::time::timeout(PATIENCE, self.poller.caught_up()).await;
        carried.map_err(|_| format!("the stream stood still for {PATIENCE:?}"))?;
        let requests = self.show_requests();
        let warnings = self.show_warnings(printed);
        if let Some(last) = requests.last().and_then(|request| request.finished_at) {
            let took = millis(last - began);
            self.screen.line(Style::Dim, "took", &format!("{took} from the table to KV"));
        }
        match self.poller.deliveries().pop().map(|delivery| delivery.verdict) {
            Some(Verdict::Done) | None => Ok(Carried { requests, warnings }),
            Some(verdict) => Err(format!("the function did not take the batch: {verdict:?}")),
        }
    }

    /// Invokes the function by hand. Shows what was asked, sent, warned and answered.
    async fn invoke(&self, payload: Value) -> Result<Invocation, String> {
        self.stack.kv.clear_log();
        let printed = self.function.logs().len();
        self.screen.line(Style::Bold, "asked", &payload.to_string());
        let invocation = self.function.invoke(&payload).await.map_err(|error| error.to_string())?;
        self.show_requests();
        self.show_warnings(printed);
        match &invocation.result {
            Ok(answer) => self.screen.line(Style::Bold, "answer", &answer.to_string()),
            Err(failure) => self.screen.line(Style::Red, "error", &failure.to_string()),
        }
        Ok(invocation)
    }

    fn show_requests(&self) -> Vec<KvRequest> {
        let mut requests = self.stack.kv.log();
        requests.retain(|request| request.verb.writes());
        requests.iter().for_each(|request| self.screen.request(request));
        requests
    }

    fn show_warnings(&self, from: usize) -> Vec<String> {
        let lines = self.function.logs().split_off(from);
        lines.iter().for_each(|line| self.screen.warning(line));
        lines.iter().filter_map(warning).map(|(_, _, text)| text).collect()
    }

    /// What a key holds; an error where it is not there.
    fn stored(&self, namespace: &str, key: &str) -> Result<Stored, String> {
        self.stack.kv.get(namespace, key).ok_or_else(|| format!("KV lacks {key} in {namespace}"))
    }

    /// Shows and checks an exported pair: the digest and origin in its metadata.
    fn exported(&self, namespace: &str, key: &str, source: &str) -> Result<Value, String> {
        let stored = self.stored(namespace, key)?;
        let metadata = stored.metadata.clone().unwrap_or_default();
        self.screen.line(Style::Bold, "key", key);
        self.screen.fields(&stored.value);
        self.screen.line(Style::Dim, "meta", &metadata.to_string());
        let digest = hex(Sha256::digest(&stored.value));
        self.check("its metadata holds the value's digest", metadata["digest"] == digest.as_str())?;
        self.check(&format!("and its source, {source}"), metadata["source"] == source)?;
        Ok(stored.json())
    }

    /// Says what holds; an error where it does not.
    fn check(&self, what: &str, holds: bool) -> Checked {
        if holds {
            self.screen.line(Style::Green, "ok", what);
            return Ok(());
        }
        Err(format!("not so: {what}"))
    }

    fn keys(&self) -> Vec<String> {
        self.stack.kv.keys(SETTINGS)
    }
}

/// What a change of the table led to.
struct Carried {
    requests: Vec<KvRequest>,
    warnings: Vec<String>,
}

/// An index-settings item: the keys, an endpoint, and what else it holds.
fn index(name: &str, more: Value) -> Value {
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
fn reads(enabled: bool, target: &str) -> Value {
    json!({"enabled": enabled, "targets": [{"index_id": target, "weight": 1.0}]})
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
