//! Compares one part and mends it, as far as the brakes allow.

use super::ReconcileError;
use super::asks::AnswerState;
use super::brakes::{Brakes, Rewrites};
use super::part::Part;
use super::progress::Place;
use super::run::Run;
use crate::ports::Services;

impl<S: Services> Run<'_, S> {
    /// Compares the part that begins at `place`, and mends it if asked to.
    pub(super) async fn compare_and_mend(&mut self, place: &Place) -> Result<Part, ReconcileError> {
        let mut part = self.list(place).await?;
        let mut asks = self.scan(&mut part).await?;
        self.find_dangling(&part).await;
        loop {
            let answers = self.judge_answered(&mut part, &mut asks).await;
            if answers == AnswerState::SomeOpen && self.account().is_some() {
                // A shop id that was given up is found through values that differ. All of them have to
                // be known before the first is replaced.
                continue;
            }
            if part.rewrites == Rewrites::Undecided {
                part.rewrites = self.allow_rewrites(&part, asks.waiting_keys());
            }
            self.note_examples(&part);
            if self.account().is_some() {
                self.find_given_up_shop_ids(&mut part).await;
            }
            if self.request.apply {
                self.write_desired(&mut part, answers).await;
            }
            // Their look may have to wait for a gateway that hangs: nothing that can be written
            // before waits with it.
            if !part.orphans_seen
                && (part.rewrites != Rewrites::Undecided || answers == AnswerState::AllIn)
            {
                part.orphans_seen = true;
                self.settle_orphans(&mut part).await;
            }
            if answers == AnswerState::AllIn {
                break;
            }
        }
        self.settle_left_behind(&mut part).await;
        self.count(&part);
        Ok(part)
    }

    /// What the brakes let through, by what the chain has seen so far.
    pub(super) fn brakes(&mut self, part: &Part) -> Brakes {
        let counts = part.keys.counts();
        let mut tally = *self.progress.tally(part.namespace);
        tally.ours += counts.ours;
        tally.desired += counts.desired;
        Brakes::new(tally, self.found_indexes, self.request.raised)
    }

    /// Whether so many keys may be deleted, all or none; notes what is refused. An audit notes the others
    /// as deleted, for the runs after it.
    pub(super) fn allow_deletes(&mut self, part: &Part, keys: u64) -> bool {
        let allowed = self.brakes(part).allow_deletes(keys);
        if !allowed {
            self.refused.delete += keys;
        } else if !self.request.apply {
            self.progress.tally(part.namespace).deleted += keys;
        }
        allowed
    }

    /// The keys that a repair rewrites: stale ones, and another environment's if they may be taken.
    pub(super) fn rewritable(&self, part: &Part) -> u64 {
        let counts = part.keys.counts();
        counts.stale + if self.request.raised.takes_keys() { counts.taken } else { 0 }
    }

    /// Whether these may be rewritten, all or none, while so many keys still wait for their API keys;
    /// notes what is refused.
    fn allow_rewrites(&mut self, part: &Part, waiting: u64) -> Rewrites {
        let rewrites = self.rewritable(part);
        let brakes = self.brakes(part);
        if brakes.allow_rewrites(rewrites + waiting) {
            return Rewrites::Allowed;
        }
        if waiting > 0 {
            return Rewrites::Undecided;
        }
        self.refused.rewrite += rewrites;
        Rewrites::Refused
    }
}
