//! Reconcile: makes KV equal to the table, from a pass over the one and a listing of the other.
//!
//! Scan (digests of what the table asks for) → list (compare, by the metadata's digests) → look
//! at the orphans → with `apply`: write what is missing or stale, settle the orphans. Nothing is
//! deleted on the scan's or the listing's word: [`settle`] and [`query_configs::remove`] look for
//! themselves.
//!
//! | KV has the key | items that ask for it | class |
//! | --- | --- | --- |
//! | no | one that can be exported | missing |
//! | with another digest, or without our metadata | one that can be exported | stale |
//! | named for another account, in a run of one account | one of this account | stale, or conflicting if settling says so |
//! | yes or no | one that can't be exported | (stays) |
//! | with our metadata | none | orphaned, or withheld if settling says so |
//! | without our metadata | none | foreign |

mod pass;
mod report;
mod rows;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use tracing::{error, warn};

pub use self::report::{Counts, Report};

use self::pass::Pass;
use self::rows::{Compared, Rows, Wanted};
use self::write::{Work, Written, write};
use crate::api_keys::{ApiKeys, Gathering, KeyOwner};
use crate::bulk;
use crate::digest::Digest;
use crate::entry::Metadata;
use crate::limits::check_key;
use crate::payload::Reconcile;
use crate::ports::{ApiKeyError, KvError, KvStore, ListPage, Namespace, Services};
use crate::query_configs;
use crate::record::alias_targets::{AliasTarget, alias_targets};
use crate::record::index_settings::readable_shop_id;
use crate::record::{
    Image, IndexRef, IndexSettings, Item, ItemKey, ItemKind, QueryConfigRef, Rejection,
};
use crate::run::Run;
use crate::settings_keys::{key_owner, rejected_account};
use crate::settle::{self, SettleRequest, Verdict};
use crate::stream::{decode_query_config, decode_settings};

const NAMESPACES: [Namespace; 2] = [Namespace::Settings, Namespace::QueryConfigs];

/// Keys that are written or settled in one go; bounds what is held of them at once.
const WORK_KEYS: usize = 10_000;

/// Why a reconcile failed before it could report anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    /// Cloudflare refuses the token.
    #[error("{0}")]
    CloudflareAuthRejected(KvError),
    /// A service failed; nothing was written.
    #[error("{0}; nothing was written")]
    Incomplete(String),
}

/// Compares KV with the table, and repairs what differs if asked to.
pub async fn reconcile<S: Services>(
    run: &Run<'_, S>,
    request: &Reconcile,
) -> Result<Report, ReconcileError> {
    let mut reconciling = Reconciling {
        run,
        account: request.system_account_id.as_deref(),
        report: Report { apply: request.apply, ..Report::default() },
        settings: Rows::default(),
        query_configs: Rows::default(),
        api_keys: ApiKeys::new(),
        pointed_at: BTreeSet::new(),
        orphans: BTreeMap::new(),
        contested: BTreeSet::new(),
    };
    reconciling.scan().await?;
    reconciling.list().await?;
    reconciling.name_missing().await;
    reconciling.look_at_orphans().await;
    reconciling.find_dangling().await;
    let report = &reconciling.report;
    let (drifted, dangling) = (report.drifted(), report.settings.dangling);
    run.count(|tally| {
        tally.drifted_keys = Some(drifted);
        tally.dangling_aliases = Some(dangling);
    });
    if request.apply {
        reconciling.repair().await;
    }
    if run.is_out_of_time() {
        reconciling.stop("the invocation's time is up".to_owned());
    }
    reconciling.report.complete = reconciling.report.stopped.is_none();
    let failed = reconciling.report.total(|counts| counts.failed);
    run.count(|tally| tally.keys_failed = Some(failed));
    Ok(reconciling.report)
}

struct Reconciling<'a, S> {
    run: &'a Run<'a, S>,
    account: Option<&'a str>,
    report: Report,
    settings: Rows,
    query_configs: Rows,
    api_keys: ApiKeys,
    /// Index ids that active aliases of the items looked at point at, until something is found
    /// under them.
    pointed_at: BTreeSet<String>,
    /// Keys with our metadata that no item asks for; those of the settings that are to be settled,
    /// once they were looked at.
    orphans: BTreeMap<Namespace, Vec<String>>,
    /// Settings keys that the account asks for and that KV names for another one, whose items this
    /// run has not seen.
    contested: BTreeSet<String>,
}

impl<S: Services> Reconciling<'_, S> {
    fn rows(&mut self, namespace: Namespace) -> &mut Rows {
        match namespace {
            Namespace::Settings => &mut self.settings,
            Namespace::QueryConfigs => &mut self.query_configs,
        }
    }

    /// Reads the table: what it asks for, as digests.
    async fn scan(&mut self) -> Result<(), ReconcileError> {
        let mut pass = Pass::new(self.run, self.account);
        let mut scanned = 0;
        loop {
            let items = match pass.next().await {
                Ok(Some(items)) => items,
                Ok(None) => break,
                Err(reason) => {
                    let what =
                        format!("the pass over the table stopped after {scanned} items: {reason}");
                    return Err(ReconcileError::Incomplete(what));
                }
            };
            scanned += items.len();
            let mut settings = Vec::new();
            for (key, item) in &items {
                match key.kind() {
                    ItemKind::IndexSettings(index) => {
                        let image = item.image().map_err(|error| unreadable(&index, &error))?;
                        self.note_aliases(&index, &image);
                        let decoded = decode_settings(&index, &image);
                        settings.push((index, readable_shop_id(&image), decoded));
                    }
                    ItemKind::QueryConfig(config) => self.add_query_config(&config, item),
                    ItemKind::Skipped => {}
                }
            }
            self.gather(settings.iter().filter_map(|(_, _, decoded)| decoded.as_ref().ok())).await;
            for (index, shop_id, decoded) in settings {
                self.add_settings(&index, shop_id, decoded);
            }
        }
        for namespace in NAMESPACES {
            self.rows(namespace).sort();
            let (desired, conflicting) =
                (self.rows(namespace).desired(), self.rows(namespace).conflicting());
            let counts = self.report.counts(namespace);
            (counts.desired, counts.conflicting) = (desired, conflicting);
        }
        Ok(())
    }

    fn note_aliases(&mut self, index: &IndexRef, image: &Image<'_>) {
        let own = index.index_id();
        for target in alias_targets(index, image) {
            if let AliasTarget::IndexId(index_id) = target
                && index_id != own
            {
                self.pointed_at.insert(index_id);
            }
        }
    }

    /// Asks for the API keys of a page's accounts that are not known yet.
    async fn gather(&mut self, settings: impl Iterator<Item = &IndexSettings>) {
        let owners: BTreeSet<KeyOwner> = settings
            .filter_map(|settings| key_owner(self.run.limits, settings).ok())
            .filter(|owner| !self.api_keys.contains_key(owner))
            .collect();
        if !owners.is_empty() {
            let found = Gathering::start(self.run, owners).rest().await;
            self.api_keys.extend(found);
        }
    }

    fn add_settings(
        &mut self,
        index: &IndexRef,
        shop_id: Option<String>,
        decoded: Result<IndexSettings, Rejection>,
    ) {
        let wanted = decoded.as_ref().map_err(Rejection::clone).and_then(|settings| {
            let owner = key_owner(self.run.limits, settings)?;
            match self.api_keys.get(&owner) {
                Some(Ok(key)) => {
                    use secrecy::ExposeSecret;
                    Ok(Wanted::Value(settings.digest(key.expose_secret())))
                }
                Some(Err(ApiKeyError::Unavailable { .. })) | None => Ok(Wanted::Unknown),
                Some(Err(error)) => Err(rejected_account(error)),
            }
        });
        let wanted = wanted.unwrap_or_else(|rejection| {
            self.reject(Namespace::Settings, index, &index.index_id(), &rejection);
            Wanted::Rejected
        });
        let keys = match &decoded {
            Ok(settings) => settings.kv_keys(),
            Err(_) => {
                let mut keys = vec![index.index_id()];
                keys.extend(shop_id.filter(|shop_id| *shop_id != keys[0]));
                keys
            }
        };
        for key in keys.iter().filter(|key| check_key(key).is_ok()) {
            self.settings.add(key, index, wanted);
        }
    }

    fn add_query_config(&mut self, config: &QueryConfigRef, item: &Item) {
        let key = config.kv_key();
        match item.image().and_then(|image| decode_query_config(config, &image)) {
            Ok(decoded) => {
                let wanted = Wanted::Value(Digest::of(decoded.value.as_bytes()));
                self.query_configs.add(&key, &config.index, wanted);
            }
            Err(rejection) => {
                self.reject(Namespace::QueryConfigs, &config.index, &key, &rejection);
                if check_key(&key).is_ok() {
                    self.query_configs.add(&key, &config.index, Wanted::Rejected);
                }
            }
        }
    }

    fn reject(&mut self, namespace: Namespace, index: &IndexRef, key: &str, rejection: &Rejection) {
        error!(
            system_account_id = index.account,
            index_name = index.index,
            path = rejection.path,
            error = %rejection,
            "an item can't be exported: what KV holds of it stays"
        );
        self.report.counts(namespace).rejected += 1;
        self.report.example("rejected", key);
    }

    /// Lists both namespaces and compares each key.
    async fn list(&mut self) -> Result<(), ReconcileError> {
        for namespace in NAMESPACES {
            let prefix = match (namespace, self.account) {
                (Namespace::QueryConfigs, Some(account)) => format!("qcfg-{account}-"),
                _ => String::new(),
            };
            let mut cursor: Option<String> = None;
            loop {
                let kv = self.run.services.kv();
                let page = bulk::request(self.run, async || {
                    kv.list(namespace, &prefix, cursor.as_deref()).await
                });
                let page: ListPage = match page.await {
                    Ok(page) => page,
                    Err(error @ KvError::AuthRejected { .. }) => {
                        return Err(ReconcileError::CloudflareAuthRejected(error));
                    }
                    Err(error) => {
                        let listed = self.report.counts(namespace).listed;
                        let what = format!(
                            "the listing of {namespace:?} stopped after {listed} keys: {error}"
                        );
                        return Err(ReconcileError::Incomplete(what));
                    }
                };
                for (key, metadata) in &page.keys {
                    self.compare(namespace, key, metadata.as_ref());
                }
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
            }
            let unlisted = self.rows(namespace).close_listing();
            let counts = self.report.counts(namespace);
            counts.missing = unlisted.missing;
            counts.failed += unlisted.unknown;
        }
        let open: u64 = NAMESPACES.iter().map(|name| self.report.counts(*name).failed).sum();
        if open > 0 {
            warn!(
                keys = open,
                "keys could not be judged: their accounts' API keys can't be had for now"
            );
        }
        Ok(())
    }

    fn compare(&mut self, namespace: Namespace, key: &str, metadata: Option<&Metadata>) {
        let named = metadata.map(|metadata| IndexRef {
            account: metadata.system_account_id.clone(),
            index: metadata.index_name.clone(),
        });
        let asked_for = self.rows(namespace).asks_for(key);
        let foreign_account = self
            .account
            .is_some_and(|account| named.as_ref().is_none_or(|named| named.account != account));
        if namespace == Namespace::Settings {
            self.pointed_at.remove(key);
        }
        // Limited to one account, the others' keys are none of this run's business.
        if foreign_account && !asked_for {
            return;
        }
        self.report.counts(namespace).listed += 1;
        if foreign_account && named.is_some() {
            // Whether the other account still asks for the key is for settling to find out.
            self.rows(namespace).leave(key);
            if namespace == Namespace::Settings {
                self.contested.insert(key.to_owned());
            }
            return;
        }
        if self.rows(namespace).is_conflicting(key) {
            self.report.example("conflicting", key);
        }
        let digest = metadata.and_then(|metadata| Digest::from_hex(&metadata.digest));
        match self.rows(namespace).compare(key, named.as_ref(), digest) {
            Compared::Right | Compared::Rejected => {}
            Compared::Stale => {
                self.report.counts(namespace).stale += 1;
                self.report.example("stale", key);
            }
            Compared::Unknown => {
                self.report.counts(namespace).failed += 1;
                self.report.example("failed", key);
            }
            Compared::NotWanted if metadata.is_none() => {
                self.report.counts(namespace).foreign += 1;
                self.report.example("foreign", key);
            }
            Compared::NotWanted => {
                self.orphans.entry(namespace).or_default().push(key.to_owned());
            }
        }
    }

    /// Finds names of missing keys for the report: the rows hold none.
    async fn name_missing(&mut self) {
        let missing: u64 =
            NAMESPACES.iter().map(|namespace| self.report.counts(*namespace).missing).sum();
        if missing == 0 {
            return;
        }
        let mut pass = Pass::new(self.run, self.account);
        while !self.report.has_enough_examples("missing") {
            let Ok(Some(items)) = pass.next().await else { return };
            for (key, item) in &items {
                let Some((namespace, index, keys)) = asked_keys(key, item) else { continue };
                for key in keys {
                    if self.rows(namespace).is_missing(&key, &index) {
                        self.report.example("missing", &key);
                    }
                }
            }
        }
    }

    /// Looks at the orphans as settling would, without doing anything.
    async fn look_at_orphans(&mut self) {
        let orphans = self.orphans.remove(&Namespace::Settings).unwrap_or_default();
        let keys: Vec<String> = orphans.into_iter().chain(self.contested.clone()).collect();
        for keys in keys.chunks(WORK_KEYS) {
            let request =
                SettleRequest { keys: keys.iter().cloned().collect(), ..Default::default() };
            for (key, verdict) in settle::inspect(self.run, request, &mut self.api_keys).await {
                self.judge(key, verdict);
            }
        }
        for key in self.orphans.get(&Namespace::QueryConfigs).cloned().unwrap_or_default() {
            self.report.query_configs.orphaned += 1;
            self.report.example("orphaned", &key);
        }
    }

    /// Counts what settling says of a key, and notes it if there is something to do.
    fn judge(&mut self, key: String, verdict: Verdict) {
        let contested = self.contested.contains(&key);
        let counts = &mut self.report.settings;
        let (count, class) = match verdict {
            Verdict::Failed(reason) => return self.fail(Namespace::Settings, &key, &reason),
            Verdict::Written(index)
                if contested && Some(index.account.as_str()) == self.account =>
            {
                (&mut counts.stale, "stale")
            }
            Verdict::Written(_) if contested => (&mut counts.conflicting, "conflicting"),
            Verdict::Deleted if !contested => (&mut counts.orphaned, "orphaned"),
            Verdict::Withheld(_) => (&mut counts.withheld, "withheld"),
            // Asked for again since the scan, kept for a rejected item, gone, or for others to see
            // to.
            Verdict::Written(_) | Verdict::Deleted | Verdict::Left => return,
        };
        *count += 1;
        self.report.example(class, &key);
        if matches!(class, "stale" | "orphaned") {
            self.orphans.entry(Namespace::Settings).or_default().push(key);
        }
    }

    /// Counts the index ids that aliases point at and that have neither an item nor a key.
    async fn find_dangling(&mut self) {
        let rows = &self.settings;
        let mut dangling: BTreeSet<String> =
            self.pointed_at.iter().filter(|index_id| !rows.asks_for(index_id)).cloned().collect();
        if self.account.is_some() && !dangling.is_empty() {
            // The items of other accounts were not scanned.
            let candidates: BTreeMap<ItemKey, String> = dangling
                .iter()
                .flat_map(|index_id| {
                    possible_indexes(index_id).map(|index| (index.item_key(), index_id.clone()))
                })
                .collect();
            let keys = candidates.keys().cloned().collect();
            match query_configs::read(self.run, &keys).await {
                Ok(found) => {
                    for index_id in found.keys().filter_map(|key| candidates.get(key)) {
                        dangling.remove(index_id);
                    }
                }
                Err(reason) => {
                    self.stop(format!("dangling aliases could not be looked up: {reason}"))
                }
            }
        }
        self.report.settings.dangling = u64::try_from(dangling.len()).unwrap_or(u64::MAX);
        for index_id in &dangling {
            self.report.example("dangling", index_id);
        }
        if !dangling.is_empty() {
            let names: Vec<&str> = dangling.iter().take(20).map(String::as_str).collect();
            warn!(
                dangling = dangling.len(),
                examples = names.join(", "),
                "active aliases point at index ids that have neither an item nor a key"
            );
        }
    }

    /// Writes what is missing or stale, then settles the orphans and what the writes left behind.
    async fn repair(&mut self) {
        let mut left_behind: BTreeSet<String> = BTreeSet::new();
        let mut gone: Vec<QueryConfigRef> = Vec::new();
        let to_write: u64 = NAMESPACES
            .iter()
            .map(|namespace| *self.report.counts(*namespace))
            .map(|counts| counts.missing + counts.stale)
            .sum();
        if to_write > 0 {
            let mut pass = Pass::new(self.run, self.account);
            let mut work: BTreeMap<Namespace, Work> = BTreeMap::new();
            loop {
                let items = match pass.next().await {
                    Ok(items) => items,
                    Err(reason) => {
                        self.stop(format!("the table could not be read to its end: {reason}"));
                        None
                    }
                };
                let ended = items.is_none();
                for (key, item) in items.into_iter().flatten() {
                    let Some((namespace, index, keys)) = asked_keys(&key, &item) else { continue };
                    let rows = self.rows(namespace);
                    let keys: BTreeSet<String> =
                        keys.into_iter().filter(|key| rows.is_to_write(key, &index)).collect();
                    if !keys.is_empty() {
                        work.entry(namespace).or_default().insert(key, keys);
                    }
                }
                for namespace in NAMESPACES {
                    let keys = work
                        .get(&namespace)
                        .map_or(0, |work| work.values().map(BTreeSet::len).sum());
                    if keys >= WORK_KEYS || (ended && keys > 0) {
                        let work = work.remove(&namespace).unwrap_or_default();
                        let written = write(self.run, namespace, work).await;
                        self.note_written(namespace, written, &mut left_behind, &mut gone);
                    }
                }
                if ended {
                    break;
                }
            }
        }
        left_behind.extend(self.orphans.remove(&Namespace::Settings).unwrap_or_default());
        let left_behind: Vec<String> = left_behind.into_iter().collect();
        for keys in left_behind.chunks(WORK_KEYS) {
            self.settle(keys.iter().cloned().collect()).await;
        }
        // A key that several items ask for is another one's now.
        gone.retain(|config| !self.query_configs.is_conflicting(&config.kv_key()));
        self.remove_query_configs(&gone).await;
        let orphans = self.orphans.remove(&Namespace::QueryConfigs).unwrap_or_default();
        for keys in orphans.chunks(WORK_KEYS) {
            self.remove_orphaned_query_configs(keys.to_vec()).await;
        }
    }

    fn note_written(
        &mut self,
        namespace: Namespace,
        written: Written,
        left_behind: &mut BTreeSet<String>,
        gone: &mut Vec<QueryConfigRef>,
    ) {
        self.report.counts(namespace).written += written.written;
        for (key, reason) in written.failed {
            self.fail(namespace, &key, &reason);
        }
        left_behind.extend(written.left_behind);
        gone.extend(written.gone);
    }

    async fn settle(&mut self, keys: BTreeSet<String>) {
        let request = SettleRequest { keys, ..Default::default() };
        // The comparison's API keys may be minutes old.
        let mut api_keys = ApiKeys::new();
        for (key, verdict) in settle::settle(self.run, request, &mut api_keys).await {
            match verdict {
                Verdict::Written(_) => self.report.settings.written += 1,
                Verdict::Deleted => self.report.settings.deleted += 1,
                Verdict::Failed(reason) => self.fail(Namespace::Settings, &key, &reason),
                Verdict::Withheld(_) | Verdict::Left => {}
            }
        }
    }

    /// Removes orphaned query configs; whose they are stands in their values.
    async fn remove_orphaned_query_configs(&mut self, keys: Vec<String>) {
        let (held, failures) = bulk::read(self.run, Namespace::QueryConfigs, keys).await;
        for (key, error) in failures {
            self.fail(Namespace::QueryConfigs, &key, &error.to_string());
        }
        let mut configs = Vec::new();
        for (key, stored) in held {
            match query_configs::parse_stored(&stored.value) {
                Some(config) if config.kv_key() == key => configs.push(config),
                _ => self.fail(
                    Namespace::QueryConfigs,
                    &key,
                    "the value doesn't say whose query config it is: delete the key by hand",
                ),
            }
        }
        self.remove_query_configs(&configs).await;
    }

    async fn remove_query_configs(&mut self, configs: &[QueryConfigRef]) {
        if configs.is_empty() {
            return;
        }
        let removal = query_configs::remove(self.run, configs).await;
        self.report.query_configs.deleted += removal.deleted;
        for (key, reason) in removal.failed {
            self.fail(Namespace::QueryConfigs, &key, &reason);
        }
        for (key, rejection) in removal.rejected {
            let config = configs.iter().find(|config| config.kv_key() == key);
            if let Some(config) = config {
                self.reject(Namespace::QueryConfigs, &config.index, &key, &rejection);
            }
        }
    }

    fn fail(&mut self, namespace: Namespace, key: &str, reason: &str) {
        // An outage fails every key: the counts tell how many, the log the first ones.
        if !self.report.has_enough_examples("failed") {
            error!(key, error = reason, "a key could not be judged or repaired");
        }
        self.report.counts(namespace).failed += 1;
        self.report.example("failed", key);
    }

    fn stop(&mut self, reason: String) {
        warn!(reason, "reconcile stopped early: the next run goes on");
        self.report.stopped.get_or_insert(reason);
    }
}

/// What an unreadable item points at is unknown: nothing that it may point at can be judged.
fn unreadable(index: &IndexRef, error: &Rejection) -> ReconcileError {
    ReconcileError::Incomplete(format!("item {index}: {error}"))
}

/// The keys that an item asks for, as far as it can be read.
fn asked_keys(key: &ItemKey, item: &Item) -> Option<(Namespace, IndexRef, Vec<String>)> {
    match key.kind() {
        ItemKind::Skipped => None,
        ItemKind::QueryConfig(config) => {
            let key = config.kv_key();
            Some((Namespace::QueryConfigs, config.index, vec![key]))
        }
        ItemKind::IndexSettings(index) => {
            let mut keys = vec![index.index_id()];
            let shop_id = item.image().ok().and_then(|image| readable_shop_id(&image));
            keys.extend(shop_id.filter(|shop_id| *shop_id != keys[0]));
            Some((Namespace::Settings, index, keys))
        }
    }
}

/// Every index that an index id can mean: account and name may both hold dashes.
fn possible_indexes(index_id: &str) -> impl Iterator<Item = IndexRef> + '_ {
    index_id
        .match_indices('-')
        .filter_map(|(dash, _)| IndexRef::parse(&index_id[..dash], &index_id[dash + 1..]))
}
