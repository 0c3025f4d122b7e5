//! Reconcile: makes KV equal to the table, from a listing of the one and a pass over the other.
//!
//! A run works part after part: `part` lists as many of KV's next keys as memory and time allow, the
//! settings first; `scan` goes over the table and says of each key what items ask for; `plan` counts
//! what differs and asks the brakes, from these two alone; `carry_out` writes and deletes what they
//! let through. When time or Cloudflare's limit of requests get short, the run ends with a `continue`:
//! the next run goes on with the next part, or with what remains of this one. A run also ends after a
//! part in which it has deleted or rewritten, so that the brakes of a run that is killed and tried again
//! know all but that part.
//!
//! Which class a key is of stands in `rows`, and for keys that no item asks for in `owners`.

mod carry_out;
mod ending;
mod names;
mod one_account;
mod orphans;
mod owners;
mod part;
mod plan;
mod progress;
mod report;
mod rows;
mod samples;
mod scan;
mod write;

use enum_map::EnumMap;
use tokio::time::Instant;

pub use self::plan::Raised;
pub use self::progress::Progress;
pub use self::report::{Changes, Class, Counts, Report};

use self::carry_out::{Outcome, carry_out};
use self::ending::End;
use self::orphans::note_examples;
use self::part::{Lister, Part, could_not_be_compared};
use self::plan::{brakes, plan, plan_again};
use self::progress::{Allowed, Repair};
use self::report::{Examples, Found, add};
use self::scan::scan;
use super::api_keys::{ApiKeys, BATCH_TIME_FOR_API_KEYS, Patience, Reuse, TIME_FOR_ONE_TRY};
use super::invocation::Invocation;
use super::table::{PassOver, ReadError};
use crate::ports::{KvError, Namespace, ScanColumns, Services};

/// A run waits for a cell for one in so many parts of its time at the most.
const SHARE_TO_WAIT: u32 = 4;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconcile {
    /// Whether to repair what differs.
    pub apply: bool,
    /// Whether it is an audit by a version that is not live, whose findings are nobody's alarm.
    pub preview: bool,
    /// The one account to look at; all of them where absent.
    pub system_account_id: Option<String>,
    pub raised: Raised,
    /// How far the runs before this one came, if it goes on with their work.
    pub progress: Option<Progress>,
}

/// Why a part could not be compared. The error of a run's first part is the run's; that of a later one
/// ends it early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    CloudflareAuthRejected(KvError),
    #[error("the pass over the table stopped after {items} items")]
    PassStopped {
        items: usize,
        #[source]
        error: ReadError,
    },
    #[error("the listing of {namespace:?} stopped after {keys} keys")]
    ListingStopped {
        namespace: Namespace,
        keys: usize,
        #[source]
        error: KvError,
    },
}

pub async fn reconcile<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Reconcile,
) -> Result<Report, ReconcileError> {
    let mut run = Run::new(invocation, request);
    let mut is_first = true;
    loop {
        let began = Instant::now();
        let part = match run.gather().await {
            Ok(Some(part)) if part.is_unfinished => {
                return Ok(run.end_unfinished(&part, is_first).await);
            }
            Ok(Some(part)) => part,
            Ok(None) => return Ok(run.end(End::OutOfTime)),
            Err(error) if is_first => return Err(error),
            Err(error) => return Ok(run.end(End::Stopped(could_not_be_compared(&error)))),
        };
        let is_resumed = run.progress.repair.is_some();
        let repair = match run.progress.repair.take() {
            Some(repair) => run.brake_again(repair, &part),
            None => run.count_and_plan(&part).await,
        };
        let outcome = carry_out(&run.lister, &part, &repair, &run.api_keys).await;
        run.take_in(&part, &repair, &outcome);
        let changes_any = |allowed: &Allowed| allowed.rewrites + allowed.deletes > 0;
        let changes = request.apply && repair.allowed.values().any(changes_any);
        run.go_on(&part, repair, outcome, is_resumed);
        let left = invocation.deadline.saturating_duration_since(Instant::now());
        let end = match part.stopped {
            Some(reason) => End::Stopped(reason),
            None if run.progress.place.is_none() => End::AllCompared,
            None if run.progress.repair.is_some() || left < began.elapsed() => End::OutOfTime,
            None if changes => End::Changed,
            None => {
                is_first = false;
                continue;
            }
        };
        return Ok(run.end(end));
    }
}

/// One run of a chain: what it is asked for, how far the chain came, and what the run tells.
struct Run<'a, S> {
    lister: Lister<'a, S>,
    progress: Progress,
    api_keys: ApiKeys,
    report: Report,
    /// Stale keys that it has rewritten.
    rewritten: u64,
}

impl<'a, S: Services> Run<'a, S> {
    fn new(invocation: &'a Invocation<'a, S>, request: &'a Reconcile) -> Self {
        let progress = request.progress.clone().unwrap_or_else(|| Progress::at_start(request));
        if let (Some(requests), Some(limiter)) = (progress.requests, invocation.rate_limiter()) {
            limiter.count_earlier(requests.number, requests.age(invocation.began));
        }
        // A cell is waited for as long as a batch would wait, and in a short run for a part of its time.
        let left = invocation.deadline.saturating_duration_since(Instant::now());
        let wait = BATCH_TIME_FOR_API_KEYS.min((left / SHARE_TO_WAIT).max(TIME_FOR_ONE_TRY));
        let report = Report {
            apply: request.apply,
            dry_run: invocation.config.dry_run,
            ..Report::default()
        };
        Self {
            lister: Lister { invocation, request },
            progress,
            api_keys: ApiKeys::new(Patience::WhileTheCellAnswers(wait), Reuse::Never),
            report,
            rewritten: 0,
        }
    }

    /// Lists the next part, and takes in what the table says of it; `None` where Cloudflare's limit
    /// allows no request in this run.
    async fn gather(&mut self) -> Result<Option<Part>, ReconcileError> {
        let lister = &self.lister;
        let Some(mut part) = lister.list(&self.progress).await? else {
            // A run that came at once would find no turn either.
            tokio::time::sleep_until(lister.invocation.deadline).await;
            return Ok(None);
        };
        let over = match (lister.only_account(), lister.request.apply) {
            (Some(account), _) => PassOver::Account(account),
            (None, true) => PassOver::Table(ScanColumns::All),
            // What an audit sees may be a second old.
            (None, false) => PassOver::Table(ScanColumns::AllEventuallyConsistent),
        };
        let writes_any = |repair: &Repair| repair.allowed.values().any(|allowed| allowed.writes);
        let compares_values = self.progress.repair.as_ref().is_none_or(writes_any);
        let began = Instant::now();
        scan(lister, over, compares_values, &mut part, &mut self.api_keys).await?;
        self.progress.note_pass(began.elapsed());
        if part.is_unfinished {
            return Ok(Some(part));
        }
        if lister.only_account().is_some() {
            lister.read_given_up_shop_ids(&mut part).await;
            lister.take_in_other_accounts(&mut part).await?;
        }
        part.sections.iter_mut().for_each(|section| section.owners.protect(&mut section.rows));
        Ok(Some(part))
    }

    /// Counts what was found, and says what the brakes let through.
    async fn count_and_plan(&mut self, part: &Part) -> Repair {
        let (mut found, mut allowed) = (Found::default(), EnumMap::default());
        let (mut failed, mut refused) = (0, Changes::default());
        for section in &part.sections {
            let namespace = section.namespace();
            let tally = &mut self.progress.tallies[namespace];
            let plan = plan(section, part.has_indexes, tally, self.lister.request.raised);
            found[namespace] = plan.counts;
            refused += plan.refused;
            failed += plan.counts[Class::Failed];
            allowed[namespace] = plan.allowed;
            section.add_examples(&mut self.report.examples);
            let differs =
                section.samples.differs(self.lister.invocation, namespace, &section.rows).await;
            samples::add_paths(&mut self.report.differs, differs);
        }
        add(&mut self.report.found, found);
        self.report.examples.extend(&part.examples);
        note_examples(&self.lister, part, &mut self.report.examples).await;
        self.log_findings(failed);
        self.refuse(refused, part);
        Repair::new(allowed, part.next.clone())
    }

    /// Asks the brakes once more for what has changed since they let a repair through.
    fn brake_again(&mut self, mut repair: Repair, part: &Part) -> Repair {
        let mut refused = Changes::default();
        for section in &part.sections {
            let namespace = section.namespace();
            let tally = &mut self.progress.tallies[namespace];
            let left = &mut repair.allowed[namespace];
            let raised = self.lister.request.raised;
            refused += plan_again(section, part.has_indexes, tally, left, raised);
        }
        self.refuse(refused, part);
        repair
    }

    fn take_in(&mut self, part: &Part, repair: &Repair, outcome: &Outcome) {
        for (namespace, tally) in &mut self.progress.tallies {
            let (before, after) = (repair.allowed[namespace], outcome.left[namespace]);
            tally.deleted += before.more_deletes - after.more_deletes;
        }
        self.rewritten += outcome.rewritten;
        if !self.report.dry_run {
            add(&mut self.report.found, outcome.done);
        }
        self.report.examples.extend(&outcome.examples);
        self.refuse(Changes { delete: outcome.refused_deletes, rewrite: 0 }, part);
    }

    /// Goes on with what remains of the part, or after it.
    fn go_on(&mut self, part: &Part, mut repair: Repair, outcome: Outcome, is_resumed: bool) {
        let Some(place) = outcome.interrupted_at else {
            for (namespace, left) in outcome.left {
                repair.allowed[namespace].deletes = left.deletes;
            }
            return self.go_on_after(part, repair);
        };
        repair.allowed = outcome.left;
        if outcome.got_on || !is_resumed || repair.divide_chunks() {
            (self.progress.place, self.progress.repair) = (Some(place), Some(repair));
            return;
        }
        // There is no getting on here, and the others must not wait for it.
        self.leave_out(part, &mut repair.allowed);
        self.go_on_after(part, repair);
    }

    /// Counts what is allowed of a part as failed.
    fn leave_out(&mut self, part: &Part, allowed: &mut EnumMap<Namespace, Allowed>) {
        self.progress.left_out = true;
        for section in &part.sections {
            let allowed = &mut allowed[section.namespace()];
            let counts = section.rows.counts();
            let orphaned = counts[Class::Orphaned].min(allowed.deletes);
            allowed.deletes -= orphaned;
            let writes = if allowed.writes { counts[Class::Missing] } else { 0 };
            let rewrites = allowed.rewrites.min(counts[Class::Stale]);
            self.report.found[section.namespace()][Class::Failed] += orphaned + writes + rewrites;
        }
    }

    /// Writes what is known to be missing of a part that could not be compared in time, and ends the
    /// run. The part is counted once it is compared: by the next run, and there by a smaller part if it
    /// had this whole run. One that can't be smaller is left out.
    async fn end_unfinished(mut self, part: &Part, had_whole_run: bool) -> Report {
        let raised = self.lister.request.raised;
        let missing_only = self.progress.tallies.map(|_, tally| {
            let more_deletes = brakes(tally, part.has_indexes, raised).delete;
            Allowed { writes: true, more_deletes, ..Allowed::default() }
        });
        let missing_only = Repair::new(missing_only, part.next.clone());
        let mut outcome = carry_out(&self.lister, part, &missing_only, &self.api_keys).await;
        for done in outcome.done.values_mut() {
            // What is written is no longer missing when the part is compared.
            done[Class::Missing] = done[Class::Written];
            (done[Class::Failed], done[Class::Rejected]) = (0, 0);
        }
        outcome.examples = Examples::default();
        self.take_in(part, &missing_only, &outcome);
        if had_whole_run && !self.progress.halve_parts(part.listed()) && !outcome.got_on {
            self.progress.left_out = true;
            let repair = self.progress.repair.take().unwrap_or(missing_only);
            self.go_on_after(part, repair);
        }
        self.end(End::OutOfTime)
    }

    /// Goes on after a part, or after the piece of it that was listed to go on with its repair.
    fn go_on_after(&mut self, part: &Part, repair: Repair) {
        self.progress.place = match &part.next {
            Some(place) if part.next != repair.end && repair.allowed[place.namespace].any() => {
                self.progress.repair = Some(repair);
                part.next.clone()
            }
            _ => repair.end,
        };
    }
}
