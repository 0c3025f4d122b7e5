//! Ends a run: says where the next one goes on, and counts what was found.

use tracing::{error, warn};

use super::Run;
use super::part::Part;
use super::progress::Requests;
use super::report::{Changes, Class, Counts, Found, Report, add};
use crate::ports::Services;
use crate::telemetry::Stats;

/// Fewer keys than this count as 0 %, unless they are all of them.
const FEW_KEYS: u64 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    AllCompared,
    /// It has deleted or rewritten: the brakes of the next run have to know.
    Changed,
    /// The next part, or the rest of this one, does not fit the time or the limit of requests.
    OutOfTime,
    Stopped(String),
}

impl<S: Services> Run<'_, S> {
    pub fn end(mut self, end: End) -> Report {
        let invocation = self.lister.invocation;
        let is_planned = end == End::Changed;
        self.report.stopped = match end {
            End::Stopped(reason) => Some(reason),
            End::AllCompared => None,
            _ if invocation.is_out_of_time() => Some("the invocation's time is up".to_owned()),
            End::Changed => Some(
                "keys were deleted or rewritten, and the next part has a run of its own".to_owned(),
            ),
            End::OutOfTime => Some("the time left is too short for another part".to_owned()),
        };
        if let Some(reason) = self.report.stopped.as_deref().filter(|_| !is_planned) {
            warn!(reason, "reconcile stopped early: the rest is left to the next run");
        }
        let repair_refused = if self.lister.request.apply { self.report.refused.sum() } else { 0 };
        self.progress.refused += repair_refused;
        add(&mut self.progress.found, self.report.found);
        let has_ended = self.progress.place.is_none();
        self.report.complete = has_ended
            && self.report.stopped.is_none()
            && self.progress.refused == 0
            && !self.progress.left_out;
        self.count_findings(has_ended, repair_refused);
        let until = invocation.began + invocation.elapsed();
        let requests = invocation.rate_limiter().map(|limiter| limiter.recent());
        self.progress.requests = requests.map(|number| Requests { number, until });
        self.report.next_run = (!has_ended).then(|| self.progress.to_text());
        self.report
    }

    /// Logs what an operator has to know of a part that was compared, and of which so many keys failed.
    pub fn log_findings(&self, failed: u64) {
        let dangling = sum(&self.report.found, Class::Dangling);
        if dangling > 0 {
            warn!(
                dangling,
                examples = self.report.examples.text(Class::Dangling),
                "active aliases point at index ids that have neither an item nor a key"
            );
        }
        if failed > 0 {
            let cells = Vec::from_iter(self.api_keys.failed_cells().iter().cloned()).join(", ");
            warn!(
                keys = failed,
                cells, "keys could not be compared: the API keys of their accounts are unavailable"
            );
        }
    }

    /// Notes and logs what the brakes refuse of a part.
    pub fn refuse(&mut self, refused: Changes, part: &Part) {
        self.report.refused += refused;
        let Changes { delete, rewrite } = refused;
        if refused.sum() == 0 || !self.lister.request.apply {
            return;
        }
        if part.has_indexes {
            error!(
                delete,
                rewrite,
                "repair refused: it would delete or rewrite more keys than a run may; if an audit shows that this is right, repair again with delete_up_to and rewrite_up_to raised"
            );
        } else {
            error!(
                delete,
                rewrite,
                "repair refused: the table has no index item, so nothing is deleted, whatever delete_up_to says; is it the right table, and whole?"
            );
        }
    }

    /// Counts what was found. The log tells what this run has found; the metrics tell with the last run
    /// what the chain has, so that an alarm on two reconciles in a row means two looks at a key.
    fn count_findings(&mut self, has_ended: bool, repair_refused: u64) {
        let is_of_the_fleet = self.lister.request.system_account_id.is_none()
            && !self.report.dry_run
            && !self.lister.request.preview;
        let ends_chain = has_ended && is_of_the_fleet;
        // Only the last run of a repair of the fleet ends an alarm.
        let urgent = |number: u64, of_chain: u64| {
            let is_news = number > 0 || (ends_chain && of_chain == 0);
            (self.lister.request.apply && is_news).then_some(number)
        };
        let chain =
            ends_chain.then(|| Box::new(with_findings(Stats::default(), &self.progress.found)));
        self.lister.invocation.count(|stats| {
            *stats = with_findings(std::mem::take(stats), &self.report.found);
            let percent = self.progress.rewritten_percent();
            stats.repair_refused = urgent(repair_refused, self.progress.refused);
            stats.keys_rewritten = urgent(self.rewritten, 0);
            stats.keys_rewritten_percent = urgent(percent, 0);
            stats.chain_findings = chain;
        });
    }
}

/// A class's keys in both namespaces.
fn sum(found: &Found, class: Class) -> u64 {
    found.values().map(|counts| counts[class]).sum()
}

/// A share in percent, of the namespace where it is larger. A few keys are none, unless they are
/// all: one new shop of a small fleet is on its way.
fn percent(found: &Found, share: impl Fn(&Counts) -> (u64, u64)) -> u64 {
    let percent = |counts| match share(counts) {
        (part, all) if all == 0 || (part < FEW_KEYS && part < all) => 0,
        (part, all) => part.saturating_mul(100) / all,
    };
    found.values().map(percent).max().unwrap_or_default()
}

fn with_findings(stats: Stats, found: &Found) -> Stats {
    let sum = |class| sum(found, class);
    let missing = |counts: &Counts| (counts[Class::Missing], counts[Class::Desired]);
    let rejected = |it: &Counts| (it[Class::Rejected], it[Class::Rejected] + it[Class::Desired]);
    Stats {
        desired: Some(sum(Class::Desired)),
        listed: Some(sum(Class::Listed)),
        foreign: Some(sum(Class::Foreign)),
        missing: Some(sum(Class::Missing)),
        stale: Some(sum(Class::Stale)),
        orphaned: Some(sum(Class::Orphaned)),
        drifted_keys: Some(sum(Class::Missing) + sum(Class::Stale) + sum(Class::Orphaned)),
        keys_conflicting: Some(sum(Class::Conflicting)),
        keys_withheld: Some(sum(Class::Withheld)),
        dangling_aliases: Some(sum(Class::Dangling)),
        keys_failed: Some(sum(Class::Failed)),
        keys_missing_percent: Some(percent(found, missing)),
        items_rejected: Some(sum(Class::Rejected)),
        items_rejected_percent: Some(percent(found, rejected)),
        ..stats
    }
}
