//! Reconcile: makes KV equal to the table.
//!
//! One run: [`list`] KV's next keys, make a pass over the table, judge every key, ask the [`brakes`], and
//! [`carry_out`] what they let through. What one run compares is a part; where keys are left to list, or
//! time ends before a part is repaired, the report has a `continue`, which is the chain's [`Progress`].

mod brakes;
mod carry_out;
mod list;
mod progress;
mod report;

use enum_map::{EnumMap, enum_map};
use tokio::time::Instant;
use tracing::{error, warn};

pub use self::brakes::Raised;
pub use self::progress::Progress;
pub use self::report::{Changes, Class, Findings, Report, cut};

use self::brakes::{Allowed, ask};
use self::carry_out::Repair;
use self::list::{Listing, MAX_BYTES, list};
use self::progress::OpenPart;
use super::api_keys::{ApiKeys, Fallback, NotExportable};
use super::desired::Decoded;
use super::invocation::Invocation;
use super::judge::{Held, KvKey, Row, Verdict, Wants};
use super::table::{ReadError, pass};
use crate::item::{Item, ItemKey, Rejection};
use crate::kv::Namespace;
use crate::ports::{KvError, ScanColumns, Services};
use crate::telemetry::Stats;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconcile {
    /// Whether to repair what differs.
    pub apply: bool,
    /// Whether it is an audit by a version that is not live. Its findings raise no alarm.
    pub preview: bool,
    /// The one account to look at; all of them where absent.
    pub system_account_id: Option<String>,
    pub raised: Raised,
    /// How far the chain has come.
    pub progress: Option<Progress>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    CloudflareAuthRejected(KvError),
    #[error("the pass over the table stopped after {items} items; nothing was written")]
    PassStopped {
        items: usize,
        #[source]
        error: ReadError,
    },
    #[error("the account's items can't be read; nothing was written")]
    AccountUnread(#[from] ReadError),
    #[error("the listing of {namespace:?} stopped after {keys} keys; nothing was written")]
    ListingStopped {
        namespace: Namespace,
        keys: usize,
        #[source]
        error: KvError,
    },
    #[error(
        "the listing of {namespace:?} goes round in a circle after {keys} keys; nothing was written"
    )]
    ListingDoesNotAdvance { namespace: Namespace, keys: usize },
    #[error(
        "a whole run got nothing done of its part: the time is too short for two passes over the table, or KV refuses every request"
    )]
    NoProgress,
}

pub async fn reconcile<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Reconcile,
) -> Result<Report, ReconcileError> {
    let environment = &invocation.config.environment;
    let mut progress =
        request.progress.clone().unwrap_or_else(|| Progress::at_start(request, environment));
    let place = progress.place.take().unwrap_or_default();
    let open = progress.open.take();
    let to = open.as_ref().and_then(|open| open.to.clone());
    let mut api_keys = ApiKeys::new(Fallback::Nothing, invocation.budget.api_keys);
    let listing = list(invocation, request, &place, to).await?;
    let mut part =
        Part { listing, account: request.system_account_id.clone(), found: Findings::default() };
    let began = Instant::now();
    part.pass_over_table(invocation, &mut api_keys).await?;
    let a_pass = began.elapsed();
    let has_indexes = part.listing.table.has_indexes;
    let is_resumed = open.is_some();
    let allowed = match open {
        Some(open) => part.recount(open.allowed, &mut progress),
        None => part.count(request, &mut progress),
    };
    if !is_resumed {
        report_findings(&progress.findings, &api_keys);
        report_refused(request, has_indexes, progress.findings.refused);
    }
    let mut rewritten = 0;
    if request.apply && !invocation.config.dry_run {
        let mut repair = Repair::new(invocation, &mut api_keys, allowed, a_pass);
        let is_finished = repair.carry_out(&part).await;
        if !is_finished {
            if is_resumed && !repair.progressed {
                return Err(ReconcileError::NoProgress);
            }
            let to = part.listing.end().cloned();
            progress.open = Some(OpenPart { to, allowed: repair.allowed });
        }
        rewritten = repair.rewritten;
        progress.left_out |= repair.left_out;
        report_refused(request, has_indexes, repair.findings.refused);
        progress.findings.add(&repair.findings);
    }
    let (place, stopped) = match (&progress.open, part.listing.end()) {
        (Some(_), _) => (Some(place), Some("the time was up before all of this part was repaired")),
        (None, Some(end)) => {
            let next = part.listing.place_of(end.clone());
            (Some(next), Some("the keys that are left have a run of their own"))
        }
        (None, None) => (None, None),
    };
    progress.place = place;
    if let Some(reason) = stopped {
        warn!(reason, "reconcile goes on in the next run");
    }
    let has_ended = progress.place.is_none();
    let is_whole = progress.findings.refused.are_none() && !progress.left_out;
    count_findings(invocation, request, &progress.findings, has_ended, rewritten);
    Ok(Report {
        apply: request.apply,
        complete: has_ended && (is_whole || !request.apply),
        next_run: (!has_ended).then(|| progress.to_text()),
        stopped,
        findings: progress.findings,
        dry_run: invocation.config.dry_run,
    })
}

/// What one run compares.
struct Part {
    listing: Listing,
    /// The one account whose keys are compared.
    account: Option<String>,
    /// What the pass has found: items that can't be exported.
    found: Findings,
}

impl Part {
    async fn pass_over_table<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        api_keys: &mut ApiKeys,
    ) -> Result<(), ReconcileError> {
        let mut items = 0;
        let passed = pass(invocation, ScanColumns::All, async |page| {
            items += page.len();
            self.visit(invocation, page, api_keys).await;
        });
        passed.await.map_err(|error| ReconcileError::PassStopped { items, error })
    }

    /// Adds a page of the table. API keys are asked for only where an item's keys are compared.
    async fn visit<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        page: Vec<(ItemKey, Item)>,
        api_keys: &mut ApiKeys,
    ) {
        let decoded: Vec<Option<Result<Decoded, Rejection>>> = page
            .iter()
            .map(|(key, item)| {
                let item_ref = key.item()?;
                Some(Decoded::of(&item_ref, item, invocation.config))
            })
            .collect();
        let compared: Vec<bool> = decoded
            .iter()
            .zip(&page)
            .map(|(decoded, (key, _))| match decoded {
                Some(Ok(item)) => self.compares(key, item),
                Some(Err(_)) | None => false,
            })
            .collect();
        let wanted = decoded.iter().zip(&compared).filter(|(_, compared)| **compared);
        let wanted = wanted.filter_map(|(item, _)| item.as_ref()?.as_ref().ok()?.settings());
        api_keys.find(invocation, wanted.collect()).await;
        for (((key, item), decoded), compared) in page.iter().zip(decoded).zip(compared) {
            let wants = match decoded {
                None => Wants::Unmade,
                Some(Err(rejection)) => self.reject(key, &rejection),
                Some(Ok(_)) if !compared => Wants::Unmade,
                Some(Ok(item)) => match item.desired(api_keys) {
                    Ok(desired) => Wants::Value(desired.digest()),
                    Err(NotExportable::Rejected(rejection)) => self.reject(key, &rejection),
                    Err(NotExportable::Unavailable(_)) => Wants::Unavailable,
                },
            };
            self.listing.table.add(key, &item.attributes(), wants);
        }
        self.listing.table.shrink(MAX_BYTES);
    }

    /// Returns whether an item asks for keys that this run compares.
    fn compares(&self, key: &ItemKey, item: &Decoded) -> bool {
        let is_meant = self.account.as_ref().is_none_or(|account| *account == key.pk);
        let (namespace, keys) = match item {
            Decoded::Settings(settings) => (Namespace::Settings, settings.settings.kv_keys()),
            Decoded::QueryConfig(desired) => (Namespace::QueryConfigs, desired.keys.clone()),
        };
        let mut keys = keys.into_iter().map(|name| KvKey { namespace, name });
        is_meant && keys.any(|key| self.listing.table.covers(&key))
    }

    /// Counts and logs an item that can't be exported, in the part that has its key. It is logged as a warning:
    /// every run finds it again until it is corrected.
    fn reject(&mut self, key: &ItemKey, rejection: &Rejection) -> Wants {
        let Some(item) = key.item() else { return Wants::Rejected };
        let is_meant = self.account.as_ref().is_none_or(|account| *account == key.pk);
        let (namespace, name) = (item.namespace(), item.kv_key());
        if is_meant && self.listing.table.covers(&KvKey { namespace, name: name.clone() }) {
            if !self.found.examples.are_full(Class::Rejected) {
                warn!(
                    key = name,
                    system_account_id = item.index.account,
                    index_name = item.index.name,
                    path = rejection.path,
                    error = %rejection,
                    "an item can't be exported: what KV holds of it stays"
                );
            }
            self.found.note(namespace, Class::Rejected, &name);
        }
        Wants::Rejected
    }

    /// Returns the keys that are compared, with their verdicts. `None` means that the key could not be read.
    fn verdicts(&self) -> impl Iterator<Item = (&KvKey, &Row, Option<Verdict>)> {
        // Keys whose owner is another account's are left out, and so are those that its items have.
        let is_meant = |row: &Row| {
            let claimant = row.claim.as_ref().map(|claim| &claim.index);
            let indexes = [row.held.owner(), claimant];
            let account = self.account.as_ref();
            account.is_none_or(|it| indexes.iter().flatten().all(|index| index.account == *it))
        };
        self.listing.table.rows.iter().filter(move |(_, row)| is_meant(row)).map(|(key, row)| {
            let is_read = !self.listing.unreadable.contains_key(&key.name);
            (key, row, is_read.then(|| self.listing.table.verdict(key)))
        })
    }

    /// Counts every class, and asks the brakes. Returns what they let through.
    fn count(&self, request: &Reconcile, progress: &mut Progress) -> EnumMap<Namespace, Allowed> {
        let Progress { findings, tallies, .. } = progress;
        findings.add(&self.found);
        let mut to_do: EnumMap<Namespace, Changes> = EnumMap::default();
        for (key, row, verdict) in self.verdicts() {
            let (namespace, name) = (key.namespace, &key.name);
            let counts = &mut findings.counts[namespace];
            let held = u64::from(row.held != Held::Nothing);
            counts[Class::Listed] += held;
            tallies[namespace].ours += u64::from(row.held.owner().is_some());
            let wants = row.claim.as_ref().map(|claim| claim.wants);
            if wants.is_some_and(|wants| wants != Wants::Rejected) {
                counts[Class::Desired] += 1;
                tallies[namespace].desired += 1;
            }
            if !row.others.is_empty() && verdict != Some(Verdict::Conflicting) {
                findings.note(namespace, Class::Conflicting, name);
            }
            let class = match verdict {
                None | Some(Verdict::Failed) => Class::Failed,
                Some(Verdict::Conflicting) => Class::Conflicting,
                Some(Verdict::Missing) => Class::Missing,
                Some(Verdict::Stale) => Class::Stale,
                Some(Verdict::Foreign) => Class::Foreign,
                Some(Verdict::Withheld) => Class::Withheld,
                Some(Verdict::Orphaned) => Class::Orphaned,
                Some(Verdict::Right | Verdict::Rejected) => continue,
            };
            findings.note(namespace, class, name);
            to_do[namespace].delete += u64::from(class == Class::Orphaned);
            to_do[namespace].rewrite += u64::from(class == Class::Stale);
        }
        if self.account.is_none() {
            for index_id in self.listing.table.dangling() {
                findings.note(Namespace::Settings, Class::Dangling, index_id);
            }
        }
        let has_indexes = self.listing.table.has_indexes;
        enum_map! {
            namespace => {
                let tally = &mut tallies[namespace];
                let (allowed, refused) =
                    ask(tally, has_indexes, request.raised, to_do[namespace]);
                findings.refused += refused;
                allowed
            }
        }
    }

    /// Returns what is still allowed of a part that was counted before. Where the table was emptied meanwhile,
    /// nothing is deleted.
    fn recount(
        &self,
        mut allowed: EnumMap<Namespace, Allowed>,
        progress: &mut Progress,
    ) -> EnumMap<Namespace, Allowed> {
        if !self.listing.table.has_indexes {
            for allowed in allowed.values_mut() {
                progress.left_out |= allowed.deletes > 0;
                (allowed.deletes, allowed.spare_deletes) = (0, 0);
            }
        }
        allowed
    }
}

/// Logs what an operator has to know.
fn report_findings(findings: &Findings, api_keys: &ApiKeys) {
    let dangling = findings.sum(Class::Dangling);
    if dangling > 0 {
        warn!(
            dangling,
            examples = findings.examples.text(Class::Dangling),
            "active aliases point at index ids that have neither an item nor a key"
        );
    }
    let failed = findings.sum(Class::Failed);
    if failed > 0 {
        warn!(
            keys = failed,
            cells = api_keys.silent_cells().join(", "),
            "keys could not be compared: the API keys of their accounts are unavailable, or KV can't be read"
        );
    }
}

fn report_refused(request: &Reconcile, table_has_indexes: bool, refused: Changes) {
    let Changes { delete, rewrite } = refused;
    if refused.are_none() || !request.apply {
        return;
    }
    if table_has_indexes {
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

/// Counts what was found, with the last run of a chain over all accounts. What was refused and rewritten counts
/// with each run, because people have to hear of that at once.
fn count_findings<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Reconcile,
    findings: &Findings,
    has_ended: bool,
    rewritten: u64,
) {
    let is_of_fleet = request.system_account_id.is_none() && !request.preview;
    let is_metric = has_ended && is_of_fleet && !invocation.config.dry_run;
    let sum = |class| is_metric.then(|| findings.sum(class));
    let drifted = [Class::Missing, Class::Stale, Class::Orphaned].map(|class| findings.sum(class));
    let urgent = |number: u64| (request.apply && (number > 0 || is_metric)).then_some(number);
    invocation.count(|stats| {
        *stats = Stats {
            desired: sum(Class::Desired),
            listed: sum(Class::Listed),
            foreign: sum(Class::Foreign),
            missing: sum(Class::Missing),
            stale: sum(Class::Stale),
            orphaned: sum(Class::Orphaned),
            drifted_keys: is_metric.then(|| drifted.iter().sum()),
            keys_conflicting: sum(Class::Conflicting),
            keys_withheld: sum(Class::Withheld),
            dangling_aliases: sum(Class::Dangling),
            keys_failed: sum(Class::Failed),
            items_rejected: sum(Class::Rejected),
            repair_refused: urgent(findings.refused.sum()),
            keys_rewritten: urgent(rewritten),
            ..std::mem::take(stats)
        };
    });
}
