//! One history: the tables' writers, a consumer for each shard and the operators, all at once on a
//! paused clock.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::sleep;

use super::sim::Sim;
use crate::checks::receipts::Log;
use crate::checks::{in_time, receipts, reconciled, settled};
use crate::choices::Choices;
use crate::world::{MAX_AGE, Reconcile, Shape, State, fire, prepare};

/// Operators of an environment at the same time.
const OPERATORS: usize = 2;

/// Runs a history to its end and checks what it leaves.
pub fn run(mut choices: Choices, shape: impl FnOnce(&mut Choices) -> Shape, trace: bool) -> State {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let shape = shape(&mut choices);
    let log = Log::default();
    let _capture = tracing::subscriber::set_default(log.clone());
    runtime.block_on(async {
        let mut state = State::new(choices, shape);
        state.trace = trace.then(Vec::new);
        state.note(|| String::from("start"));
        prepare(&mut state);
        state.prepared = state.step;
        let sim = Sim { state: Rc::new(RefCell::new(state)), changed: Rc::default() };
        sim.play().await;
        let mut state = Rc::into_inner(sim.state).unwrap().into_inner();
        if !state.shape.reconciles {
            settled::check(&mut state);
        }
        receipts::check(&mut state, &log);
        if state.shape.brisk {
            in_time::check(&mut state);
        }
        state
    })
}

type Actor<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

impl Sim {
    async fn play(&self) {
        let shards: Vec<usize> =
            self.state.borrow().environments.iter().map(|own| own.shards.len()).collect();
        let mut actors: FuturesUnordered<Actor<'_>> = FuturesUnordered::new();
        actors.push(Box::pin(self.writer()));
        for (environment, shards) in shards.into_iter().enumerate() {
            for shard in 0..shards {
                actors.push(Box::pin(self.consumer(environment, shard)));
            }
            for _ in 0..OPERATORS {
                actors.push(Box::pin(self.operator(environment)));
            }
        }
        actors.push(Box::pin(self.stragglers()));
        while actors.next().await.is_some() {}
        drop(actors);
        let stragglers: Vec<_> = std::mem::take(&mut self.state.borrow_mut().stragglers);
        for (_, changes) in stragglers {
            self.state.borrow_mut().land(changes);
        }
        if self.state.borrow().shape.reconciles {
            self.last_reconciles().await;
        }
    }

    /// When nothing happens and nothing fails any more, one reconcile repairs everything whose brakes are
    /// raised. Where two environments share KV, a key that one of them gives up is for the other's next.
    async fn last_reconciles(&self) {
        self.state.borrow_mut().quiet = true;
        if self.state.borrow().violation.is_some() {
            return;
        }
        sleep(MAX_AGE + Duration::from_secs(1)).await;
        let environments = self.state.borrow().environments.len();
        let rounds = if environments == 1 { 1 } else { 2 };
        for environment in (0..rounds).flat_map(|_| 0..environments) {
            let raised = Reconcile {
                delete_up_to: Some(1_000),
                rewrite_up_to: Some(2_000),
                ..Reconcile::repair()
            };
            self.reconcile(environment, &raised).await;
        }
        reconciled::check(&mut self.state.borrow_mut());
    }

    /// Lets requests land after their clients gave up.
    async fn stragglers(&self) {
        while !self.is_over() {
            let (now, next) = {
                let state = self.state.borrow();
                (state.now(), state.stragglers.iter().map(|(at, _)| *at).min())
            };
            match next {
                None => self.changed.notified().await,
                Some(at) if at > now => sleep(at - now).await,
                Some(at) => {
                    let mut state = self.state.borrow_mut();
                    let due = state.stragglers.iter().position(|(when, _)| *when == at);
                    let changes = due.map(|due| state.stragglers.swap_remove(due).1);
                    state.land(changes.unwrap_or_default());
                }
            }
        }
    }

    async fn writer(&self) {
        while !self.is_over() {
            // The plainest choice lets everything come to rest before the next event.
            let at_once = {
                let mut state = self.state.borrow_mut();
                let options = if state.shape.small.is_some() { 2 } else { 4 };
                !state.is_drained() && state.choices.below(options) > 0
            };
            if at_once {
                sleep(Duration::from_millis(self.pause())).await;
            } else {
                while !self.state.borrow().is_drained() && !self.is_over() {
                    self.changed.notified().await;
                }
            }
            fire(&mut self.state.borrow_mut());
            self.changed.notify_waiters();
            if self.state.borrow().events_left == 0 {
                return;
            }
        }
    }

    /// Returns how many milliseconds someone waits before the next action.
    pub fn pause(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        if state.shape.is_plain() { 0 } else { *state.choices.pick(&[0, 2, 50, 900, 9_000]) }
    }
}
