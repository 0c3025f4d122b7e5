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

mod brakes;
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

use tokio::time::Instant;

pub use self::brakes::Raised;
pub use self::progress::Progress;
pub use self::report::{Class, Counts, Findings, Refused, Report};

use self::carry_out::{Changed, Outcome, allowed_of, carry_out};
use self::ending::End;
use self::orphans::note_examples;
use self::part::{Lister, Listing, Part, could_not_be_compared};
use self::plan::plan;
use self::progress::{Allowed, Place, Repair};
use self::scan::{Scan, scan};
use super::api_keys::{
    ApiKeys, AskingForApiKeys, BATCH_TIME_FOR_API_KEYS, Patience, Reuse, TIME_FOR_ONE_TRY,
};
use super::invocation::Invocation;
use super::table::{PassOver, ReadError};
use crate::ports::{KvError, Namespace, ScanColumns, Services};

/// The namespaces in the order in which they are compared.
const NAMESPACES: [Namespace; 2] = [Namespace::Settings, Namespace::QueryConfigs];

/// A run waits for a cell for one in so many parts of its time at the most.
const SHARE_TO_WAIT: u32 = 4;

/// What a reconcile asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconcile {
    /// Whether to repair what differs.
    pub apply: bool,
    /// Whether it is an audit by a version that is not live, whose findings are nobody's alarm.
    pub preview: bool,
    /// The one account to look at; all of them where absent.
    pub system_account_id: Option<String>,
    /// The numbers to which the brakes are raised.
    pub raised: Raised,
    /// How far the runs before this one came, if it goes on with their work.
    pub progress: Option<Progress>,
}

/// Why a part could not be compared. The error of a run's first part is the run's; that of a later one
/// ends it early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    /// Cloudflare refuses the token.
    #[error(transparent)]
    CloudflareAuthRejected(KvError),
    /// The table could not be read to its end.
    #[error("the pass over the table stopped after {items} items")]
    PassStopped {
        /// How many items had been read.
        items: usize,
        /// Why.
        #[source]
        error: ReadError,
    },
    /// KV could not be listed as far as the first part goes.
    #[error("the listing of {namespace:?} stopped after {keys} keys")]
    ListingStopped {
        /// Of which namespace.
        namespace: Namespace,
        /// How many keys had been listed.
        keys: usize,
        /// Why.
        #[source]
        error: KvError,
    },
}

/// Compares KV with the table, and repairs what differs if asked to.
pub async fn reconcile<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Reconcile,
) -> Result<Report, ReconcileError> {
    let mut run = Run::new(invocation, request);
    let mut is_first = true;
    loop {
        let began = Instant::now();
        let here = run.progress.place.clone();
        let part = match run.gather().await {
            Ok(Gathered::Whole(part)) => *part,
            Ok(Gathered::Unfinished(part)) => {
                let next = run.get_on_with(*part, is_first).await;
                return Ok(run.end(End::OutOfTime, next));
            }
            Ok(Gathered::NoTurn) => return Ok(run.end(End::OutOfTime, Some(here))),
            Err(error) if is_first => return Err(error),
            Err(error) => {
                let reason = could_not_be_compared(&error);
                return Ok(run.end(End::Stopped(reason), Some(here)));
            }
        };
        let repair = run.progress.repair.take();
        let allowed = match &repair {
            // The table may have been emptied since the brakes were asked.
            Some(repair) if !part.has_indexes => self::progress::without_deletes(repair.allowed),
            Some(repair) => repair.allowed,
            None => run.count_and_plan(&part).await,
        };
        let outcome = run.carry_out(&part, allowed).await;
        let has_changed = outcome.changed.iter().any(Changed::any);
        let next = run.go_on_after(&part, repair, &outcome);
        run.take_in(outcome);
        if let Some(reason) = part.stopped {
            return Ok(run.end(End::Stopped(reason), next));
        }
        let Some(place) = next else { return Ok(run.end(End::AllCompared, None)) };
        let left = invocation.deadline.saturating_duration_since(Instant::now());
        if run.progress.repair.is_some() || left < began.elapsed() {
            return Ok(run.end(End::OutOfTime, Some(place)));
        }
        if has_changed {
            return Ok(run.end(End::Changed, Some(place)));
        }
        run.progress.place = place;
        is_first = false;
    }
}

/// One run of a chain: what it is asked for, how far the chain came, and what the run tells.
struct Run<'a, S> {
    request: &'a Reconcile,
    lister: Lister<'a, S>,
    progress: Progress,
    api_keys: ApiKeys,
    report: Report,
    refused: Refused,
    /// Stale keys that it has rewritten.
    rewritten: u64,
}

/// What a run has gathered of a part.
enum Gathered {
    Whole(Box<Part>),
    /// The time for API keys was up before all could be compared.
    Unfinished(Box<Part>),
    /// Cloudflare's limit allows no request in this run.
    NoTurn,
}

impl<'a, S: Services> Run<'a, S> {
    fn new(invocation: &'a Invocation<'a, S>, request: &'a Reconcile) -> Self {
        let progress = request.progress.clone().unwrap_or_else(|| Progress::at_start(request));
        if let (Some(requests), Some(limiter)) = (progress.requests, invocation.rate_limiter()) {
            limiter.count_earlier(requests.number, requests.age(invocation.began));
        }
        let asking = AskingForApiKeys { patience: patience(invocation), reuse: Reuse::Never };
        let report = Report {
            apply: request.apply,
            dry_run: invocation.config.dry_run,
            ..Report::default()
        };
        Self {
            request,
            lister: Lister { invocation, only_account: request.system_account_id.as_deref() },
            progress,
            api_keys: ApiKeys::new(asking),
            report,
            refused: Refused::default(),
            rewritten: 0,
        }
    }

    /// Lists the next part, and takes in what the table says of it.
    async fn gather(&mut self) -> Result<Gathered, ReconcileError> {
        let lister = &self.lister;
        let mut part = match lister.list(&self.progress).await? {
            Listing::Listed(part) => part,
            Listing::NoTurn => {
                // A run that came at once would find no turn either.
                tokio::time::sleep_until(lister.invocation.deadline).await;
                return Ok(Gathered::NoTurn);
            }
        };
        let over = match (lister.only_account, self.request.apply) {
            (Some(account), _) => PassOver::Account(account),
            (None, true) => PassOver::Table(ScanColumns::All),
            // What an audit sees may be a second old.
            (None, false) => PassOver::Table(ScanColumns::AllEventuallyConsistent),
        };
        let began = Instant::now();
        let scanned = scan(lister, over, &mut part, &mut self.api_keys).await?;
        self.progress.note_pass(began.elapsed());
        if scanned == Scan::OutOfTime {
            return Ok(Gathered::Unfinished(part));
        }
        if lister.only_account.is_some() {
            lister.read_given_up_shop_ids(&mut part).await;
            lister.take_in_other_accounts(&mut part).await?;
        }
        part.close();
        Ok(Gathered::Whole(part))
    }

    /// Counts what was found, and says what the brakes let through.
    async fn count_and_plan(&mut self, part: &Part) -> [Allowed; 2] {
        let invocation = self.lister.invocation;
        let (mut allowed, mut failed) = ([Allowed::default(); 2], 0);
        let mut refused = Refused::default();
        for section in &part.sections {
            let namespace = section.namespace;
            let tally = self.progress.tally(namespace);
            let plan = plan(section, &part.owners, part.has_indexes, *tally, self.request);
            *tally = plan.tally;
            *self.report.counts(namespace) += plan.counts;
            refused += plan.refused;
            failed += plan.counts[Class::Failed];
            *allowed_of(&mut allowed, namespace) = plan.allowed;
            section.add_examples(&mut self.report.examples);
            let differs = section.samples.differs(invocation, namespace, &section.rows).await;
            samples::add_paths(&mut self.report.differs, differs);
        }
        self.report.examples.extend(&part.examples);
        note_examples(&self.lister, part, &mut self.report.examples).await;
        self.refused += refused;
        self.log_findings(part, failed, refused);
        allowed
    }

    async fn carry_out(&self, part: &Part, allowed: [Allowed; 2]) -> Outcome {
        match self.request.apply {
            true => {
                let takes_keys = self.request.raised.takes_keys();
                carry_out(&self.lister, part, allowed, takes_keys, &self.api_keys).await
            }
            false => Outcome::default(),
        }
    }

    /// Notes what a repair did.
    fn take_in(&mut self, outcome: Outcome) {
        for namespace in NAMESPACES {
            let changed = outcome.changed_in(namespace);
            let tally = self.progress.tally(namespace);
            tally.deleted += changed.deleted;
            tally.rewritten += changed.rewritten;
            self.rewritten += changed.rewritten;
        }
        if !self.report.dry_run {
            self.report.settings += outcome.done.settings;
            self.report.query_configs += outcome.done.query_configs;
        }
        self.report.examples.extend(&outcome.examples);
        self.refused.delete += outcome.refused_deletes;
    }

    /// Where the chain goes on: with what remains of the part, or after it.
    fn go_on_after(
        &mut self,
        part: &Part,
        repair: Option<Repair>,
        outcome: &Outcome,
    ) -> Option<Place> {
        let was_repair = repair.is_some();
        let mut repair =
            repair.unwrap_or(Repair { allowed: [Allowed::default(); 2], end: part.next.clone() });
        if let Some((place, allowed)) = &outcome.remains {
            repair.allowed = *allowed;
            if outcome.got_on || !was_repair {
                self.progress.repair = Some(repair);
                return Some(place.clone());
            }
            // There is no getting on with this namespace, and the others must not wait for it.
            self.progress.left_out = true;
            for section in &part.sections {
                let allows = allowed_of(&mut repair.allowed, section.namespace);
                self.report.counts(section.namespace)[Class::Failed] += allows.deletes;
            }
        }
        let next = part.next.clone().filter(|_| was_repair && part.next != repair.end);
        match next {
            Some(place) if repair.concerns(place.namespace) => {
                self.progress.repair = Some(repair);
                Some(place)
            }
            _ => repair.end,
        }
    }

    /// Writes what is known to be missing of a part that could not be compared in time, which is neither
    /// counted nor held against a brake; answers with the place where the chain goes on: here, with a
    /// smaller part, or else after it.
    async fn get_on_with(&mut self, part: Part, had_whole_run: bool) -> Option<Place> {
        let here = Some(self.progress.place.clone());
        let missing_only = Allowed { writes: true, ..Allowed::default() };
        let outcome = self.carry_out(&part, [missing_only; 2]).await;
        let got_on = outcome.got_on;
        let repair = self.progress.repair.take();
        self.take_in(outcome);
        let may_be_smaller = repair.is_none() && self.progress.halve_parts(part.listed());
        if got_on || may_be_smaller || !had_whole_run {
            self.progress.repair = repair;
            return here;
        }
        self.progress.left_out = true;
        repair.map_or(part.next, |repair| repair.end)
    }
}

/// A cell is waited for as long as a batch would wait, and in a short run for a part of its time.
fn patience<S: Services>(invocation: &Invocation<'_, S>) -> Patience {
    let left = invocation.deadline.saturating_duration_since(Instant::now());
    let share = (left / SHARE_TO_WAIT).max(TIME_FOR_ONE_TRY);
    Patience::WhileTheCellAnswers(BATCH_TIME_FOR_API_KEYS.min(share))
}
