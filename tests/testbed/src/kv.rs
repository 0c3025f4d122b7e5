//! Cloudflare KV's REST API, in memory.
//!
//! It serves `/client/v4/accounts/{account}/storage/kv/namespaces/{ns}/…` and asks for the bearer
//! token.
//!
//! Limits and error envelopes are Cloudflare's. A second write or delete of a key within a second is
//! refused as one of `unsuccessful_keys`, with 429. Where the exact code of an error is not documented,
//! 10012 stands for every malformed request. Expirations are accepted and ignored.

mod api;
mod call;
mod limits;
mod log;
mod namespace;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use serde_json::Value;

use crate::clock::Clock;
use crate::faults::Faults;
use crate::http::Server;
use crate::request_log::RequestLog;
use crate::sync::lock;
use namespace::Namespace;

pub use log::{KvRequest, KvVerb};
pub use namespace::Stored;

/// A running KV stand-in. Clones share it; it stops with the last of them.
#[derive(Clone)]
pub struct Kv {
    shared: Arc<Shared>,
    server: Server,
}

/// Sees the namespace, the key and the content of each pair that is sent.
type Inspector = Box<dyn Fn(&str, &str, &Stored) + Send + Sync>;

/// What the handle and the requests share.
struct Shared {
    account: String,
    state: Mutex<State>,
    faults: Faults,
    clock: Clock,
    inspector: OnceLock<Inspector>,
}

struct State {
    token: String,
    namespaces: BTreeMap<String, Namespace>,
    log: RequestLog<KvRequest>,
}

impl Kv {
    /// Starts it with empty namespaces on a port; 0 for any.
    pub async fn start(
        port: u16,
        account: &str,
        token: &str,
        namespaces: &[&str],
    ) -> io::Result<Self> {
        let namespaces = namespaces.iter().map(|id| ((*id).to_owned(), Namespace::default()));
        let state = State {
            token: token.to_owned(),
            namespaces: namespaces.collect(),
            log: RequestLog::default(),
        };
        let shared = Arc::new(Shared {
            account: account.to_owned(),
            state: Mutex::new(state),
            faults: Faults::default(),
            clock: Clock::default(),
            inspector: OnceLock::new(),
        });
        let server = Server::sharing(port, &shared, api::handle).await?;
        Ok(Self { shared, server })
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Cloudflare's address of a namespace, as `CLOUDFLARE_KV_URL` takes it.
    pub fn url_template(&self) -> String {
        url_template(&self.url())
    }

    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Accepts only this token from now on.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.locked().token);
    }

    /// Shows each pair that a write brings to `inspector`: its namespace, key and content. The first
    /// inspector stays.
    pub fn inspect_writes(&self, inspector: impl Fn(&str, &str, &Stored) + Send + Sync + 'static) {
        let _ = self.shared.inspector.set(Box::new(inspector));
    }

    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Reads of values keep showing the present state until [`Kv::catch_up`].
    pub fn freeze_values(&self, namespace: &str) {
        self.change(namespace, |ns| ns.stale_values = Some(ns.pairs.clone()));
    }

    /// Ends [`Kv::freeze_values`].
    pub fn catch_up(&self, namespace: &str) {
        self.change(namespace, |ns| ns.stale_values = None);
    }

    pub fn get(&self, namespace: &str, key: &str) -> Option<Stored> {
        self.locked().namespaces.get(namespace)?.pairs.get(key).cloned()
    }

    /// Writes a key past the API.
    pub fn put(&self, namespace: &str, key: &str, value: &str, metadata: Option<Value>) {
        let stored = Stored { value: value.to_owned(), metadata };
        self.change(namespace, |ns| ns.pairs.insert(key.to_owned(), stored));
    }

    /// Deletes a key past the API. Returns whether it existed.
    pub fn delete(&self, namespace: &str, key: &str) -> bool {
        self.change(namespace, |ns| ns.pairs.remove(key)).is_some()
    }

    /// All keys of a namespace, in the order of their bytes.
    pub fn keys(&self, namespace: &str) -> Vec<String> {
        self.snapshot(namespace).into_keys().collect()
    }

    pub fn snapshot(&self, namespace: &str) -> BTreeMap<String, Stored> {
        let state = self.locked();
        state.namespaces.get(namespace).map(|ns| ns.pairs.clone()).unwrap_or_default()
    }

    /// All requests since the log was cleared, in the order in which they came.
    pub fn log(&self) -> Vec<KvRequest> {
        self.locked().log.requests().to_vec()
    }

    pub fn log_of(&self, verb: KvVerb) -> Vec<KvRequest> {
        let state = self.locked();
        state.log.requests().iter().filter(|request| request.verb == verb).cloned().collect()
    }

    pub fn clear_log(&self) {
        self.locked().log.clear();
    }

    fn change<T>(&self, namespace: &str, change: impl FnOnce(&mut Namespace) -> T) -> T {
        change(self.locked().namespaces.entry(namespace.to_owned()).or_default())
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

/// Cloudflare's address of a namespace on a server.
pub(crate) fn url_template(server: &str) -> String {
    format!("{server}/client/v4/accounts/{{account_id}}/storage/kv/namespaces/{{namespace_id}}")
}
