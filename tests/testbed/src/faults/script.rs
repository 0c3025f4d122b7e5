//! The rules of a stand-in, and a request served under them.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::fault::Fault;
use super::rule::Rule;
use crate::http::{Outcome, Reply, Request};
use crate::sync::{lock, pause};

/// The rules of one stand-in. Clones share them.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    latency: Duration,
}

impl Faults {
    pub fn add(&self, rule: Rule) {
        self.script().rules.push(rule);
    }

    /// Adds a fault that hits the next request, whatever it is.
    pub fn next(&self, fault: Fault) {
        self.add(Rule::any(fault));
    }

    pub fn clear(&self) {
        self.script().rules.clear();
    }

    /// Makes every request take at least this long.
    pub fn set_latency(&self, latency: Duration) {
        self.script().latency = latency;
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.0)
    }

    /// Serves a request under the rules. `apply` does the work. It gets those faults that only the
    /// stand-in itself can play.
    pub(crate) async fn serve<F>(
        &self,
        request: Request,
        apply: impl FnOnce(Request, Option<Fault>) -> F,
    ) -> Outcome
    where
        F: Future<Output = Reply>,
    {
        let (latency, fault) = {
            let mut script = self.script();
            let latency = script.latency;
            let mut rules = script.rules.iter_mut();
            (latency, rules.find_map(|rule| rule.strike(&request)))
        };
        // Counted from the moment the request was read: reading it is not part of the latency.
        pause((request.received_at + latency).saturating_duration_since(Instant::now())).await;
        let Some(fault) = fault else { return apply(request, None).await.into() };
        match fault {
            Fault::Answer(reply) => reply.into(),
            Fault::Padded(reply, length) => Outcome::Padded(reply, length),
            Fault::Hang => std::future::pending().await,
            Fault::Delay(duration) => {
                pause(duration).await;
                apply(request, None).await.into()
            }
            Fault::DropConnection => Outcome::Drop,
            Fault::ApplyThenDrop => {
                apply(request, None).await;
                Outcome::Drop
            }
            Fault::ApplyThenStatus(code) => {
                apply(request, None).await;
                Reply::html(code).into()
            }
            Fault::TruncatedBody => Outcome::Truncated(apply(request, None).await),
            Fault::HtmlBody => Reply::html(200).into(),
            Fault::WrongJson => Reply::json(200, &serde_json::json!({"status": "ok"})).into(),
            Fault::Before(hook) => {
                hook();
                apply(request, None).await.into()
            }
            Fault::After(hook) => {
                let reply = apply(request, None).await;
                hook();
                reply.into()
            }
            own @ (Fault::Unsuccessful(..) | Fault::Unprocessed(_)) => {
                apply(request, Some(own)).await.into()
            }
        }
    }
}
