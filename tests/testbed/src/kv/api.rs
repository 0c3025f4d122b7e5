//! Serves requests: log, faults, authentication, then the work.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::json;

use super::call::{Call, Target, Write};
use super::log::KvRequest;
use super::namespace::Namespace;
use super::wire::{self, AUTHENTICATION, BAD_BODY, NAMESPACE_NOT_FOUND, RATE_LIMIT, Refusal};
use super::{Shared, State};
use crate::faults::{Fault, KeyPredicate};
use crate::http::{Outcome, Reply, Request};
use crate::sync::lock;

pub(super) async fn handle(shared: Arc<Shared>, request: Request) -> Outcome {
    let target = match Target::of(&request) {
        Ok(target) => target,
        Err(refusal) => return refusal.reply().into(),
    };
    let call = Call::read(&target, &request);
    if let (Some(inspector), Ok(Call::Write(writes))) = (shared.inspector.get(), &call) {
        let pairs = writes.iter().filter_map(|(key, stored)| Some((key, stored.as_ref()?)));
        pairs.for_each(|(key, stored)| inspector(&target.namespace, key, stored));
    }
    let keys = call.as_ref().map(Call::keys).unwrap_or_default();
    let place = lock(&shared.state).log.begin(KvRequest {
        verb: target.verb,
        namespace: target.namespace.clone(),
        keys,
        body_bytes: request.body.len(),
        received_at: Instant::now(),
        finished_at: None,
        status: None,
    });
    let work = async |request: Request, fault| shared.serve(&target, &request, call, fault);
    let outcome = shared.faults.serve(request, work).await;
    if let Some(request) = lock(&shared.state).log.find(place) {
        request.finished_at = Some(Instant::now());
        request.status = outcome.reply().map(|reply| reply.status.as_u16());
    }
    outcome
}

impl Shared {
    fn serve(
        &self,
        target: &Target,
        request: &Request,
        call: Result<Call, Refusal>,
        fault: Option<Fault>,
    ) -> Reply {
        let mut state = lock(&self.state);
        if !self.admits(&state, target, request) {
            return Refusal::new(403, AUTHENTICATION, "Authentication error").reply();
        }
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
            Ok(Call::Write(writes)) => write(namespace, writes, self.clock.now(), failing),
            Ok(Call::GetBulk(get)) => namespace.get_bulk(&get),
            Ok(Call::List(page)) => namespace.list(&page),
        }
    }

    fn admits(&self, state: &State, target: &Target, request: &Request) -> bool {
        let sent = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        sent == Some(&state.token) && target.account == self.account
    }
}

/// Carries out a bulk write or delete, but for the keys that come too soon or are picked to fail.
fn write(
    namespace: &mut Namespace,
    writes: Vec<Write>,
    now: SystemTime,
    failing: Option<(KeyPredicate, u16)>,
) -> Reply {
    let (fails, failing_status) = failing.unzip();
    let (mut done, mut failed, mut too_soon) = (0, Vec::new(), false);
    for (key, content) in writes {
        if fails.as_ref().is_some_and(|fails| fails(&key)) {
            failed.push(key);
        } else if namespace.write(&key, content, now) {
            done += 1;
        } else {
            too_soon = true;
            failed.push(key);
        }
    }
    let result = json!({"successful_key_count": done, "unsuccessful_keys": failed});
    match failing_status {
        Some(status @ 400..) => wire::failure(status, BAD_BODY, "not all keys done", result),
        None if too_soon => wire::failure(429, RATE_LIMIT, "too many writes to a key", result),
        _ => wire::success(result, None),
    }
}
