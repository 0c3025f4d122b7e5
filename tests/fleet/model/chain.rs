//! Runs of a reconcile, one after another, as the state machine makes them.

use std::time::Duration;

use ecom_settings_exporter::lambda::Handler;
use ecom_settings_exporter::ports::Namespace;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Found, Memory, Ports};

/// What Lambda gives an invocation.
pub const INVOCATION: Duration = Duration::from_secs(900);

/// The runs of a chain.
#[derive(Debug, Default)]
pub struct Followed {
    /// Their reports.
    pub runs: Vec<Value>,
    pub took: Duration,
}

impl Followed {
    /// A count of all runs together.
    pub fn sum(&self, namespace: &str, class: &str) -> u64 {
        self.runs.iter().map(|run| run[namespace][class].as_u64().expect("a count")).sum()
    }

    /// What all runs together have found in a namespace.
    pub fn found(&self, namespace: Namespace) -> Found {
        let name = name_of(namespace);
        Found {
            desired: self.sum(name, "desired"),
            listed: self.sum(name, "listed"),
            missing: self.sum(name, "missing"),
            stale: self.sum(name, "stale"),
            orphaned: self.sum(name, "orphaned"),
        }
    }

    /// A count of both namespaces.
    pub fn total(&self, class: &str) -> u64 {
        self.sum("settings", class) + self.sum("query_configs", class)
    }

    pub fn last(&self) -> &Value {
        self.runs.last().expect("a run")
    }
}

fn name_of(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::Settings => "settings",
        Namespace::QueryConfigs => "query_configs",
    }
}

/// What the first run of a repair is asked.
pub fn repair() -> Value {
    json!({"apply": true})
}

/// What the first run of an audit is asked.
pub fn audit() -> Value {
    json!({})
}

/// Makes one run.
pub async fn run(
    function: &Handler<Memory<Ports>>,
    request: &Value,
    time: Duration,
) -> Result<Value, String> {
    let payload = json!({ "reconcile": request }).to_string();
    let (answer, _) = function.handle(payload, time).await;
    let answer = answer.map_err(|error| error.message())?;
    Ok(serde_json::to_value(answer).expect("a report"))
}

/// Makes runs until no `continue` comes.
pub async fn follow(
    function: &Handler<Memory<Ports>>,
    mut request: Value,
    time: Duration,
) -> Result<Followed, String> {
    let began = Instant::now();
    let mut followed = Followed::default();
    loop {
        let report = run(function, &request, time).await?;
        request["continue"] = report["continue"].clone();
        let ended = report["continue"].is_null();
        followed.runs.push(report);
        if ended {
            followed.took = began.elapsed();
            return Ok(followed);
        }
    }
}
