//! Asks the API keys service: once per account and cell, all accounts at the same time.
//!
//! A cell that hangs or fails must not hold up the accounts of the others. Each cell has its own
//! bound of requests under way. [`Gathering::first_wave`] ends as soon as every account has either
//! its answer or a failed first try, and after a few seconds at the latest. What is still being
//! tried then comes with [`Gathering::rest`], which can run beside the write of the first wave.

use std::cell::Cell;
use std::collections::BTreeMap;
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

use crate::export::invocation::{Invocation, OutOfTime, Service};
use crate::export::retry::with_retries;
use crate::ports::{ApiKeyError, ApiKeyService, Retry, Services};

/// Requests under way at once to one cell's gateway. A batch of 200 accounts goes out in one go,
/// and four cells that hang stay below Lambda's 1,024 file descriptors.
pub const MAX_IN_FLIGHT_PER_CELL: usize = 200;

/// How long a batch tries for API keys before it reuses those in KV. A rollback can arrive while the
/// batch before it waits for a gateway that hangs: 20 s for that batch, 10 s for the stream's window
/// and 20 s for its own keep it within a minute.
pub const TIME_FOR_API_KEYS: Duration = Duration::from_secs(20);

/// The same where only late records wait: their gateway has been tried for a minute before.
const TIME_FOR_LATE_API_KEYS: Duration = Duration::from_secs(5);

/// The least time for an account that settling meets after the time is used up: enough for one try.
const TIME_FOR_ONE_TRY: Duration = Duration::from_secs(2);

/// The longest that answered accounts wait for the others' first tries. If the HTTP time-out is
/// shorter, it counts.
const FIRST_WAVE: Duration = Duration::from_secs(5);

/// Whose API key is asked for, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiKeyOwner {
    /// The cell whose gateway is asked.
    pub cell: String,
    /// The account.
    pub account: String,
}

/// For whom an API key is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// Late records alone.
    LateRecords,
    /// A record in time, a re-export or a reconcile.
    Others,
}

impl Waiting {
    fn time(self) -> Duration {
        match self {
            Self::LateRecords => TIME_FOR_LATE_API_KEYS,
            Self::Others => TIME_FOR_API_KEYS,
        }
    }
}

/// What the service answered for each account.
pub type Answers = BTreeMap<ApiKeyOwner, Result<SecretString, ApiKeyError>>;

type Answer = (ApiKeyOwner, Result<SecretString, ApiKeyError>);

/// Requests for API keys that are under way.
pub struct Gathering<'a> {
    answers: FuturesUnordered<LocalBoxFuture<'a, Answer>>,
    first_tries_open: Rc<Cell<usize>>,
    began: Instant,
    first_wave_ends: Instant,
}

impl<'a> Gathering<'a> {
    /// Starts asking; nothing happens until one of the waves is awaited. `used` is the time for which
    /// the batch has asked before.
    pub fn start<S: Services>(
        invocation: &'a Invocation<'_, S>,
        owners: BTreeMap<ApiKeyOwner, Waiting>,
        used: Duration,
    ) -> Self {
        let began = Instant::now();
        let first_tries_open = Rc::new(Cell::new(owners.len()));
        let mut cells: BTreeMap<String, Rc<Semaphore>> = BTreeMap::new();
        let answers = FuturesUnordered::new();
        for (owner, waiting) in owners {
            let left = waiting.time().saturating_sub(used).max(TIME_FOR_ONE_TRY);
            let until = invocation.deadline.min(began + left);
            let permits = cells
                .entry(owner.cell.clone())
                .or_insert_with(|| Rc::new(Semaphore::new(MAX_IN_FLIGHT_PER_CELL)))
                .clone();
            let open = Rc::clone(&first_tries_open);
            let fetch: LocalBoxFuture<'a, Answer> = Box::pin(async move {
                let mut first = true;
                let after_try = || {
                    if std::mem::take(&mut first) {
                        open.set(open.get() - 1);
                    }
                };
                let answer = fetch_api_key(invocation, &owner, || until, &permits, after_try).await;
                (owner, answer)
            });
            answers.push(fetch);
        }
        let first_wave = FIRST_WAVE.min(invocation.config.http_timeout);
        Self { answers, first_tries_open, began, first_wave_ends: began + first_wave }
    }

    /// The answers that come at the first try.
    pub async fn first_wave(&mut self) -> Answers {
        let mut found = Answers::new();
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
        let _ = tokio::time::timeout_at(self.first_wave_ends, wave).await;
        found
    }

    /// All other answers.
    pub async fn rest(&mut self) -> Answers {
        (&mut self.answers).collect().await
    }

    /// How long has been asked.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether every answer is there.
    pub fn is_complete(&self) -> bool {
        self.answers.is_empty()
    }
}

/// Asks for one account's API key, with retries, until `until`, which is asked anew for each try. A
/// permit is held for each try, not for the back-offs between them.
pub async fn fetch_api_key<S: Services>(
    invocation: &Invocation<'_, S>,
    owner: &ApiKeyOwner,
    until: impl Fn() -> Instant,
    permits: &Semaphore,
    mut after_try: impl FnMut(),
) -> Result<SecretString, ApiKeyError> {
    let service = invocation.services.api_keys();
    with_retries(invocation, Service::ApiKeys, &until, async || {
        // The semaphore is never closed.
        let permit = permits.acquire().await.ok();
        let fetch = service.fetch(&owner.cell, &owner.account);
        let answer = invocation.call_until(Service::ApiKeys, until(), fetch).await;
        drop(permit);
        after_try();
        answer.unwrap_or_else(|OutOfTime| Err(no_answer()))
    })
    .await
}

fn no_answer() -> ApiKeyError {
    ApiKeyError::Unavailable {
        reason: "no answer in the time there was for it".to_owned(),
        retry: Retry::After(None),
    }
}
