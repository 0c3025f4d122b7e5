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
use crate::checks::{in_time, settled};
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
    runtime.block_on(async {
        let mut state = State::new(choices, shape);
        state.trace = trace.then(Vec::new);
        let old_images = state.shape.old_images;
        state.note(|| format!("start, old images {old_images}"));
        prepare(&mut state);
        state.prepared = state.step;
        let sim = Sim { state: Rc::new(RefCell::new(state)), changed: Rc::default() };
        sim.play().await;
        sim.repair().await;
        Rc::into_inner(sim.state).unwrap().into_inner()
    })
}

type Actor<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

impl Sim {
    /// Lets everything happen, until nothing is left to.
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
        let mut state = self.state.borrow_mut();
        for (_, changes) in std::mem::take(&mut state.stragglers) {
            state.land(changes);
        }
        in_time::check(&mut state);
        let is_at_rest = !state.shape.reconciles && !state.needs_repair;
        if is_at_rest {
            state.count("histories compared before a repair", 1);
            settled::check(&mut state, false);
        }
    }

    /// When nothing happens and nothing fails any more, one reconcile repairs everything whose brakes are
    /// raised. Where two environments share KV, a key that one of them gives up is for the other's next.
    async fn repair(&self) {
        if self.state.borrow().violation.is_some() {
            return;
        }
        self.state.borrow_mut().quiet = true;
        sleep(MAX_AGE + Duration::from_secs(1)).await;
        let environments = self.state.borrow().environments.len();
        for environment in (0..environments).flat_map(|_| 0..environments) {
            let raised = Reconcile {
                delete_up_to: Some(1_000),
                rewrite_up_to: Some(2_000),
                ..Reconcile::repair()
            };
            self.reconcile(environment, &raised).await;
        }
        settled::check(&mut self.state.borrow_mut(), true);
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
                    let due = state.stragglers.iter().position(|(when, _)| *when == at).unwrap();
                    let (_, changes) = state.stragglers.swap_remove(due);
                    state.land(changes);
                }
            }
        }
    }

    async fn writer(&self) {
        while !self.is_over() {
            // The plainest choice lets everything come to rest before the next event.
            let at_once = {
                let mut state = self.state.borrow_mut();
                let options = if state.shape.is_small() { 2 } else { 4 };
                !state.is_drained() && state.choices.below(options) > 0
            };
            if at_once {
                self.pause().await;
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

    /// Waits before somebody's next action.
    pub async fn pause(&self) {
        let milliseconds = {
            let mut state = self.state.borrow_mut();
            let pauses = state.shape.pauses;
            *state.choices.pick(pauses)
        };
        sleep(Duration::from_millis(milliseconds)).await;
    }
}
