//! Counts what a run found.

use tracing::warn;

use super::brakes::Rewrites;
use super::part::Part;
use super::report::{KeyClass, Report};
use super::row::ToWrite;
use super::run::Run;
use crate::ports::Services;
use crate::telemetry::Stats;

impl<S: Services> Run<'_, S> {
    /// Counts a part that has been compared.
    pub(super) fn count(&mut self, part: &Part) {
        let found = part.keys.counts();
        let counts = self.report.counts(part.namespace);
        counts.desired += found.desired;
        counts.listed += found.listed;
        counts.missing += found.missing;
        counts.stale += found.stale;
        counts.foreign += found.foreign;
        counts.conflicting += found.conflicting;
        counts.failed += found.unknown;
        if found.unknown > 0 {
            let cells = Vec::from_iter(self.api_keys.failed_cells().iter().cloned()).join(", ");
            warn!(
                keys = found.unknown,
                cells, "keys could not be compared: the API keys of their accounts are unavailable"
            );
        }
        for key in part.strangers.iter().filter(|key| part.keys.is_foreign(key)) {
            self.report.add_example(KeyClass::Foreign, key);
        }
        let rewritable = self.rewritable(part);
        let tally = self.progress.tally(part.namespace);
        tally.ours += found.ours;
        tally.desired += found.desired;
        if !self.request.apply && part.rewrites == Rewrites::Allowed {
            tally.rewritten += rewritable;
        }
    }

    /// Notes the names of keys that are about to be written, and of those that could not be compared.
    pub(super) fn note_examples(&mut self, part: &Part) {
        for (class, name) in [
            (ToWrite::Missing, KeyClass::Missing),
            (ToWrite::Stale, KeyClass::Stale),
            (ToWrite::Taken, KeyClass::Conflicting),
        ] {
            for (key, _) in part.keys.to_write(class) {
                if self.report.has_enough_examples(name) {
                    break;
                }
                self.report.add_example(name, key);
            }
        }
        for key in part.keys.unknown() {
            if self.report.has_enough_examples(KeyClass::Failed) {
                break;
            }
            self.report.add_example(KeyClass::Failed, key);
        }
    }

    /// Counts what was found. The log tells what this run has found, and the metrics what the chain
    /// has found so far: else a run over the rest would end an alarm on what an earlier part holds.
    pub(super) fn count_findings(&self, repair_refused: u64) {
        let report = &self.report;
        let before = self.request.progress.as_ref();
        let found_before = before.map(|before| {
            let [settings, query_configs] = before.found;
            let earlier = Report { settings, query_configs, ..Report::default() };
            let refused = report.apply.then_some(before.refused);
            findings(Stats::default(), &earlier, refused)
        });
        let [settings, query_configs] =
            report.findings_with(before.map(|before| before.found).unwrap_or_default());
        let chain = Report { settings, query_configs, ..Report::default() };
        // One account's findings are not the fleet's, and a dry run has compared nothing.
        let partial_findings = self.account().is_some() || report.dry_run;
        self.invocation.count(|stats| {
            *stats =
                findings(std::mem::take(stats), report, report.apply.then_some(repair_refused));
            stats.keys_missing_percent =
                Some(chain.percent(|counts| (counts.missing, counts.desired)));
            stats.items_rejected_percent =
                Some(chain.percent(|counts| (counts.rejected, counts.rejected + counts.desired)));
            stats.partial_findings = partial_findings;
            stats.found_before = found_before.map(Box::new);
        });
    }
}

/// Notes a report's findings.
fn findings(stats: Stats, report: &Report, repair_refused: Option<u64>) -> Stats {
    Stats {
        desired: Some(report.total(|counts| counts.desired)),
        listed: Some(report.total(|counts| counts.listed)),
        foreign: Some(report.total(|counts| counts.foreign)),
        missing: Some(report.total(|counts| counts.missing)),
        stale: Some(report.total(|counts| counts.stale)),
        orphaned: Some(report.total(|counts| counts.orphaned)),
        drifted_keys: Some(report.drifted()),
        keys_conflicting: Some(report.total(|counts| counts.conflicting)),
        keys_withheld: Some(report.total(|counts| counts.withheld)),
        dangling_aliases: Some(report.settings.dangling),
        repair_refused,
        keys_failed: Some(report.total(|counts| counts.failed)),
        items_rejected: Some(report.total(|counts| counts.rejected)),
        ..stats
    }
}
