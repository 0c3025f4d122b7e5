//! The state behind a KV stand-in: its namespaces, its switches and its log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use tokio::sync::{broadcast, watch};

use super::call::Call;
use super::log::KvRequest;
use super::request_limit::RequestLimit;
use super::store::Namespace;
use super::stored::Stored;
use super::write_limit::RapidWrites;
use crate::clock::Clock;
use crate::faults::Faults;
use crate::request_log::{Place, RequestLog};
use crate::sync::lock;

/// What the handle and the requests share.
pub(super) struct Shared {
    pub account: String,
    pub state: Mutex<State>,
    pub faults: Faults,
    pub clock: Clock,
    pub changes: watch::Sender<u64>,
    pub requests: broadcast::Sender<KvRequest>,
    pub inspector: OnceLock<Inspector>,
}

/// Sees the namespace, the key and the content of each pair that is sent.
pub(super) type Inspector = Box<dyn Fn(&str, &str, &Stored) + Send + Sync>;

pub(super) struct State {
    pub tokens: BTreeSet<String>,
    pub namespaces: BTreeMap<String, Namespace>,
    pub log: RequestLog<KvRequest>,
    pub rapid_writes: RapidWrites,
    pub discard: bool,
    pub limit: Option<RequestLimit>,
}

impl Shared {
    /// Tells waiting tasks that something changed.
    pub fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    pub fn inspect(&self, namespace: &str, call: &Call) {
        if let (Some(inspector), Call::Write(writes)) = (self.inspector.get(), call) {
            let pairs = writes.iter().filter_map(|(key, stored)| Some((key, stored.as_ref()?)));
            pairs.for_each(|(key, stored)| inspector(namespace, key, stored));
        }
    }

    /// Logs a request when it comes. The place is for [`Shared::finish`].
    pub fn begin(&self, request: KvRequest) -> Place {
        lock(&self.state).log.begin(request)
    }

    /// Logs how a request ended, and tells the subscribers.
    pub fn finish(&self, place: Place, status: Option<u16>) {
        let mut state = lock(&self.state);
        if let Some(request) = state.log.find(place) {
            request.finished_at = Some(Instant::now());
            request.status = status;
            // Without a listener nobody needs the copy.
            if self.requests.receiver_count() > 0 {
                let _ = self.requests.send(request.clone());
            }
        }
    }
}
