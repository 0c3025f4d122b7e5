//! One history: the writer of the table, a consumer for each shard, and the operators, all at the
//! same time on a paused clock.

use std::cell::RefCell;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep};

use crate::choices::Choices;
use crate::events::fire;
use crate::shape::Shape;
use crate::sim::{End, Sim};
use crate::state::{Invocation, Shard, State};
use crate::{answers, reconciled, settled};

/// After this many invocations, a history must have come to rest.
const MAX_INVOCATIONS: usize = 200;

/// Operators who re-export at the same time.
const OPERATORS: usize = 2;

/// Runs a history to its end and checks what it leaves.
pub fn run(
    mut choices: Choices,
    shape: impl FnOnce(&mut Choices) -> Shape,
    setup: impl FnOnce(&mut State),
    trace: bool,
) -> State {
    let shape = shape(&mut choices);
    let shards = (0..shape.shards).map(|_| Shard::default()).collect();
    let mut state = State::new(choices, shape, shards);
    state.trace = trace.then(Vec::new);
    state.note(|| String::from("start"));
    setup(&mut state);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let world = Rc::new(Sim {
        state: Rc::new(RefCell::new(state)),
        changed: Rc::default(),
        began: None.into(),
    });
    runtime.block_on(world.play());
    drop(runtime);
    let world = Rc::into_inner(world).unwrap();
    let mut state = Rc::into_inner(world.state).unwrap().into_inner();
    if !state.shape.reconciles {
        settled::check(&mut state);
    }
    state
}

type Actor<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

impl Sim {
    async fn play(&self) {
        *self.began.borrow_mut() = Some(Instant::now());
        let shards = self.state.borrow().shards.len();
        let mut actors: FuturesUnordered<Actor<'_>> = FuturesUnordered::new();
        actors.push(Box::pin(self.writer()));
        for shard in 0..shards {
            actors.push(Box::pin(self.consumer(shard)));
        }
        actors.push(Box::pin(self.late_requests()));
        for _ in 0..OPERATORS {
            actors.push(Box::pin(self.operator()));
        }
        while actors.next().await.is_some() {}
        drop(actors);
        let late: Vec<_> = std::mem::take(&mut self.state.borrow_mut().late);
        for changes in late {
            self.state.borrow_mut().land(changes);
        }
        if self.state.borrow().shape.reconciles {
            self.last_reconcile().await;
        }
    }

    /// When nothing happens and nothing fails any more, one reconcile repairs everything.
    pub async fn last_reconcile(&self) {
        self.state.borrow_mut().quiet = true;
        if self.state.borrow().violation.is_none() {
            self.reconcile(true).await;
            reconciled::check(&mut self.state.borrow_mut());
        }
    }

    /// Lets requests land after their clients gave up.
    async fn late_requests(&self) {
        while !self.is_over() {
            self.changed.notified().await;
            sleep(Duration::from_millis(self.pause())).await;
            let mut state = self.state.borrow_mut();
            // In named cases they land at the very end.
            if state.shape.scripted {
                return;
            }
            if let Some(changes) = state.late.pop() {
                state.land(changes);
            }
        }
    }

    async fn writer(&self) {
        while !self.is_over() {
            // The plainest choice lets everything come to rest before the next event.
            let at_once = {
                let mut state = self.state.borrow_mut();
                let options = if state.shape.small { 2 } else { 4 };
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

    fn pause(&self) -> u64 {
        let mut state = self.state.borrow_mut();
        if state.shape.small { 0 } else { *state.choices.pick(&[0, 2, 50, 900, 9_000]) }
    }

    async fn consumer(&self, shard: usize) {
        while !self.is_over() {
            let batch = self.next_batch(shard);
            let Some(batch) = batch else {
                self.changed.notified().await;
                continue;
            };
            let pause = self.pause();
            sleep(Duration::from_millis(pause)).await;
            let done = self.deliver(shard, batch.clone()).await;
            {
                let mut state = self.state.borrow_mut();
                state.shards[shard].checkpoint = batch.start + done;
                if state.invocations.len() > MAX_INVOCATIONS {
                    let rule = "every batch is done with in the end";
                    state.violate(rule, format!("shard {shard} stands at {}", batch.start));
                }
            }
            self.changed.notify_waiters();
        }
        self.changed.notify_waiters();
    }

    fn next_batch(&self, shard: usize) -> Option<Range<usize>> {
        let mut state = self.state.borrow_mut();
        let Shard { records, checkpoint } = &state.shards[shard];
        let (start, waiting) = (*checkpoint, records.len() - checkpoint);
        if waiting == 0 {
            return None;
        }
        let most = waiting.min(state.shape.max_batch as usize);
        // The plainest choice takes all there is.
        let less = state.choices.below(u32::try_from(most).unwrap()) as usize;
        Some(start..start + most - less)
    }

    /// Hands a batch to the exporter. Returns how many of its records are done.
    async fn deliver(&self, shard: usize, batch: Range<usize>) -> usize {
        let (payload, images) = {
            let state = self.state.borrow();
            let records = &state.shards[shard].records[batch.clone()];
            let json: Vec<&str> = records.iter().map(|record| record.json.as_str()).collect();
            let images = records.iter().filter_map(|record| record.new.as_ref()?.settings());
            let images = images.map(|settings| settings.version).collect();
            (format!(r#"{{"Records":[{}]}}"#, json.join(",")), images)
        };
        let run = Invocation { is_stream: true, images, ..Invocation::default() };
        let what = format!("shard {shard} delivers {batch:?}");
        let (invocation, end) = self.invoke(&payload, run, &what).await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let End::Answered(handled) = end else { return 0 };
        let done = answers::stream(state, invocation, shard, batch, &handled);
        let lost = !state.shape.small && state.choices.one_in(12);
        if lost && state.shape.faults > 0 {
            state.shape.faults -= 1;
            state.note(|| format!("  [{invocation}] the answer is lost"));
            return 0;
        }
        done
    }
}
