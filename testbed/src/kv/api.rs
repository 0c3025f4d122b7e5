//! Serves requests: log, faults, authentication, then the work.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::call::{Call, Target};
use super::log::{KvRequest, KvVerb};
use super::state::{Shared, State};
use super::store::Namespace;
use super::wire::{self, AUTHENTICATION, BAD_BODY, NAMESPACE_NOT_FOUND, Refusal};
use crate::faults::{Fault, KeyPredicate};
use crate::http::{Outcome, Reply, Request};
use crate::sync::lock;

/// Answers one request.
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
    let status = match &outcome {
        Outcome::Reply(reply) | Outcome::Truncated(reply) | Outcome::Padded(reply, _) => {
            Some(reply.status.as_u16())
        }
        Outcome::Drop => None,
    };
    shared.finish(place, status);
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
        let throttle = state.throttle_writes;
        let Some(namespace) = state.namespaces.get_mut(&target.namespace) else {
            let message = "list keys: 'namespace not found'";
            return Refusal::new(404, NAMESPACE_NOT_FOUND, message).reply();
        };
        match (call, fault) {
            (_, Some(Fault::SuccessFalse)) => {
                wire::failure(200, BAD_BODY, "scripted success: false", None::<()>)
            }
            (Err(refusal), _) => refusal.reply(),
            (Ok(call), Some(Fault::Unsuccessful(fails, status))) => {
                apply(namespace, target, call, throttle, Some((fails, status)))
            }
            (Ok(call), _) => apply(namespace, target, call, throttle, None),
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

fn apply(
    namespace: &mut Namespace,
    target: &Target,
    call: Call,
    throttle: bool,
    failing: Option<(KeyPredicate, u16)>,
) -> Reply {
    let (fails, status) = failing.unzip();
    let fails = |key: &str| fails.as_ref().is_some_and(|fails| fails(key));
    let report = |done: usize, failed: Vec<String>| {
        let bulk = !matches!(target.verb, KvVerb::PutValue | KvVerb::DeleteValue);
        let result = json!({"successful_key_count": done, "unsuccessful_keys": failed});
        match status {
            Some(status @ 400..) => wire::failure(status, BAD_BODY, "not all keys done", result),
            _ if bulk => wire::success(result, None),
            _ => wire::success(json!({}), None),
        }
    };
    match call {
        Call::Put(pairs) => {
            if throttle
                && let Err(refused) = namespace.throttle(pairs.iter().map(|(key, _)| key.as_str()))
            {
                return refused.reply().with("retry-after", "1");
            }
            let (failed, done): (Vec<_>, Vec<_>) =
                pairs.into_iter().partition(|(key, _)| fails(key));
            let reply = report(done.len(), failed.into_iter().map(|(key, _)| key).collect());
            namespace.pairs.extend(done);
            reply
        }
        Call::Discard(pairs) => report(pairs, Vec::new()),
        Call::Delete(keys) => {
            let (failed, done): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| fails(key));
            for key in &done {
                namespace.pairs.remove(key);
            }
            report(done.len(), failed)
        }
        Call::GetBulk(get) => namespace.get_bulk(&get),
        Call::Get(key) => namespace.get(&key),
        Call::List(page) => namespace.list(&page),
    }
}
