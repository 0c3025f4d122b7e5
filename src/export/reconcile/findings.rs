//! Reports what a run found and what its brakes refused.

use tracing::error;

use super::Reconciling;
use super::brakes::Refused;
use super::report::Report;
use crate::ports::Services;

impl<S: Services> Reconciling<'_, S> {
    /// Tells what was found, before a repair mends it.
    pub(super) fn count_findings(&self) {
        let report = &self.report;
        // One account's findings are not the fleet's, and a dry run has compared nothing.
        let partial_findings = self.account.is_some() || report.dry_run;
        self.invocation.count(|stats| {
            stats.missing = Some(report.total(|counts| counts.missing));
            stats.stale = Some(report.total(|counts| counts.stale));
            stats.orphaned = Some(report.total(|counts| counts.orphaned));
            stats.drifted_keys = Some(report.drifted());
            stats.keys_conflicting = Some(report.total(|counts| counts.conflicting));
            stats.keys_withheld = Some(report.total(|counts| counts.withheld));
            stats.dangling_aliases = Some(report.settings.dangling);
            stats.partial_findings = partial_findings;
        });
    }

    pub(super) fn finish(mut self) -> Report {
        if self.invocation.is_out_of_time() {
            self.stop("the invocation's time is up".to_owned());
        }
        let refused = self.refused.sum();
        if refused > 0 {
            self.report.refused = Some(self.refused);
        }
        let repair_refused = if self.report.apply { refused } else { 0 };
        self.report.complete = self.report.stopped.is_none() && repair_refused == 0;
        if repair_refused > 0 {
            self.log_refused();
        }
        let apply = self.report.apply;
        let failed = self.report.total(|counts| counts.failed);
        let rejected = self.report.total(|counts| counts.rejected);
        self.invocation.count(|stats| {
            stats.repair_refused = apply.then_some(repair_refused);
            stats.keys_failed = Some(failed);
            stats.items_rejected = Some(rejected);
        });
        self.report
    }

    fn log_refused(&self) {
        let Refused { delete, rewrite } = self.refused;
        if self.found_indexes {
            error!(
                delete,
                rewrite,
                "repair refused: it would delete or rewrite more keys than a run may; if an audit shows that this is right, repair again with delete_up_to and rewrite_up_to raised to these numbers"
            );
        } else {
            error!(
                delete,
                rewrite,
                "repair refused: the table has no index item, so nothing is deleted, whatever delete_up_to says; is it the right table, and whole?"
            );
        }
    }
}
