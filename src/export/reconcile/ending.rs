//! Ends a run, and says where the next one goes on.

use tracing::error;

use super::progress::{Place, Requests};
use super::report::{Refused, Report};
use super::run::Run;
use crate::ports::Services;

impl<S: Services> Run<'_, S> {
    /// Ends the run; the next one goes on at `next`.
    pub(super) fn finish(mut self, next: Option<Place>) -> Report {
        if self.invocation.is_out_of_time() {
            self.stop("the invocation's time is up".to_owned());
        }
        let refused = self.refused.sum();
        if refused > 0 {
            self.report.refused = Some(self.refused);
        }
        let repair_refused = if self.report.apply { refused } else { 0 };
        self.report.next_run = next.map(|place| self.carry_on_at(place, repair_refused));
        self.report.complete =
            self.report.stopped.is_none() && self.report.next_run.is_none() && repair_refused == 0;
        if repair_refused > 0 {
            self.log_refused();
        }
        self.count_findings(repair_refused);
        self.report
    }

    fn carry_on_at(&mut self, place: Place, repair_refused: u64) -> String {
        self.progress.place = place;
        self.progress.found = self.report.findings_with(self.progress.found);
        self.progress.refused += repair_refused;
        let requests = self.invocation.rate_limiter().map(|limiter| limiter.recent());
        let now = self.invocation.began + self.invocation.elapsed();
        self.progress.requests = requests.map(|number| Requests::until(number, now));
        self.progress.to_text()
    }

    fn log_refused(&self) {
        let Refused { delete, rewrite } = self.refused;
        if self.found_indexes {
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
}
