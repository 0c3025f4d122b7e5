//! Reconcile: makes KV equal to the table.
//!
//! One run: `list` KV's next keys, make a pass over the table, judge every key, ask the `brakes`, and
//! `carry_out` what they let through. What one run compares is a part; where keys are left to list, or
//! time ends before a part is repaired, the report has a `continue`, which is the chain's [`Progress`].

mod brakes;
mod carry_out;
mod list;
mod progress;
mod report;

use std::collections::BTreeSet;

use enum_map::EnumMap;
use tracing::{error, warn};

pub use self::progress::Progress;
pub use self::report::{Change, Changes, Class, Findings, Report, cut};

use self::carry_out::{Done, Repair};
use self::list::{MAX_BYTES, list};
use self::progress::{OpenPart, Place};
use self::report::{MAX_EXAMPLES, are_none};
use super::api_keys::{ApiKeys, Fallback, NotExportable};
use super::exportable::Exportable;
use super::invocation::Invocation;
use super::judge::{Held, KvKey, Range, Row, Table, Verdict, Wants};
use super::table::pass;
use crate::item::{Item, ItemKey, Rejection};
use crate::kv::{Digest, Namespace};
use crate::ports::{ScanColumns, ServiceError, Services};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconcile {
    /// Whether to repair what differs.
    pub apply: bool,
    /// Whether it is an audit by a version that is not live. Its findings raise no alarm.
    pub preview: bool,
    /// The one account to look at; all of them where absent.
    pub system_account_id: Option<String>,
    /// The numbers to which it raises the brakes, `delete_up_to` and `rewrite_up_to`.
    pub raised: Changes,
    /// How far the chain has come.
    pub progress: Option<Progress>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    #[error("the pass over the table stopped after {items} items; nothing was written")]
    PassStopped {
        items: usize,
        #[source]
        error: ServiceError,
    },
    #[error("the account's items can't be read; nothing was written")]
    AccountUnread(#[from] ServiceError),
    #[error("the listing of {namespace:?} stopped after {keys} keys; nothing was written")]
    ListingStopped {
        namespace: Namespace,
        keys: usize,
        #[source]
        error: ServiceError,
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
    let config = invocation.config;
    let progress = request.progress.clone();
    let mut progress = progress.unwrap_or_else(|| Progress::at_start(request, &config.environment));
    let open = progress.open.take();
    let is_resumed = open.is_some();
    let range = Range {
        from: progress.place.key.clone(),
        to: open.as_ref().and_then(|open| open.to.clone()),
        account: request.system_account_id.clone(),
    };
    let mut api_keys = ApiKeys::new(Fallback::Nothing, invocation.budget.api_keys);
    let mut part = list(invocation, range, progress.place.cursor.clone()).await?;
    part.pass_over_table(invocation, &mut api_keys).await?;
    let has_indexes = part.table.has_indexes;
    let mut open = match open {
        Some(open) => resume(open, &part, &mut progress),
        None => {
            let open = begin(&part, request, &mut progress);
            report_findings(&progress.findings, &api_keys);
            report_refused(request, has_indexes, progress.findings.refused);
            open
        }
    };
    let (mut is_finished, mut rewritten) = (true, 0);
    if request.apply && !config.dry_run {
        let mut repair = Repair {
            invocation,
            part: &part,
            api_keys: &mut api_keys,
            request,
            tallies: progress.tallies,
            allowed: open.allowed,
            done: Done::default(),
        };
        is_finished = repair.carry_out().await.is_ok();
        let Repair { tallies, allowed, done, .. } = repair;
        progress.tallies = tallies;
        open.allowed = allowed;
        if is_finished {
            progress.findings.add(&done.failed);
        } else if is_resumed && !done.progressed {
            return Err(ReconcileError::NoProgress);
        }
        if !is_finished || part.end() != open.to.as_ref() {
            progress.open = Some(open);
        }
        rewritten = done.rewritten;
        progress.left_out |= done.left_out;
        report_refused(request, has_indexes, done.findings.refused);
        progress.findings.add(&done.findings);
    }
    let stopped = match (is_finished, part.end()) {
        (false, _) => Some("the time was up before all of this part was repaired"),
        (true, Some(end)) => {
            progress.place = part.place_of(end.clone());
            Some("the keys that are left have a run of their own")
        }
        (true, None) => None,
    };
    if let Some(reason) = stopped {
        warn!(reason, "reconcile goes on in the next run");
    }
    let has_ended = stopped.is_none();
    let is_whole = are_none(&progress.findings.refused) && !progress.left_out;
    count_findings(invocation, request, &progress.findings, has_ended, rewritten);
    Ok(Report {
        apply: request.apply,
        complete: has_ended && (is_whole || !request.apply),
        next_run: (!has_ended).then(|| progress.to_text()),
        stopped,
        findings: progress.findings,
        dry_run: config.dry_run,
    })
}

/// Adds what is found of a part to the chain's findings, and asks the brakes.
fn begin(part: &Part, request: &Reconcile, progress: &mut Progress) -> OpenPart {
    let Progress { findings, tallies, .. } = progress;
    let (found, ours) = part.compare();
    let mut allowed: EnumMap<Namespace, Changes> = EnumMap::default();
    for (namespace, tally) in tallies {
        let counts = &found.counts[namespace];
        tally.ours += ours[namespace];
        tally.desired += counts[Class::Desired];
        for (change, class) in [(Change::Delete, Class::Orphaned), (Change::Rewrite, Class::Stale)]
        {
            let keys = counts[class];
            let has_indexes = part.table.has_indexes;
            if tally.ask_for(change, keys, request.raised, has_indexes) {
                allowed[namespace][change] = keys;
            } else {
                findings.refused[change] += keys;
            }
        }
    }
    findings.add(&found);
    if request.system_account_id.is_none() {
        for index_id in part.table.dangling() {
            findings.note(Namespace::Settings, Class::Dangling, index_id);
        }
    }
    let unjudged = found.counts.map(|_, counts| counts[Class::Failed]);
    OpenPart { to: part.end().cloned(), allowed, unjudged }
}

/// Takes up a part again. It counts as it was when it was first compared, but for keys that could be judged
/// then: those have failed now. A part that is not listed whole this time keeps its end.
fn resume(mut open: OpenPart, part: &Part, progress: &mut Progress) -> OpenPart {
    let (found, _) = part.compare();
    for (namespace, unjudged) in &mut open.unjudged {
        let failed = found.counts[namespace][Class::Failed];
        let newly = failed.saturating_sub(*unjudged);
        progress.findings.counts[namespace][Class::Failed] += newly;
        *unjudged += newly;
    }
    if !part.table.has_indexes {
        // The table was emptied meanwhile.
        open.allowed.values_mut().for_each(|allowed| allowed[Change::Delete] = 0);
    }
    open
}

/// What one run compares: the keys of a range.
#[derive(Default)]
struct Part {
    table: Table,
    /// The first key that each page of the listing can have, and the cursor that leads to the page.
    pages: Vec<(KvKey, Option<String>)>,
    /// Keys that could not be read.
    unreadable: BTreeSet<String>,
    /// The keys of the items that can't be exported.
    rejected: BTreeSet<KvKey>,
}

impl Part {
    /// Returns the key with which the next part begins, `None` where nothing is left.
    fn end(&self) -> Option<&KvKey> {
        self.table.range.to.as_ref()
    }

    /// Returns the place of a key with which a later part begins.
    fn place_of(&self, key: KvKey) -> Place {
        let mut before = self.pages.iter().rev();
        let page = before.find(|(first, _)| *first <= key && first.namespace == key.namespace);
        Place { cursor: page.and_then(|(_, cursor)| cursor.clone()), key }
    }

    /// Returns whether an account's items and keys are compared.
    fn is_of(&self, account: &str) -> bool {
        self.table.range.is_of(account)
    }

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
        let decode = |(key, item): &(ItemKey, Item)| {
            Some(Exportable::decode(&key.item()?, item, invocation.config))
        };
        let decoded: Vec<Option<Result<Exportable, Rejection>>> = page.iter().map(decode).collect();
        let exportable = decoded.iter().flatten().flatten();
        api_keys.find(invocation, exportable.filter(|item| self.compares(item))).await;
        for ((key, item), decoded) in page.iter().zip(decoded) {
            let wants = match decoded {
                None => Wants::Unmade,
                Some(Err(rejection)) => self.reject(key, &rejection),
                Some(Ok(exportable)) if !self.compares(&exportable) => Wants::Unmade,
                Some(Ok(exportable)) => match exportable.value(api_keys) {
                    Ok(value) => Wants::Value(Digest::of(value.as_bytes())),
                    Err(NotExportable::Rejected(rejection)) => self.reject(key, &rejection),
                    Err(NotExportable::Unavailable(_)) => Wants::Unavailable,
                },
            };
            self.table.add(key, &item.attributes(), wants);
        }
        self.table.shrink(MAX_BYTES);
        self.rejected.retain(|key| self.table.covers(key));
    }

    /// Returns whether an item asks for keys that this run compares.
    fn compares(&self, Exportable { item, keys, .. }: &Exportable) -> bool {
        let namespace = item.namespace();
        let mut keys = keys.iter().map(|name| KvKey { namespace, name: name.clone() });
        self.is_of(&item.index.account) && keys.any(|key| self.table.covers(&key))
    }

    /// Counts and logs an item that can't be exported, in the part that has its key. It is logged as a warning:
    /// every run finds it again until it is corrected.
    fn reject(&mut self, key: &ItemKey, rejection: &Rejection) -> Wants {
        let Some(item) = key.item() else { return Wants::Rejected };
        let kv_key = KvKey { namespace: item.namespace(), name: item.kv_key() };
        if self.is_of(&key.pk) && self.table.covers(&kv_key) {
            if self.rejected.len() < MAX_EXAMPLES {
                warn!(
                    key = kv_key.name,
                    system_account_id = item.index.account,
                    index_name = item.index.name,
                    path = rejection.path,
                    error = %rejection,
                    "an item can't be exported: what KV holds of it stays"
                );
            }
            self.table.bytes += kv_key.name.len();
            self.rejected.insert(kv_key);
        }
        Wants::Rejected
    }

    /// Returns the keys that are compared, with their verdicts. A key that could not be read has failed.
    fn verdicts(&self) -> impl Iterator<Item = (&KvKey, &Row, Verdict)> {
        // Keys whose owner is another account's are left out, and so are those that its items have, and those that
        // nobody has.
        let is_meant = |row: &Row| {
            let claimant = row.claim.as_ref().map(|claim| &claim.index);
            let is_of_nobody = row.held == Held::Nothing && claimant.is_none();
            let mut indexes = row.held.owner().into_iter().chain(claimant);
            !is_of_nobody && indexes.all(|index| self.is_of(&index.account))
        };
        self.table.rows.iter().filter(move |(_, row)| is_meant(row)).map(|(key, row)| {
            let is_read = !self.unreadable.contains(&key.name);
            (key, row, if is_read { self.table.verdict(key) } else { Verdict::Failed })
        })
    }

    /// Returns what is found, and how many of the listed keys are ours.
    fn compare(&self) -> (Findings, EnumMap<Namespace, u64>) {
        let mut findings = Findings::default();
        let mut ours = EnumMap::default();
        for key in &self.rejected {
            findings.note(key.namespace, Class::Rejected, &key.name);
        }
        for (key, row, verdict) in self.verdicts() {
            let (namespace, name) = (key.namespace, &key.name);
            let counts = &mut findings.counts[namespace];
            counts[Class::Listed] += u64::from(row.held != Held::Nothing);
            let claim = row.claim.as_ref();
            let is_desired = claim.is_some_and(|claim| claim.wants != Wants::Rejected);
            counts[Class::Desired] += u64::from(is_desired);
            ours[namespace] += u64::from(row.held.owner().is_some());
            if !row.others.is_empty() && verdict != Verdict::Conflicting {
                findings.note(namespace, Class::Conflicting, name);
            }
            let class = match verdict {
                Verdict::Failed => Class::Failed,
                Verdict::Conflicting => Class::Conflicting,
                Verdict::Missing => Class::Missing,
                Verdict::Stale => Class::Stale,
                Verdict::Foreign => Class::Foreign,
                Verdict::Withheld => Class::Withheld,
                Verdict::Orphaned => Class::Orphaned,
                Verdict::Right | Verdict::Rejected => continue,
            };
            findings.note(namespace, class, name);
        }
        (findings, ours)
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
    if are_none(&refused) || !request.apply {
        return;
    }
    let (delete, rewrite) = (refused[Change::Delete], refused[Change::Rewrite]);
    let message = if table_has_indexes {
        "repair refused: it would delete or rewrite more keys than a chain may; if an audit shows that this is right, repair again with delete_up_to and rewrite_up_to raised"
    } else {
        "repair refused: the table has no index item, so nothing is deleted, whatever delete_up_to says; is it the right table, and whole?"
    };
    error!(message, delete, rewrite);
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
    let is_of_fleet =
        request.system_account_id.is_none() && !request.preview && !invocation.config.dry_run;
    let is_metric = has_ended && is_of_fleet;
    let sum = |class| is_metric.then(|| findings.sum(class));
    let urgent = |number: u64| (request.apply && (number > 0 || is_metric)).then_some(number);
    invocation.count(|stats| {
        // With each run of a repair, because what it rewrites is counted then, as a share of it.
        stats.desired =
            (is_of_fleet && (has_ended || request.apply)).then(|| findings.sum(Class::Desired));
        stats.listed = sum(Class::Listed);
        stats.foreign = sum(Class::Foreign);
        stats.missing = sum(Class::Missing);
        stats.stale = sum(Class::Stale);
        stats.orphaned = sum(Class::Orphaned);
        stats.drifted_keys = [stats.missing, stats.stale, stats.orphaned].into_iter().sum();
        stats.keys_conflicting = sum(Class::Conflicting);
        stats.keys_withheld = sum(Class::Withheld);
        stats.dangling_aliases = sum(Class::Dangling);
        stats.keys_failed = sum(Class::Failed);
        stats.items_rejected = sum(Class::Rejected);
        stats.repair_refused = urgent(findings.refused.values().sum());
        stats.keys_rewritten = urgent(rewritten);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{
        Fakes, KvFault, TableChange, down, entry, index_item, item, kv_error, settings_of, shop,
    };
    use crate::index::{IndexRef, ItemRef};
    use crate::kv::{Source, StoredValue};
    use crate::ports::ErrorKind;
    use crate::ports::ListPage;
    use crate::telemetry::Stats;
    use serde_json::{Value, json};
    use std::time::Duration;
    use tokio::time::Instant;

    fn repair() -> Reconcile {
        Reconcile { apply: true, ..Reconcile::default() }
    }

    async fn run(fakes: &Fakes, request: &Reconcile) -> (Report, Stats) {
        let invocation = fakes.invocation(Source::Reconcile);
        let report = reconcile(&invocation, request).await.unwrap();
        (report, invocation.stats())
    }

    async fn run_within(
        fakes: &Fakes,
        seconds: u64,
        request: &Reconcile,
    ) -> Result<Report, ReconcileError> {
        let mut invocation = fakes.invocation(Source::Reconcile);
        invocation.budget.deadline = Instant::now() + Duration::from_secs(seconds);
        reconcile(&invocation, request).await
    }

    /// The next run of a repair.
    fn after(report: &Report) -> Reconcile {
        let progress = Progress::parse(report.next_run.as_ref().unwrap());
        Reconcile { progress, ..repair() }
    }

    /// The counts of a namespace that are not zero.
    fn counts(report: &Report, namespace: &str) -> Value {
        let report = serde_json::to_value(report).unwrap();
        let counts = report[namespace].as_object().unwrap().clone();
        counts.into_iter().filter(|(_, count)| *count != 0).collect()
    }

    /// Services with one index, whose key KV lacks, and this number of orphans.
    fn with_orphans(orphans: usize) -> Fakes {
        let fakes = Fakes::new();
        fakes.table.put(index_item("i", &json!({})));
        for number in 0..orphans {
            fakes.kv.hold_entry(&format!("orphan-{number:03}"), &entry("gone", &json!({})));
        }
        fakes
    }

    /// An index item of account b.
    fn item_of_b(name: &str, attributes: &Value) -> (ItemKey, Item) {
        let mut all = json!({"index_endpoint": {"S": "https://h"}});
        all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        item(&ItemRef::from(IndexRef::parse("b", name).unwrap()), &all)
    }

    fn refused() -> KvFault {
        KvFault::Fails(kv_error(ErrorKind::Refused))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stale_key_is_rewritten_and_one_that_cannot_be_written_is_counted_and_stays() {
        let fakes = with_orphans(0);
        fakes.kv.hold_entry("a-i", &entry("i", &json!({})));
        fakes.table.put(index_item("taken", &json!({})));
        let mut taken = entry("taken", &json!({})).metadata().unwrap();
        taken.environment = Some("dev".to_owned());
        fakes.kv.hold_entry("a-taken", &StoredValue::new("{}", taken));
        fakes.table.put(item_of_b("without-api-key", &shop("a-taken")));
        fakes.api_keys.faults.then_nothing(1);
        fakes.api_keys.faults.then((0..4).map(|_| down()));
        let (report, stats) = run(&fakes, &repair()).await;
        let expected = json!({
            "desired": 3, "listed": 2, "stale": 1, "conflicting": 1, "failed": 1, "written": 1,
        });
        assert_eq!(counts(&report, "settings"), expected);
        assert_eq!((stats.keys_rewritten, stats.repair_refused), (Some(1), Some(0)));
        assert_eq!(fakes.kv.value("a-taken"), json!({}));
        assert_eq!(fakes.kv.keys(), ["a-i", "a-taken"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_without_index_items_deletes_nothing_whatever_is_raised() {
        let fakes = with_orphans(2);
        fakes.table.remove(&settings_of("i").key());
        let raised = EnumMap::from_fn(|_| u64::MAX);
        let (report, stats) = run(&fakes, &Reconcile { raised, ..repair() }).await;
        assert_eq!(counts(&report, "settings"), json!({"listed": 2, "orphaned": 2}));
        assert_eq!(report.findings.refused[Change::Delete], 2);
        assert_eq!((report.complete, stats.repair_refused), (false, Some(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_for_an_item_that_went_meanwhile_goes_within_the_brake() {
        for (orphans, deleted, refused, is_complete) in [(98, 100, 0, true), (99, 99, 2, false)] {
            let fakes = with_orphans(orphans);
            fakes.table.put(index_item("i", &shop("s")));
            fakes.table.put(index_item("other", &json!({"index_endpoint": null})));
            // The pass, and the first read.
            fakes.table.changes.then_nothing(2);
            fakes.table.changes.then([TableChange::Remove(settings_of("i").key())]);
            let (report, _) = run(&fakes, &repair()).await;
            assert_eq!(report.findings.sum(Class::Deleted), deleted, "{orphans} orphans");
            assert_eq!(report.findings.refused[Change::Delete], refused, "{orphans} orphans");
            assert_eq!(report.complete, is_complete, "{orphans} orphans");
            assert_eq!(fakes.kv.keys().len() as u64, refused, "{orphans} orphans");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_repair_left_behind_and_removed_counts_for_the_brake_of_its_chain() {
        let fakes = with_orphans(1);
        // The pass, and the first read. Then the removal waits for KV, so that no time is left for the orphan.
        fakes.table.changes.then_nothing(2);
        fakes.table.changes.then([TableChange::Remove(settings_of("i").key())]);
        fakes.kv.faults.then_nothing(3);
        fakes.kv.faults.then([KvFault::TimesOut]);
        let report = run_within(&fakes, 40, &repair()).await.unwrap();
        assert_eq!(report.findings.sum(Class::Deleted), 1);
        let tally = after(&report).progress.unwrap().tallies[Namespace::Settings];
        let deletes = tally.let_through[Change::Delete];
        assert_eq!(deletes, 2, "the orphan that was let through, and the key that was left behind");
    }

    #[tokio::test(start_paused = true)]
    async fn an_orphan_that_is_protected_meanwhile_stays_and_one_of_unknown_item_fails() {
        let fakes = with_orphans(1);
        // The pass, and the two reads of `i`.
        fakes.table.changes.then_nothing(3);
        let pointer = index_item("x", &json!({"read_alias": {"S": "orphan-000"}}));
        fakes.table.changes.then([TableChange::Put(pointer)]);
        fakes.kv.hold_entry("qcfg-unknown", &entry("i", &json!({"x": 1})));
        let (report, _) = run(&fakes, &repair()).await;
        let settings =
            json!({"desired": 1, "listed": 1, "missing": 1, "orphaned": 1, "written": 1});
        assert_eq!(counts(&report, "settings"), settings);
        let query_configs = json!({"listed": 1, "orphaned": 1, "failed": 1});
        assert_eq!(counts(&report, "query_configs"), query_configs);
        assert_eq!(fakes.kv.keys(), ["a-i", "orphan-000", "qcfg-unknown"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_was_not_repaired_is_taken_up_again_with_its_counts() {
        let fakes = with_orphans(100);
        let mut invocation = fakes.invocation(Source::Reconcile);
        invocation.budget.deadline = Instant::now() + Duration::from_secs(9);
        let first = reconcile(&invocation, &repair()).await.unwrap();
        assert!(!first.complete && first.stopped.is_some());
        let found = json!({"desired": 1, "listed": 100, "missing": 1, "orphaned": 100});
        assert_eq!(counts(&first, "settings"), found);
        assert_eq!(invocation.stats().missing, None, "the chain has not ended");
        assert_eq!(invocation.stats().desired, Some(1), "what is rewritten is a share of it");
        let stopped = run_within(&fakes, 9, &after(&first)).await;
        assert_eq!(stopped, Err(ReconcileError::NoProgress));
        let report = run_within(&fakes, 11, &after(&first)).await.unwrap();
        let expected = json!({
            "desired": 1, "listed": 100, "missing": 1, "orphaned": 100, "written": 1, "deleted": 100,
        });
        assert_eq!(counts(&report, "settings"), expected);
        assert!(report.complete && report.next_run.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_changed_when_a_part_is_taken_up_again() {
        let nothing = |_: &Fakes| {};
        let gateway_breaks = |fakes: &Fakes| fakes.api_keys.faults.then((0..4).map(|_| down()));
        let orphan_comes =
            |fakes: &Fakes| fakes.kv.hold_entry("orphan-new", &entry("gone", &json!({})));
        let table_is_emptied = |fakes: &Fakes| fakes.table.remove(&settings_of("i").key());
        type Event = fn(&Fakes);
        let rows: [(&str, Event, Event, [u64; 4], bool); 5] = [
            ("an orphan has come", nothing, orphan_comes, [2, 2, 1, 0], false),
            ("the table was emptied", nothing, table_is_emptied, [2, 0, 0, 0], false),
            ("the gateway broke", nothing, gateway_breaks, [2, 2, 0, 1], true),
            ("the gateway works again", gateway_breaks, nothing, [2, 2, 1, 1], true),
            ("the gateway is still broken", gateway_breaks, gateway_breaks, [2, 2, 0, 1], true),
        ];
        for (name, before, meanwhile, expected, is_complete) in rows {
            let fakes = with_orphans(2);
            before(&fakes);
            let first = run_within(&fakes, 9, &repair()).await.unwrap();
            meanwhile(&fakes);
            let (report, _) = run(&fakes, &after(&first)).await;
            let classes = [Class::Orphaned, Class::Deleted, Class::Written, Class::Failed];
            assert_eq!(classes.map(|class| report.findings.sum(class)), expected, "{name}");
            assert_eq!(report.complete, is_complete, "{name}");
            assert!(report.next_run.is_none() && are_none(&report.findings.refused), "{name}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_judged_in_several_runs_fails_once() {
        let mut part = Part::default();
        part.table.hold(KvKey::of_settings("k"), Held::Stranger);
        part.unreadable.insert("k".to_owned());
        let mut progress = Progress::default();
        let mut open = OpenPart::default();
        for _ in 0..3 {
            open = resume(open, &part, &mut progress);
            assert_eq!(progress.findings.sum(Class::Failed), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_is_listed_in_pieces_when_it_is_taken_up_again_stays_one_part() {
        let fakes = with_orphans(100);
        let first = run_within(&fakes, 9, &repair()).await.unwrap();
        // A page that takes half of the time is the last of its run.
        let names = (0..40).map(|number| format!("orphan-{number:03}"));
        let metadata = || entry("gone", &json!({})).metadata();
        let keys: Vec<_> = names.map(|name| (name, metadata())).collect();
        fakes.kv.faults.then([KvFault::TimesOut]);
        fakes.kv.pages.then([ListPage { keys, cursor: Some("orphan-039".to_owned()) }]);
        let second = run_within(&fakes, 60, &after(&first)).await.unwrap();
        assert_eq!(second.findings.sum(Class::Deleted), 40);
        let (third, _) = run(&fakes, &after(&second)).await;
        let classes = [Class::Listed, Class::Orphaned, Class::Deleted];
        assert_eq!(classes.map(|class| third.findings.sum(class)), [100; 3]);
        assert!(third.complete, "{third:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_run_gets_done_is_no_longer_let_through_for_the_next() {
        let fakes = with_orphans(1);
        fakes.kv.hold_entry("a-i", &entry("i", &json!({})));
        let first = run_within(&fakes, 9, &repair()).await.unwrap();
        // The two listings. Then the write waits for KV, so that no time is left for the orphan.
        fakes.kv.faults.then_nothing(2);
        fakes.kv.faults.then([KvFault::TimesOut]);
        let second = run_within(&fakes, 40, &after(&first)).await.unwrap();
        let left = |report: &Report| after(report).progress.unwrap().open.unwrap().allowed;
        let of_settings = |report: &Report| left(report)[Namespace::Settings].into_array();
        assert_eq!(of_settings(&first), [1, 1], "the delete, and the rewrite");
        assert_eq!(of_settings(&second), [1, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_counted_once_unless_two_runs_get_nothing_done() {
        for (name, seconds, time_outs, expected) in [
            ("time for the orphan", 300, 0, Ok([1, 1])),
            ("no time for the orphan", 40, 1, Err(ReconcileError::NoProgress)),
        ] {
            let fakes = with_orphans(1);
            // The two listings. Then the write of the missing key fails.
            let write_fails = |time_outs| {
                fakes.kv.faults.then_nothing(2);
                fakes.kv.faults.then((0..time_outs).map(|_| KvFault::TimesOut));
                fakes.kv.faults.then([refused()]);
            };
            write_fails(1);
            let first = run_within(&fakes, 40, &repair()).await.unwrap();
            assert_eq!(first.findings.sum(Class::Failed), 0, "the next run tries it again");
            write_fails(time_outs);
            let second = run_within(&fakes, seconds, &after(&first)).await;
            let counts = second.map(|report| {
                [Class::Failed, Class::Deleted].map(|class| report.findings.sum(class))
            });
            assert_eq!(counts, expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cell_that_hangs_keeps_no_orphan() {
        let fakes = with_orphans(1);
        fakes.api_keys.delays.borrow_mut().insert("a".to_owned(), Duration::from_secs(3_600));
        let (report, _) = run(&fakes, &repair()).await;
        assert_eq!(counts(&report, "settings")["deleted"], 1);
        assert_eq!(counts(&report, "settings")["failed"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_account_leaves_out_what_is_anothers_and_fails_a_shop_id_that_cannot_be_read() {
        let fakes = Fakes::new();
        fakes.table.put(index_item("i", &shop("s")));
        fakes.table.put(index_item("broken", &json!({"index_endpoint": null})));
        fakes.table.put(index_item("points", &json!({"read_alias": {"S": "nowhere"}})));
        fakes.table.put(item_of_b("j", &shop("s")));
        let request = Reconcile { system_account_id: Some("b".to_owned()), ..repair() };
        let (report, _) = run(&fakes, &request).await;
        assert_eq!(fakes.kv.keys(), ["b-j"], "by order, a's item has the shop id");
        let expected = json!({"desired": 1, "missing": 1, "written": 1});
        assert_eq!(counts(&report, "settings"), expected);
        // The two listings.
        fakes.kv.faults.then_nothing(2);
        fakes.kv.faults.then([refused()]);
        let (report, _) = run(&fakes, &request).await;
        assert_eq!(counts(&report, "settings"), json!({"desired": 2, "listed": 1, "failed": 1}));
    }

    #[tokio::test(start_paused = true)]
    async fn which_runs_emit_metrics_and_which_write() {
        let preview = Reconcile { preview: true, ..Reconcile::default() };
        let one_account = Reconcile { system_account_id: Some("a".to_owned()), ..repair() };
        for (name, request, is_dry, emits, writes) in [
            ("an audit", Reconcile::default(), false, true, false),
            ("a preview", preview, false, false, false),
            ("a repair", repair(), false, true, true),
            ("a dry run", repair(), true, false, false),
            ("one account", one_account, false, false, true),
        ] {
            let mut fakes = with_orphans(0);
            fakes.0.config.dry_run = is_dry;
            let (report, stats) = run(&fakes, &request).await;
            assert_eq!(report.dry_run, is_dry, "{name}");
            let metrics = (stats.missing.is_some(), stats.drifted_keys.is_some());
            assert_eq!(metrics, (emits, emits), "{name}");
            assert_eq!(!fakes.kv.keys().is_empty(), writes, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_fails_ends_the_run() {
        let fakes = with_orphans(1);
        fakes.table.changes.then([TableChange::Fails]);
        let error = run_within(&fakes, 60, &repair()).await.unwrap_err();
        let expected = "the pass over the table stopped after 0 items; nothing was written";
        assert_eq!(error.to_string(), expected);
        assert_eq!(fakes.kv.keys(), ["orphan-000"]);
    }
}
