//! Runs of a reconcile, one after another, as the state machine makes them.

use std::time::Duration;

use ecom_settings_exporter::kv::Namespace;
use ecom_settings_exporter::lambda::Handler;
use serde_json::{Value, json};

use super::memory::Memory;
use super::services::{Found, Ports};

/// What Lambda gives an invocation.
pub const INVOCATION: Duration = Duration::from_secs(900);

/// The last report of a chain, and how many runs it had.
#[derive(Debug, Default)]
pub struct Chain {
    pub report: Value,
    pub runs: usize,
}

impl Chain {
    pub fn count(&self, namespace: Namespace, class: &str) -> u64 {
        let name = match namespace {
            Namespace::Settings => "settings",
            Namespace::QueryConfigs => "query_configs",
        };
        self.report[name][class].as_u64().expect("a count")
    }

    /// Returns a count of both namespaces.
    pub fn total(&self, class: &str) -> u64 {
        self.count(Namespace::Settings, class) + self.count(Namespace::QueryConfigs, class)
    }

    pub fn found(&self, namespace: Namespace) -> Found {
        let of = |class| self.count(namespace, class);
        Found {
            desired: of("desired"),
            listed: of("listed"),
            missing: of("missing"),
            stale: of("stale"),
            orphaned: of("orphaned"),
        }
    }

    /// Returns how many deletes and rewrites were refused.
    pub fn refused(&self) -> [u64; 2] {
        ["delete", "rewrite"].map(|what| self.report["refused"][what].as_u64().unwrap_or_default())
    }

    pub fn is_complete(&self) -> bool {
        self.report["complete"] == true
    }
}

/// What a repair of everything asks for.
pub fn repair() -> Value {
    json!({"apply": true})
}

/// What an audit of everything asks for.
pub fn audit() -> Value {
    json!({})
}

/// Makes runs until no `continue` comes. Each run has a function of its own; where it does not end in
/// time by `kill`, it is tried again. Returns the error of a run that fails.
pub async fn follow<K: Future<Output = ()>>(
    function: impl Fn() -> Handler<Memory<Ports>>,
    mut request: Value,
    time: Duration,
    mut kill: impl FnMut() -> K,
) -> Result<Chain, String> {
    let mut chain = Chain::default();
    loop {
        chain.runs += 1;
        let function = function();
        let payload = json!({ "reconcile": request }).to_string();
        let answer = tokio::select! {
            (answer, _) = function.handle(payload, time) => answer,
            () = kill() => continue,
        };
        let answer = answer.map_err(|error| error.error_message)?;
        chain.report = serde_json::to_value(answer).expect("a report");
        request["continue"] = chain.report["continue"].clone();
        if request["continue"].is_null() {
            return Ok(chain);
        }
    }
}
