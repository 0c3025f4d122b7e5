//! Serves requests: log, faults, authentication, then the work.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::json;

use super::call::{Call, Target, Write};
use super::log::{KvRequest, KvVerb};
use super::state::{Shared, State};
use super::store::Namespace;
use super::wire::{self, AUTHENTICATION, BAD_BODY, NAMESPACE_NOT_FOUND, RATE_LIMIT, Refusal};
use super::write_limit::RapidWrites;
use crate::faults::{Fault, KeyPredicate};
use crate::http::{Outcome, Reply, Request};
use crate::sync::lock;

pub(super) async fn handle(shared: Arc<Shared>, request: Request) -> Outcome {
    let Some(target) = Target::of(&request) else {
        return Target::missing(&request).reply().into();
    };
    let discard = lock(&shared.state).discard;
    let call = Call::read(&target, &request, discard);
    if let Ok(call) = &call {
        shared.inspect(&target.namespace, call);
    }
    let place = shared.begin(KvRequest {
        verb: target.verb,
        namespace: target.namespace.clone(),
        keys: call.as_ref().map(Call::keys).unwrap_or_default(),
        pairs: call.as_ref().map_or(0, Call::len),
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
    fn serve(
        &self,
        target: &Target,
        request: &Request,
        call: Result<Call, Refusal>,
        fault: Option<Fault>,
    ) -> Reply {
        let mut state = lock(&self.state);
        if let Some(limit) = &mut state.limit
            && let Some(refusal) = limit.refuse()
        {
            return limit.announce(refusal);
        }
        let limit = state.limit;
        let reply = self.answer(&mut state, target, request, call, fault);
        match limit {
            Some(limit) => limit.announce(reply),
            None => reply,
        }
    }

    fn answer(
        &self,
        state: &mut State,
        target: &Target,
        request: &Request,
        call: Result<Call, Refusal>,
        fault: Option<Fault>,
    ) -> Reply {
        if let Err(refusal) = self.admit(state, target, request) {
            return refusal.reply();
        }
        let rapid_writes = state.rapid_writes;
        let now = self.clock.now();
        let Some(namespace) = state.namespaces.get_mut(&target.namespace) else {
            let message = "list keys: 'namespace not found'";
            return Refusal::new(404, NAMESPACE_NOT_FOUND, message).reply();
        };
        let call = match call {
            Ok(call) => call,
            Err(refusal) => return refusal.reply(),
        };
        let failing = match fault {
            Some(Fault::Unsuccessful(fails, status)) => Some((fails, status)),
            _ => None,
        };
        match call {
            Call::Write(writes) => {
                Writing { namespace, target, rapid_writes, now }.apply(writes, failing)
            }
            Call::Discard(pairs) => report(target, 200, pairs, &[]),
            Call::GetBulk(get) => namespace.get_bulk(&get),
            Call::Get(key) => namespace.get(&key),
            Call::List(page) => namespace.list(&page),
        }
    }

    fn admit(&self, state: &State, target: &Target, request: &Request) -> Result<(), Refusal> {
        let sent = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let known = sent.is_some_and(|token| state.tokens.contains(token));
        if !known || target.account != self.account {
            return Err(Refusal::new(403, AUTHENTICATION, "Authentication error"));
        }
        Ok(())
    }
}

struct Writing<'a> {
    namespace: &'a mut Namespace,
    target: &'a Target,
    rapid_writes: RapidWrites,
    now: SystemTime,
}

impl Writing<'_> {
    fn apply(self, writes: Vec<Write>, failing: Option<(KeyPredicate, u16)>) -> Reply {
        let Self { namespace, target, rapid_writes, now } = self;
        let is_rapid = |key: &str| {
            rapid_writes != RapidWrites::Allowed && namespace.written.is_recent(key, now)
        };
        let rapid: BTreeSet<String> =
            writes.iter().map(|(key, _)| key).filter(|key| is_rapid(key)).cloned().collect();
        let (limited, retry_after) = match rapid_writes {
            _ if rapid.is_empty() => (None, false),
            RapidWrites::RefusedWhole { retry_after } => {
                let refusal = Refusal::new(429, RATE_LIMIT, "too many writes to a key");
                return asked_to_wait(refusal.reply(), retry_after);
            }
            RapidWrites::RefusedByKey { status, retry_after } => (Some(status), retry_after),
            RapidWrites::Allowed => (None, false),
        };
        let (fails, failing_status) = failing.unzip();
        let fails = |key: &String| fails.as_ref().is_some_and(|fails| fails(key));
        let (failed, done): (Vec<_>, Vec<_>) =
            writes.into_iter().partition(|(key, _)| rapid.contains(key) || fails(key));
        namespace.written.note(done.iter().map(|(key, _)| key), now);
        let count = done.len();
        for (key, content) in done {
            match content {
                Some(stored) => namespace.pairs.insert(key, stored),
                None => namespace.pairs.remove(&key),
            };
        }
        let failed: Vec<String> = failed.into_iter().map(|(key, _)| key).collect();
        let status = failing_status.or(limited).unwrap_or(200);
        asked_to_wait(report(target, status, count, &failed), retry_after)
    }
}

fn asked_to_wait(reply: Reply, retry_after: bool) -> Reply {
    if retry_after { reply.with("retry-after", "1") } else { reply }
}

/// What became of the keys of a write or a delete.
fn report(target: &Target, status: u16, done: usize, failed: &[String]) -> Reply {
    let result = json!({"successful_key_count": done, "unsuccessful_keys": failed});
    let bulk = !matches!(target.verb, KvVerb::PutValue | KvVerb::DeleteValue);
    match status {
        429 if !bulk => Refusal::new(429, RATE_LIMIT, "too many writes to the key").reply(),
        429 => wire::failure(status, RATE_LIMIT, "too many writes to a key", result),
        400.. => wire::failure(status, BAD_BODY, "not all keys done", result),
        _ if bulk => wire::success(result, None),
        _ => wire::success(json!({}), None),
    }
}
