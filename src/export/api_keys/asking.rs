//! Asks the API keys service: once per account and cell, all accounts at the same time.
//!
//! A cell that hangs or fails must not hold up the accounts of the others. Each cell has its own
//! bound of requests under way. [`Asking::first_wave`] ends as soon as every account has either its
//! answer or a failed first try, and after a few seconds at the latest. What is still being tried
//! then comes with [`Asking::rest`], which can run beside the write of the first wave.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use secrecy::SecretString;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::ApiKeyOwner;
use super::resolve::ApiKeys;
use crate::export::invocation::{Invocation, OutOfTime, Service};
use crate::export::retry::with_retries;
use crate::ports::{ApiKeyError, ApiKeyService, Cause, Services};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// For so long in all. An account that is met later gets one try.
    InAll(Duration),
    /// For each cell until it has said nothing of any account for so long. It is not asked again then.
    WhileTheCellAnswers(Duration),
}

/// What is done for an index without an API key from the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// The API key that KV holds of this index is used again.
    FromKv,
    /// KV is not looked into: what it holds is what the use case compares.
    Never,
}

/// How long a batch tries for API keys before it reuses those in KV.
pub const BATCH_TIME_FOR_API_KEYS: Duration = Duration::from_secs(20);

/// The same where only late records wait: their gateway has been tried for a minute before.
pub const LATE_TIME_FOR_API_KEYS: Duration = Duration::from_secs(5);

/// The stream's batching window, as the template sets it by default.
const STREAM_WINDOW: Duration = Duration::from_secs(10);

// A rollback can arrive while the batch before it waits for a gateway that hangs. It waits for the rest
// of that batch, for the window and for its own batch, and is through within a minute.
const _: () = assert!(2 * BATCH_TIME_FOR_API_KEYS.as_secs() + STREAM_WINDOW.as_secs() <= 60);

/// The least time for an account that is met after the time is used up: enough for one try.
pub const TIME_FOR_ONE_TRY: Duration = Duration::from_secs(2);

/// The longest that answered accounts wait for the others' first tries. If the HTTP time-out is
/// shorter, it counts.
const FIRST_WAVE: Duration = Duration::from_secs(5);

/// Requests under way at once to one cell's gateway. A batch of 200 accounts goes out in one go,
/// and four cells that hang stay below Lambda's 1,024 file descriptors.
const MAX_IN_FLIGHT_PER_CELL: usize = 200;

const _: () = assert!(4 * MAX_IN_FLIGHT_PER_CELL < 1_024);

type Answer = Result<SecretString, ApiKeyError>;
pub type Answers = BTreeMap<ApiKeyOwner, Answer>;

struct Gateway {
    permits: Semaphore,
    given_up_at: Cell<Instant>,
    /// When the last account's tries ended.
    ended_at: Cell<Instant>,
}

impl Gateway {
    fn wait_at_least(&self, until: Instant) {
        self.given_up_at.set(until.max(self.given_up_at.get()));
    }

    fn note(&self, answer: &Answer, patience: Patience) {
        let now = Instant::now();
        self.ended_at.set(now);
        if let Patience::WhileTheCellAnswers(time) = patience
            && !matches!(answer, Err(ApiKeyError::Silent(_)))
        {
            self.wait_at_least(now + time);
        }
    }
}

pub struct Asking<'a> {
    answers: FuturesUnordered<LocalBoxFuture<'a, (ApiKeyOwner, Answer)>>,
    gateways: BTreeMap<String, Rc<Gateway>>,
    /// Closed when no first try is open any more.
    first_tries: mpsc::Receiver<()>,
    began: Instant,
    first_wave_ends: Instant,
}

impl ApiKeys {
    /// Starts asking for the API keys of these owners, each for so long, or longer if the patience says
    /// so; nothing happens until one of the waves is awaited.
    pub fn start<'a, S: Services>(
        &self,
        invocation: &'a Invocation<'_, S>,
        owners: BTreeMap<ApiKeyOwner, Duration>,
    ) -> Asking<'a> {
        let patience = self.patience;
        let began = Instant::now();
        let (first_try, first_tries) = mpsc::channel(1);
        let mut gateways: BTreeMap<String, Rc<Gateway>> = BTreeMap::new();
        let answers: FuturesUnordered<LocalBoxFuture<'a, _>> = FuturesUnordered::new();
        for (owner, time) in owners {
            let gateway = gateways.entry(owner.cell.clone()).or_insert_with(|| {
                let permits = Semaphore::new(MAX_IN_FLIGHT_PER_CELL);
                let (given_up_at, ended_at) = (Cell::new(began), Cell::new(began));
                Rc::new(Gateway { permits, given_up_at, ended_at })
            });
            gateway.wait_at_least(began + time);
            let (gateway, first_try) = (Rc::clone(gateway), first_try.clone());
            answers.push(Box::pin(async move {
                let answer = fetch(invocation, &owner, &gateway, first_try).await;
                gateway.note(&answer, patience);
                (owner, answer)
            }));
        }
        let first_wave_ends = began + FIRST_WAVE.min(invocation.config.http_timeout);
        Asking { answers, gateways, first_tries, began, first_wave_ends }
    }
}

impl Asking<'_> {
    pub async fn first_wave(&mut self) -> Answers {
        let mut found = Answers::new();
        let answers = async {
            while let Some((owner, answer)) = self.answers.next().await {
                found.insert(owner, answer);
            }
        };
        tokio::select! {
            biased;
            () = answers => {}
            _ = self.first_tries.recv() => {}
            () = tokio::time::sleep_until(self.first_wave_ends) => {}
        }
        found
    }

    pub async fn rest(&mut self) -> Answers {
        (&mut self.answers).collect().await
    }

    pub fn is_complete(&self) -> bool {
        self.answers.is_empty()
    }

    pub fn took(&self) -> Duration {
        let ends = self.gateways.values().map(|gateway| gateway.ended_at.get());
        ends.max().map_or(Duration::ZERO, |end| end - self.began)
    }

    /// How much longer each cell would have been waited for.
    pub fn time_left(&self) -> impl Iterator<Item = (String, Duration)> {
        self.gateways.iter().map(|(cell, gateway)| {
            let left = gateway.given_up_at.get().saturating_duration_since(gateway.ended_at.get());
            (cell.clone(), left)
        })
    }
}

/// Asks for one account's API key, with retries. A permit is held for each try, not for the back-offs
/// between them.
async fn fetch<S: Services>(
    invocation: &Invocation<'_, S>,
    owner: &ApiKeyOwner,
    gateway: &Gateway,
    first_try: mpsc::Sender<()>,
) -> Answer {
    let service = invocation.services.api_keys();
    // The answers for other accounts may move it.
    let until = || gateway.given_up_at.get().min(invocation.deadline);
    let mut first_try = Some(first_try);
    with_retries(invocation, Service::ApiKeys, until, async || {
        // The semaphore is never closed.
        let permit = gateway.permits.acquire().await.ok();
        let fetch = service.fetch(&owner.cell, &owner.account);
        let answer = invocation.call(Service::ApiKeys, until(), fetch).await;
        drop(permit);
        drop(first_try.take());
        answer.unwrap_or_else(|OutOfTime| {
            Err(ApiKeyError::Silent(Cause::new("no answer in the time there was for it")))
        })
    })
    .await
}
