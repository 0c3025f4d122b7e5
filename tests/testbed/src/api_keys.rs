//! The API keys service, one gateway per cell:
//! `GET /{cell}/v1/accounts/{system_account_id}/key` answers
//! `{"api_key":"…","created_at":"…"}`, or 404 if the account has none.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use hyper::Method;
use serde_json::json;

use crate::faults::{Fault, Faults, Rule};
use crate::http::{Outcome, Reply, Request, Server};
use crate::request_log::RequestLog;
use crate::sync::lock;

#[derive(Debug, Clone)]
pub struct ApiKeyRequest {
    pub cell: String,
    pub account: String,
    pub received_at: Instant,
    /// When it was answered; `None` while it runs, and if the client gave up.
    pub finished_at: Option<Instant>,
}

/// A running API keys service. Clones share it; it stops with the last of them.
#[derive(Clone)]
pub struct ApiKeys {
    shared: Arc<Shared>,
    server: Server,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    faults: Faults,
}

#[derive(Default)]
struct State {
    /// What was set; `None` for an account whose key was removed.
    keys: BTreeMap<String, Option<String>>,
    log: RequestLog<ApiKeyRequest>,
}

impl ApiKeys {
    /// Starts it on a port; 0 for any.
    pub async fn start(port: u16) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let server = Server::sharing(port, &shared, handle).await?;
        Ok(Self { shared, server })
    }

    /// The address, as `API_KEYS_URL` takes it.
    pub fn url_template(&self) -> String {
        url_template(&self.server.url())
    }

    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Adds a fault that hits one cell's gateway until the faults are cleared.
    pub fn break_cell(&self, cell: &str, fault: Fault) {
        let prefix = format!("/{cell}/");
        let rule = Rule::when(move |request| request.path.starts_with(&prefix), fault);
        self.shared.faults.add(rule.forever());
    }

    pub fn set(&self, account: &str, key: &str) {
        self.locked().keys.insert(account.to_owned(), Some(key.to_owned()));
    }

    /// Removes an account's key: 404 from now on.
    pub fn remove(&self, account: &str) {
        self.locked().keys.insert(account.to_owned(), None);
    }

    /// All requests since the log was cleared.
    pub fn log(&self) -> Vec<ApiKeyRequest> {
        self.locked().log.requests().to_vec()
    }

    pub fn clear_log(&self) {
        self.locked().log.clear();
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

/// The address of an account's key on a server.
pub(crate) fn url_template(server: &str) -> String {
    format!("{server}/{{cell}}/v1/accounts/{{system_account_id}}/key")
}

async fn handle(shared: Arc<Shared>, request: Request) -> Outcome {
    let segments = request.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (&Method::GET, [cell, "v1", "accounts", account, "key"]) = (&request.method, &*segments)
    else {
        return Reply::json(404, &json!({"message": "no such route"})).into();
    };
    let (cell, account) = ((*cell).to_owned(), (*account).to_owned());
    let asked = ApiKeyRequest {
        cell,
        account: account.clone(),
        received_at: Instant::now(),
        finished_at: None,
    };
    let place = lock(&shared.state).log.begin(asked);
    let key = lock(&shared.state).keys.get(&account).cloned();
    let work = async |_, _| match key.unwrap_or_else(|| Some(format!("key-{account}"))) {
        Some(key) => {
            Reply::json(200, &json!({"api_key": key, "created_at": "2026-01-05T08:00:00Z"}))
        }
        None => Reply::json(404, &json!({"message": "account has no API key"})),
    };
    let outcome = shared.faults.serve(request, work).await;
    if let Some(request) = lock(&shared.state).log.find(place) {
        request.finished_at = Some(Instant::now());
    }
    outcome
}
