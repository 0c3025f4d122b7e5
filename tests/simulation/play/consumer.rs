//! The consumer of a shard: hands batches to the exporter, again where they are not done with.

use std::ops::Range;
use std::time::Duration;

use tokio::time::sleep;

use super::sim::{End, Sim};
use crate::checks::answers;
use crate::world::{Invocation, Kind, Shard, State, told};

/// After this many invocations of an environment, a history must have come to rest.
const MAX_INVOCATIONS: usize = 300;

/// How many seconds a consumer may be stopped for.
const STOPS: [u64; 3] = [45, 70, 600];
/// How long it is stopped in small worlds.
const WAIT: Duration = Duration::from_secs(70);

impl Sim {
    pub async fn consumer(&self, environment: usize, shard: usize) {
        while !self.is_over() {
            let batch = self.next_batch(environment, shard);
            let Some(batch) = batch else {
                self.changed.notified().await;
                continue;
            };
            let stop = stop(&mut self.state.borrow_mut());
            sleep(stop).await;
            let began = self.state.borrow().now();
            let pause = self.pause();
            sleep(Duration::from_millis(pause)).await;
            let done = self.deliver(environment, shard, batch).await;
            {
                let mut state = self.state.borrow_mut();
                let state = &mut *state;
                let most = MAX_INVOCATIONS * state.environments.len();
                let now = state.now();
                let Shard { checkpoint, .. } = &mut state.environments[environment].shards[shard];
                // No time can be promised while invocations die.
                if done.is_none() {
                    state.stops.push((began, now));
                }
                *checkpoint += done.unwrap_or_default();
                if state.invocations.len() > most {
                    let rule = "every batch is done with in the end";
                    let problem = format!("shard {shard} stands at {checkpoint}");
                    state.violate(rule, problem);
                }
            }
            self.changed.notify_waiters();
        }
        self.changed.notify_waiters();
    }

    /// Returns the next records of the shard. Batches are cut anywhere, repeated ones in halves or otherwise.
    fn next_batch(&self, environment: usize, shard: usize) -> Option<Range<usize>> {
        let mut state = self.state.borrow_mut();
        let Shard { records, checkpoint } = &state.environments[environment].shards[shard];
        let (start, waiting) = (*checkpoint, records.len() - checkpoint);
        if waiting == 0 {
            return None;
        }
        let most = waiting.min(state.shape.max_batch as usize);
        // The plainest choice takes all there is.
        let less = state.choices.below(u32::try_from(most).unwrap()) as usize;
        Some(start..start + most - less)
    }

    /// Hands a batch to the exporter. Returns how many of its records are done; `None` where no answer
    /// comes.
    async fn deliver(
        &self,
        environment: usize,
        shard: usize,
        batch: Range<usize>,
    ) -> Option<usize> {
        let (payload, run) = {
            let state = self.state.borrow();
            let own = &state.environments[environment];
            let records = &own.shards[shard].records[batch.clone()];
            let json: Vec<&str> = records.iter().map(|record| record.json.as_str()).collect();
            let run = Invocation {
                environment,
                kind: Kind::Stream { shard, batch: batch.clone() },
                batch: told(records, state.wall_clock()),
                ..Invocation::default()
            };
            (format!(r#"{{"Records":[{}]}}"#, json.join(",")), run)
        };
        let name = self.state.borrow().environments[environment].name;
        let what = format!("{name}: shard {shard} delivers {batch:?}");
        let (invocation, end) = self.invoke(&payload, run, &what).await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let End::Answered(handled) = end else { return None };
        let done = answers::stream(state, invocation, shard, batch, &handled);
        let may_be_lost = state.shape.small.is_none() && state.shape.faults > 0;
        if may_be_lost && state.choices.one_in(12) {
            state.shape.faults -= 1;
            state.note(|| format!("  [{invocation}] the answer is lost"));
            return None;
        }
        Some(done)
    }
}

/// Returns how long the consumer is stopped before a delivery.
fn stop(state: &mut State) -> Duration {
    let stop = if let Some(small) = &mut state.shape.small {
        if small.waits == 0 || state.choices.below(2) == 0 {
            return Duration::ZERO;
        }
        small.waits -= 1;
        WAIT
    } else if state.shape.stops && state.choices.below(8) == 1 {
        Duration::from_secs(*state.choices.pick(&STOPS))
    } else {
        return Duration::ZERO;
    };
    let now = state.now();
    state.stops.push((now, now + stop));
    state.note(|| format!("a consumer is stopped for {stop:?}"));
    stop
}
