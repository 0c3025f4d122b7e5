//! The way of one part, and what the brakes let through of it.

use super::ReconcileError;
use super::asks::Answers;
use super::brakes::Brakes;
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
        let mut rewrites = None;
        let mut is_first_round = true;
        loop {
            let answers = self.judge_answered(&mut part, &mut asks).await;
            rewrites = rewrites.or_else(|| self.allow_rewrites(&part, asks.waiting_keys()));
            self.name(&part);
            if std::mem::take(&mut is_first_round) && self.account().is_some() {
                self.find_given_up_shop_ids(&mut part).await;
            }
            if self.request.apply {
                self.write_desired(&mut part, rewrites, answers).await;
            }
            // Their look may have to wait for a gateway that hangs: nothing that can be written
            // before waits with it.
            if !part.orphans_seen && (rewrites.is_some() || answers == Answers::All) {
                part.orphans_seen = true;
                self.settle_orphans(&mut part).await;
            }
            if answers == Answers::All {
                break;
            }
        }
        self.count(&part, rewrites);
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

    /// Whether so many keys may be deleted, all or none; notes what is refused.
    pub(super) fn allow_deletes(&mut self, part: &Part, keys: u64) -> bool {
        let allowed = self.brakes(part).allow_deletes(keys);
        if !allowed {
            self.refused.delete += keys;
        } else if !self.request.apply {
            self.progress.tally(part.namespace).deleted += keys;
        }
        allowed
    }

    /// Whether the stale keys may be rewritten, all or none; notes what is refused. `None` where that
    /// depends on keys that still wait for their API keys.
    fn allow_rewrites(&mut self, part: &Part, waiting: u64) -> Option<bool> {
        let counts = part.keys.counts();
        let taken = if self.request.raised.rewrites.is_some() { counts.taken } else { 0 };
        let rewrites = counts.stale + taken;
        let brakes = self.brakes(part);
        if brakes.allow_rewrites(rewrites + waiting) {
            return Some(true);
        }
        if waiting > 0 && brakes.allow_rewrites(rewrites) {
            return None;
        }
        self.refused.rewrite += rewrites;
        Some(false)
    }
}
