//! API keys that are asked for while the table is passed over. A cell that hangs costs its own
//! accounts only: nothing else waits for it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::part::Part;
use super::run::Run;
use crate::export::api_keys::{
    ApiKeyOwner, BATCH_TIME_FOR_API_KEYS, Exportable, MAX_IN_FLIGHT_PER_CELL, fetch_api_key,
};
use crate::export::invocation::Invocation;
use crate::item::ItemKey;
use crate::ports::{ApiKeyError, Services};

/// Settings that are held until their API keys come, in bytes. Past it, the pass waits.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// How long the next step waits for answers that are still to come, before it goes on without them: a
/// gateway that works has answered by then.
const PATIENCE: Duration = Duration::from_secs(1);

/// An index whose keys are compared once its account's API key is known.
pub struct WaitingIndex {
    pub item: ItemKey,
    pub keys: Vec<String>,
    pub index: Exportable,
    /// What it takes, in bytes, roughly.
    pub bytes: usize,
}

/// What the service said for an account, and who has waited for it.
pub struct Answered {
    owner: ApiKeyOwner,
    asked_at: Instant,
    answer: Result<SecretString, ApiKeyError>,
    waiting: Vec<WaitingIndex>,
}

/// Whether every answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerState {
    AllIn,
    SomeOpen,
}

/// A cell's gateway.
struct Gateway {
    permits: Rc<Semaphore>,
    /// When it last said something of an account; else when it was first asked.
    alive_at: Rc<Cell<Instant>>,
    /// Requests that are under way.
    open: usize,
}

/// Requests for API keys that are under way.
pub struct Asks<'a, S> {
    invocation: &'a Invocation<'a, S>,
    answers: FuturesUnordered<LocalBoxFuture<'a, Answered>>,
    gateways: BTreeMap<String, Gateway>,
    waiting: BTreeMap<ApiKeyOwner, Vec<WaitingIndex>>,
    waiting_bytes: usize,
}

impl<'a, S: Services> Asks<'a, S> {
    pub fn new(invocation: &'a Invocation<'a, S>) -> Self {
        Self {
            invocation,
            answers: FuturesUnordered::new(),
            gateways: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
        }
    }

    /// Holds an index until its API key comes, and asks for it if nobody has.
    pub fn wait(&mut self, waiting: WaitingIndex) {
        let owner = waiting.index.owner.clone();
        self.waiting_bytes += waiting.bytes;
        if let Some(others) = self.waiting.get_mut(&owner) {
            return others.push(waiting);
        }
        let now = Instant::now();
        let gateway = self.gateways.entry(owner.cell.clone()).or_insert_with(|| Gateway {
            permits: Rc::new(Semaphore::new(MAX_IN_FLIGHT_PER_CELL)),
            alive_at: Rc::new(Cell::new(now)),
            open: 0,
        });
        if gateway.open == 0 {
            // Nothing was asked of it, so its silence until now says nothing.
            gateway.alive_at.set(now);
        }
        gateway.open += 1;
        let (invocation, permits) = (self.invocation, Rc::clone(&gateway.permits));
        let alive_at = Rc::clone(&gateway.alive_at);
        self.waiting.insert(owner.clone(), vec![waiting]);
        self.answers.push(Box::pin(async move {
            let answer = ask(invocation, &owner, &permits, &alive_at).await;
            Answered { owner, asked_at: now, answer, waiting: Vec::new() }
        }));
    }

    /// The next answer, with those who have waited for it; `None` if none is to come.
    pub async fn next(&mut self) -> Option<Answered> {
        let mut answered = self.answers.next().await?;
        if let Some(gateway) = self.gateways.get_mut(&answered.owner.cell) {
            gateway.open -= 1;
        }
        answered.waiting = self.waiting.remove(&answered.owner).unwrap_or_default();
        self.waiting_bytes -= answered.waiting.iter().map(|index| index.bytes).sum::<usize>();
        Some(answered)
    }

    /// Whether so much waits that nothing more should be read.
    pub fn hold_too_much(&self) -> bool {
        self.waiting_bytes >= MAX_WAITING_BYTES
    }

    /// How many keys wait.
    pub fn waiting_keys(&self) -> u64 {
        let keys = self.waiting.values().flatten().map(|waiting| waiting.keys.len());
        u64::try_from(keys.sum::<usize>()).unwrap_or(u64::MAX)
    }

    /// Whether the gateway has given nothing since it was asked this.
    fn is_silent_since(&self, answered: &Answered) -> bool {
        let gateway = self.gateways.get(&answered.owner.cell);
        gateway.is_some_and(|gateway| gateway.alive_at.get() <= answered.asked_at)
    }
}

/// Asks for an account's API key until the gateway has given nothing to anybody for as long as a batch
/// would ask it.
async fn ask<S: Services>(
    invocation: &Invocation<'_, S>,
    owner: &ApiKeyOwner,
    permits: &Semaphore,
    alive_at: &Cell<Instant>,
) -> Result<SecretString, ApiKeyError> {
    let until = || invocation.deadline.min(alive_at.get() + BATCH_TIME_FOR_API_KEYS);
    let answer = fetch_api_key(invocation, owner, until, permits, || {}).await;
    if !answer.as_ref().is_err_and(ApiKeyError::is_silence) {
        alive_at.set(Instant::now());
    }
    answer
}

impl<'a, S: Services> Run<'a, S> {
    /// Takes in the answers that come soon, and compares who has waited for them.
    pub(super) async fn judge_answered(
        &mut self,
        part: &mut Part,
        asks: &mut Asks<'a, S>,
    ) -> AnswerState {
        let until = Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout_at(until, asks.next()).await {
                Ok(None) => return AnswerState::AllIn,
                Ok(Some(answered)) => self.judge_waiting(part, asks, answered),
                Err(_) => return AnswerState::SomeOpen,
            }
        }
    }

    /// Compares who has waited for an answer.
    pub(super) fn judge_waiting(
        &mut self,
        part: &mut Part,
        asks: &mut Asks<'a, S>,
        answered: Answered,
    ) {
        let is_silence = answered.answer.as_ref().is_err_and(ApiKeyError::is_silence);
        if is_silence && asks.is_silent_since(&answered) {
            self.api_keys.write_off(&answered.owner.cell);
        }
        self.api_keys.note(answered.owner, answered.answer);
        for waiting in answered.waiting {
            self.judge(part, waiting);
        }
    }
}
