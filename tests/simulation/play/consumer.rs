//! The consumer of a shard: hands batches to the exporter, again where they are not done with.

use std::ops::Range;
use std::time::Duration;

use tokio::time::sleep;

use super::sim::Sim;
use crate::checks;
use crate::world::{Invocation, Kind, Shard, State};

/// After this many invocations of an environment, a history must have come to rest.
const MAX_INVOCATIONS: usize = 300;

impl Sim {
    pub async fn consumer(&self, environment: usize, shard: usize) {
        while !self.is_over() {
            let Some(batch) = self.next_batch(environment, shard) else {
                self.changed.notified().await;
                continue;
            };
            let stop = stop(&mut self.state.borrow_mut());
            sleep(stop).await;
            let began = self.state.borrow().now();
            self.pause().await;
            let done = self.deliver(environment, shard, batch).await;
            {
                let mut state = self.state.borrow_mut();
                let state = &mut *state;
                let now = state.now();
                let most = MAX_INVOCATIONS * state.environments.len();
                let Shard { checkpoint, .. } = &mut state.environments[environment].shards[shard];
                // No time can be promised while invocations die.
                if done.is_none() {
                    state.stops.push((began, now));
                }
                *checkpoint += done.unwrap_or_default();
                if state.invocations.len() > most {
                    let problem = format!("shard {shard} stands at {checkpoint}");
                    state.violate("every batch is done with in the end", problem);
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
    async fn deliver(&self, at: usize, shard: usize, batch: Range<usize>) -> Option<usize> {
        let (payload, run) = {
            let state = self.state.borrow();
            let records = &state.environments[at].shards[shard].records[batch.clone()];
            let json: Vec<&str> = records.iter().map(|record| record.json.as_str()).collect();
            let kind = Kind::Stream { shard, batch: batch.clone() };
            let last = records.iter().map(|record| (record.item.clone(), record.new.clone()));
            let run = Invocation { batch: last.collect(), ..Invocation::new(at, kind, state.step) };
            (format!(r#"{{"Records":[{}]}}"#, json.join(",")), run)
        };
        let what = format!("shard {shard} delivers {batch:?}");
        let (invocation, handled) = self.invoke(&payload, run, &what).await;
        let mut state = self.state.borrow_mut();
        let done = checks::answer(&mut state, invocation, shard, batch, &handled?);
        let may_be_lost = state.shape.outages && state.shape.faults > 0;
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
    if state.shape.stops == 0 || !state.choices.one_in(state.shape.stop_one_in) {
        return Duration::ZERO;
    }
    state.shape.stops -= 1;
    let stop = Duration::from_secs(*state.choices.pick(state.shape.stop_seconds));
    let now = state.now();
    state.stops.push((now, now + stop));
    state.note(|| format!("a consumer is stopped for {stop:?}"));
    stop
}
