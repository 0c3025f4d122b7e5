//! Serves requests: log, faults, authentication, then the work.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::json;

use super::call::{Call, Target, Write};
use super::log::KvRequest;
use super::namespace::{Namespace, Stored};
use super::throttle::RapidWrites;
use super::wire::{self, AUTHENTICATION, BAD_BODY, NAMESPACE_NOT_FOUND, RATE_LIMIT, Refusal};
use super::{Shared, State};
use crate::faults::{Fault, KeyPredicate};
use crate::http::{Outcome, Reply, Request};
use crate::request_log::Place;
use crate::sync::lock;

pub(super) async fn handle(shared: Arc<Shared>, request: Request) -> Outcome {
    let target = match Target::of(&request) {
        Ok(target) => target,
        Err(refusal) => return refusal.reply().into(),
    };
    let call = Call::read(&target, &request);
    shared.inspect(&target.namespace, &call);
    let keys = call.as_ref().map(Call::keys).unwrap_or_default();
    let place = lock(&shared.state).log.begin(KvRequest {
        verb: target.verb,
        namespace: target.namespace.clone(),
        pairs: keys.len(),
        keys,
        body_bytes: request.body.len(),
        query: request.query.clone(),
        received_at: Instant::now(),
        finished_at: None,
        status: None,
    });
    let work = async |request: Request, fault| {
        let reply = shared.serve(&target, &request, call, fault);
        if target.verb.writes() {
            shared.changed();
        }
        reply
    };
    let outcome = shared.faults.serve(request, work).await;
    shared.finish(place, outcome.reply().map(|reply| reply.status.as_u16()));
    outcome
}

impl Shared {
    /// Shows the pairs of a write to the inspector.
    fn inspect(&self, namespace: &str, call: &Result<Call, Refusal>) {
        if let (Some(inspector), Ok(Call::Write(writes))) = (self.inspector.get(), call) {
            let pairs = writes.iter().filter_map(|(key, stored)| Some((key, stored.as_ref()?)));
            pairs.for_each(|(key, stored): (_, &Stored)| inspector(namespace, key, stored));
        }
    }

    /// Logs how a request ended, and tells the subscribers.
    fn finish(&self, place: Place, status: Option<u16>) {
        if let Some(request) = lock(&self.state).log.find(place) {
            request.finished_at = Some(Instant::now());
            request.status = status;
            // Without a listener nobody needs the copy.
            if self.requests.receiver_count() > 0 {
                let _ = self.requests.send(request.clone());
            }
        }
    }

    fn serve(
        &self,
        target: &Target,
        request: &Request,
        call: Result<Call, Refusal>,
        fault: Option<Fault>,
    ) -> Reply {
        let mut state = lock(&self.state);
        if let Some(refusal) = state.limit.as_mut().and_then(|limit| limit.refuse()) {
            return refusal;
        }
        if !self.admits(&state, target, request) {
            return Refusal::new(403, AUTHENTICATION, "Authentication error").reply();
        }
        let rapid_writes = state.rapid_writes;
        let Some(namespace) = state.namespaces.get_mut(&target.namespace) else {
            let message = "list keys: 'namespace not found'";
            return Refusal::new(404, NAMESPACE_NOT_FOUND, message).reply();
        };
        let failing = match fault {
            Some(Fault::Unsuccessful(fails, status)) => Some((fails, status)),
            _ => None,
        };
        match call {
            Err(refusal) => refusal.reply(),
            Ok(Call::Write(writes)) => {
                write(namespace, writes, rapid_writes, self.clock.now(), failing)
            }
            Ok(Call::GetBulk(get)) => namespace.get_bulk(&get),
            Ok(Call::Get(key)) => namespace.get(&key),
            Ok(Call::List(page)) => namespace.list(&page),
        }
    }

    fn admits(&self, state: &State, target: &Target, request: &Request) -> bool {
        let sent = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        sent == Some(&state.token) && target.account == self.account
    }
}

/// Carries out a bulk write or delete, but for the keys that are written too soon or picked to fail.
fn write(
    namespace: &mut Namespace,
    writes: Vec<Write>,
    rapid_writes: RapidWrites,
    now: SystemTime,
    failing: Option<(KeyPredicate, u16)>,
) -> Reply {
    let (fails, failing_status) = failing.unzip();
    let is_rapid = |key: &str| namespace.written.is_recent(key, now);
    let any_rapid = writes.iter().any(|(key, _)| is_rapid(key));
    let (limited, retry_after) = match rapid_writes {
        RapidWrites::RefusedWhole { retry_after } if any_rapid => {
            let refusal = Refusal::new(429, RATE_LIMIT, "too many writes to a key");
            return asked_to_wait(refusal.reply(), retry_after);
        }
        RapidWrites::RefusedByKey { status, retry_after } if any_rapid => {
            (Some(status), retry_after)
        }
        _ => (None, false),
    };
    let (failed, done): (Vec<_>, Vec<_>) = writes.into_iter().partition(|(key, _)| {
        limited.is_some() && is_rapid(key) || fails.as_ref().is_some_and(|fails| fails(key))
    });
    namespace.written.note(done.iter().map(|(key, _)| key), now);
    let count = done.len();
    for (key, content) in done {
        match content {
            Some(stored) => namespace.pairs.insert(key, stored),
            None => namespace.pairs.remove(&key),
        };
    }
    let failed: Vec<String> = failed.into_iter().map(|(key, _)| key).collect();
    let result = json!({"successful_key_count": count, "unsuccessful_keys": failed});
    let reply = match failing_status.or(limited).unwrap_or(200) {
        429 => wire::failure(429, RATE_LIMIT, "too many writes to a key", result),
        status @ 400.. => wire::failure(status, BAD_BODY, "not all keys done", result),
        _ => wire::success(result, None),
    };
    asked_to_wait(reply, retry_after)
}

fn asked_to_wait(reply: Reply, retry_after: bool) -> Reply {
    if retry_after { reply.with("retry-after", "1") } else { reply }
}
