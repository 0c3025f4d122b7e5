//! The accounts' API keys, asked once per account and cell, all at the same time.
//!
//! A cell that hangs or fails must not hold up the accounts of the others: each cell has its own
//! bound of requests under way, and [`Gathering::first_wave`] ends as soon as every account has
//! either its answer or a failed first try behind it, and after a few seconds at the latest.
//! What is still being tried then comes with [`Gathering::rest`], which can run beside the write
//! of the first wave.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::ports::{ApiKeyError, ApiKeyService, Services, World};
use crate::retry::Retries;
use crate::run::{Run, Service};

/// Requests under way at once to one cell's gateway. A batch of 200 accounts goes out in one go,
/// and four cells that hang stay below Lambda's 1,024 file descriptors.
const MAX_IN_FLIGHT_PER_CELL: usize = 200;

/// How long a batch tries for keys before it reuses those in KV. A rollback can arrive while the
/// batch before it waits for a gateway that hangs: 20 s for that batch, 10 s for the stream's window
/// and 20 s for its own keep it within a minute.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long accounts whose keys are there wait for the others' first tries, at the most; a request's
/// time-out where that is shorter.
const FIRST_WAVE: Duration = Duration::from_secs(5);

/// Whose key is asked for, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyOwner {
    /// The cell whose gateway is asked.
    pub cell: String,
    /// The account.
    pub account: String,
}

/// The keys found, and why the others were not.
pub type ApiKeys = BTreeMap<KeyOwner, Result<SecretString, ApiKeyError>>;

/// Requests for API keys that are under way.
pub struct Gathering<'a> {
    answers: FuturesUnordered<LocalBoxFuture<'a, (KeyOwner, Result<SecretString, ApiKeyError>)>>,
    first_tries_open: Rc<Cell<usize>>,
    wave_ends: Instant,
}

impl<'a> Gathering<'a> {
    /// Starts asking; nothing happens until one of the waves is awaited.
    pub fn start<S: Services>(run: &'a Run<'_, S>, owners: BTreeSet<KeyOwner>) -> Self {
        let now = Instant::now();
        let until = run.deadline.min(now + PATIENCE);
        let first_tries_open = Rc::new(Cell::new(owners.len()));
        let mut cells: BTreeMap<String, Rc<Semaphore>> = BTreeMap::new();
        let answers = FuturesUnordered::new();
        for owner in owners {
            let permits = Rc::clone(
                cells
                    .entry(owner.cell.clone())
                    .or_insert_with(|| Rc::new(Semaphore::new(MAX_IN_FLIGHT_PER_CELL))),
            );
            let open = Rc::clone(&first_tries_open);
            let fetch: LocalBoxFuture<'a, _> = Box::pin(async move {
                let answer = fetch(run, &owner, until, &permits, &open).await;
                (owner, answer)
            });
            answers.push(fetch);
        }
        Self { answers, first_tries_open, wave_ends: now + FIRST_WAVE.min(run.limits.http_timeout) }
    }

    /// The keys that come at the first try, and what is certain of the others.
    pub async fn first_wave(&mut self) -> ApiKeys {
        let mut found = ApiKeys::new();
        let wave = poll_fn(|context| {
            loop {
                match self.answers.poll_next_unpin(context) {
                    Poll::Ready(Some((owner, answer))) => {
                        found.insert(owner, answer);
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending if self.first_tries_open.get() == 0 => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        // At the bound there is nothing to do but to go on with what is there.
        let _ = tokio::time::timeout_at(self.wave_ends, wave).await;
        found
    }

    /// All other answers.
    pub async fn rest(self) -> ApiKeys {
        self.answers.collect().await
    }

    /// Whether every answer is there.
    pub fn is_complete(&self) -> bool {
        self.answers.is_empty()
    }
}

/// Asks for one account's key, with the tries that are allowed.
pub async fn fetch_one<S: Services>(
    run: &Run<'_, S>,
    owner: &KeyOwner,
) -> Result<SecretString, ApiKeyError> {
    let until = run.deadline.min(Instant::now() + PATIENCE);
    fetch(run, owner, until, &Semaphore::new(1), &Cell::new(1)).await
}

async fn fetch<S: Services>(
    run: &Run<'_, S>,
    owner: &KeyOwner,
    until: Instant,
    permits: &Semaphore,
    first_tries_open: &Cell<usize>,
) -> Result<SecretString, ApiKeyError> {
    let service = run.services.api_keys();
    let mut retries = Retries::default();
    let mut first = true;
    loop {
        // A permit is held for one try, not for the back-offs between them; the semaphore is
        // never closed.
        let permit = permits.acquire().await.ok();
        let answer =
            run.call_until(Service::ApiKeys, until, service.fetch(&owner.cell, &owner.account));
        let answer = answer.await;
        drop(permit);
        if std::mem::take(&mut first) {
            first_tries_open.set(first_tries_open.get() - 1);
        }
        let error = match answer {
            Ok(Ok(key)) => return Ok(key),
            Ok(Err(error)) => error,
            Err(_) => return Err(out_of_time()),
        };
        let ApiKeyError::Unavailable { retry: true, retry_after, .. } = &error else {
            return Err(error);
        };
        let chance = run.services.world().chance();
        let Some(delay) = retries.next_delay(run.limits.retry_base, chance, *retry_after) else {
            return Err(error);
        };
        if run.pause(Service::ApiKeys, delay, until).await.is_err() {
            return Err(error);
        }
    }
}

fn out_of_time() -> ApiKeyError {
    ApiKeyError::Unavailable {
        reason: "no answer in the time there was for it".to_owned(),
        retry: false,
        retry_after: None,
    }
}
