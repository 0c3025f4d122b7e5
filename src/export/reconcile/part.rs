//! What one run compares: the next keys of both namespaces, the settings first, as many as memory and half of
//! the time allow, and what a pass over the table says of them.

use std::collections::{BTreeMap, BTreeSet};

use enum_map::EnumMap;
use tokio::time::Instant;
use tracing::warn;

use super::ReconcileError;
use super::report::{Action, Class, Findings, MAX_EXAMPLES};
use crate::export::api_keys::{ApiKeys, NotExportable};
use crate::export::bulk;
use crate::export::exportable::Exportable;
use crate::export::invocation::Invocation;
use crate::export::judge::{Held, KvKey, Range, Row, Table, Verdict, Wants};
use crate::export::table::{pass, read_page};
use crate::index::{IndexRef, ItemRef};
use crate::item::keys::query_config_key_prefix;
use crate::item::{Item, ItemKey, Rejection, claimed_keys};
use crate::kv::{Digest, Namespace};
use crate::ports::{ErrorKind, ScanColumns, ServiceError, Services, TablePart};

/// What a part may take of the function's memory while it is listed, in bytes. The rest of [`MAX_BYTES`] is
/// for the items that ask for these keys, and for keys that KV lacks.
const MAX_LISTED_BYTES: usize = 40 * 1024 * 1024;

/// What a part may take, in bytes. With the values that are under way it fits the template's 256 MB.
const MAX_BYTES: usize = 96 * 1024 * 1024;

#[derive(Default)]
pub struct Part {
    pub table: Table,
    /// The first key that each page of the listing can have, with the cursor that leads to the page.
    pages: BTreeMap<KvKey, Option<String>>,
    /// Keys that could not be read.
    unreadable: BTreeSet<String>,
    /// The items that can't be exported, with their keys.
    rejected: BTreeSet<(KvKey, IndexRef)>,
}

impl Part {
    /// Lists the keys of a range. `cursor` leads to the page on which it begins.
    pub async fn list<S: Services>(
        invocation: &Invocation<'_, S>,
        range: Range,
        mut cursor: Option<String>,
    ) -> Result<Self, ReconcileError> {
        let account = range.account.clone();
        // The first key that can come next.
        let mut next = KvKey { namespace: range.from.namespace, name: String::new() };
        let mut part = Self { table: Table::new(range), ..Self::default() };
        let until = Instant::now() + invocation.time_left() / 2;
        let mut may_have_expired = cursor.is_some();
        while part.end().is_none_or(|end| next < *end) {
            part.pages.insert(next.clone(), cursor.clone());
            let is_full = part.table.bytes > MAX_LISTED_BYTES || Instant::now() >= until;
            if is_full && next > part.table.range.from {
                part.table.range.to = Some(next);
                break;
            }
            let namespace = next.namespace;
            let prefix = account.as_ref().map(|account| prefix_of(namespace, account));
            let prefix = prefix.as_deref().unwrap_or_default();
            let page = match bulk::list(invocation, namespace, prefix, cursor.as_deref()).await {
                Ok(page) => page,
                // The cursor is gone: the place is found again from the beginning.
                Err(ServiceError {
                    kind: ErrorKind::Refused | ErrorKind::RefusedContent, ..
                }) if may_have_expired => {
                    (cursor, may_have_expired) = (None, false);
                    continue;
                }
                Err(error) => return Err(ReconcileError::KeysUnlisted(namespace, error)),
            };
            may_have_expired = false;
            for (name, metadata) in page.keys {
                let key = KvKey { namespace, name };
                if key < next {
                    return Err(ReconcileError::ListingDoesNotAdvance(namespace));
                }
                next.name = format!("{}\0", key.name);
                if part.table.range.holds(&key) {
                    let held = Held::listed(metadata.as_ref(), &invocation.config.environment);
                    part.table.hold(key, held);
                }
            }
            match (page.cursor, namespace) {
                (None, Namespace::QueryConfigs) => break,
                (None, Namespace::Settings) => {
                    next = KvKey { namespace: Namespace::QueryConfigs, name: String::new() };
                    cursor = None;
                }
                (same, _) if same == cursor => {
                    return Err(ReconcileError::ListingDoesNotAdvance(namespace));
                }
                (new, _) => cursor = new,
            }
        }
        if let Some(account) = account {
            part.read_shop_ids(invocation, &account).await?;
        }
        Ok(part)
    }

    /// Reads the shop ids that the account's items ask for, which the prefix leaves out.
    async fn read_shop_ids<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        account: &str,
    ) -> Result<(), ReconcileError> {
        let prefix = prefix_of(Namespace::Settings, account);
        let mut shop_ids = BTreeSet::new();
        let mut after = None;
        loop {
            let page = read_page(invocation, TablePart::Account(account), after.as_ref()).await?;
            for (key, item) in &page.items {
                let Some(claimant @ ItemRef { query: None, .. }) = key.item() else { continue };
                for name in claimed_keys(&claimant, &item.attributes()) {
                    let key = KvKey::of_settings(&*name);
                    if !self.table.range.holds(&key) {
                        continue;
                    }
                    if name.starts_with(&prefix) {
                        // KV may lack it. With a row, it is also compared with what items of other accounts ask for.
                        self.table.row(key);
                    } else {
                        shop_ids.insert(name);
                    }
                }
            }
            after = page.last_read;
            if after.is_none() {
                break;
            }
        }
        let (namespace, budget) = (Namespace::Settings, invocation.budget);
        bulk::read(invocation, namespace, budget, shop_ids, |name, stored| match stored {
            Ok(stored) => {
                let held = Held::read(stored.as_ref(), &invocation.config.environment);
                self.table.hold(KvKey::of_settings(name), held);
            }
            Err(_) => {
                self.unreadable.insert(name);
            }
        })
        .await;
        Ok(())
    }

    /// Returns the key with which the next part begins, `None` where nothing is left.
    pub fn end(&self) -> Option<&KvKey> {
        self.table.range.to.as_ref()
    }

    /// Returns whether an action may happen at all. Where the pass found no index item, the table may be emptied or the
    /// wrong one: then nothing is deleted, however a request raises the brake.
    pub fn lets(&self, action: Action) -> bool {
        action == Action::Rewrite || self.table.has_indexes
    }

    /// Returns a cursor of the listing that leads to the page of a key with which a later part begins.
    pub fn cursor_to(&self, key: &KvKey) -> Option<String> {
        let (first, cursor) = self.pages.range(..=key).next_back()?;
        cursor.clone().filter(|_| first.namespace == key.namespace)
    }

    /// Adds what the table says. API keys are asked for only where an item's keys are compared.
    pub async fn pass_over_table<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        api_keys: &mut ApiKeys,
    ) -> Result<(), ReconcileError> {
        pass(invocation, ScanColumns::All, async |mut page| {
            // Most query configs are another part's.
            page.retain(|(key, _)| match key.item() {
                Some(item) if item.query.is_some() => self.table.covers(&KvKey::of(&item)),
                _ => true,
            });
            let decode = |(key, item): &(ItemKey, Item)| {
                let decoded = Exportable::decode(&key.item()?, item, invocation.config);
                let is_needed = decoded.as_ref().map_or(true, |it| self.needs(it));
                is_needed.then(|| decoded.map_err(NotExportable::from))
            };
            let decoded: Vec<_> = page.iter().map(decode).collect();
            api_keys.find(invocation, decoded.iter().flatten().flatten()).await;
            for ((key, item), decoded) in page.iter().zip(decoded) {
                let wants = match decoded {
                    None => Wants::Unmade,
                    Some(decoded) => match decoded.and_then(|item| item.value(api_keys)) {
                        Ok(value) => Wants::Value(Digest::of(value.as_bytes())),
                        Err(NotExportable::Unavailable(_)) => Wants::Unavailable,
                        Err(NotExportable::Rejected(rejection)) => {
                            self.reject(key, &rejection);
                            Wants::Rejected
                        }
                    },
                };
                self.table.add(key, &item.attributes(), wants);
            }
            self.table.shrink(MAX_BYTES);
            self.rejected.retain(|(key, _)| self.table.covers(key));
        })
        .await?;
        Ok(())
    }

    /// Returns whether a verdict of this run depends on an item: on its value, or on whether it can be exported, because
    /// the keys of its index stay while it can't.
    fn needs(&self, Exportable { item, keys, .. }: &Exportable) -> bool {
        let is_owner = item.query.is_none() && self.table.is_owner(&item.index);
        self.compares(item, keys) || is_owner && self.table.range.is_of(&item.index.account)
    }

    /// Returns whether this run compares any of an item's keys.
    fn compares(&self, item: &ItemRef, keys: &[String]) -> bool {
        let key = |name: &String| KvKey { namespace: item.namespace(), name: name.clone() };
        self.table.range.is_of(&item.index.account)
            && keys.iter().any(|name| self.table.covers(&key(name)))
    }

    /// Counts and logs an item that can't be exported, in the part that has its key. It is logged as a warning:
    /// every run finds it again until it is corrected.
    fn reject(&mut self, key: &ItemKey, rejection: &Rejection) {
        let Some(item) = key.item() else { return };
        let key = KvKey::of(&item);
        if !self.compares(&item, std::slice::from_ref(&key.name)) {
            return;
        }
        if self.rejected.len() < MAX_EXAMPLES {
            warn!(
                key = key.name,
                system_account_id = item.index.account,
                index_name = item.index.name,
                path = rejection.path,
                error = %rejection,
                "an item can't be exported: what KV holds of it stays"
            );
        }
        self.table.bytes += 2 * key.name.len();
        self.rejected.insert((key, item.index));
    }

    /// Returns the keys that are compared, with their verdicts. A key that could not be read has failed.
    fn verdicts(&self) -> impl Iterator<Item = (&KvKey, &Row, Verdict)> {
        let rows = self.table.rows.iter().filter(|(_, row)| {
            // Left out are keys that another account owns, keys that KV lacks and another account's item has, and keys
            // that KV lacks and no item asks for.
            let claimant = row.claim().map(|claim| &claim.index);
            match row.held.owner().or(claimant) {
                Some(index) => self.table.range.is_of(&index.account),
                None => row.held != Held::Nothing,
            }
        });
        rows.map(|(key, row)| {
            let is_read = !self.unreadable.contains(&key.name);
            (key, row, if is_read { self.table.verdict(key) } else { Verdict::Failed })
        })
    }

    /// Returns the keys of a namespace that have this verdict.
    pub fn keys(
        &self,
        namespace: Namespace,
        verdict: Verdict,
    ) -> impl Iterator<Item = (&KvKey, &Row)> {
        let verdicts = self.verdicts();
        let keys =
            verdicts.filter(move |(key, _, it)| key.namespace == namespace && *it == verdict);
        keys.map(|(key, row, _)| (key, row))
    }

    /// Returns the keys that can't be judged.
    pub fn unjudged(&self) -> Findings {
        let mut unjudged = Findings::default();
        for (key, ..) in self.verdicts().filter(|(.., verdict)| *verdict == Verdict::Failed) {
            unjudged.note(key.namespace, Class::Failed, &key.name);
        }
        unjudged
    }

    /// Returns what is found, and how many of the listed keys are ours.
    pub fn compare(&self) -> (Findings, EnumMap<Namespace, u64>) {
        let mut findings = Findings::default();
        let mut ours = EnumMap::default();
        for (key, _) in &self.rejected {
            findings.note(key.namespace, Class::Rejected, &key.name);
        }
        for (key, row, verdict) in self.verdicts() {
            let (namespace, name) = (key.namespace, &key.name);
            let counts = &mut findings.counts[namespace];
            counts[Class::Listed] += u64::from(row.held != Held::Nothing);
            let is_desired = row.claims.iter().any(|claim| claim.wants != Wants::Rejected);
            counts[Class::Desired] += u64::from(is_desired);
            ours[namespace] += u64::from(row.held.owner().is_some());
            if row.claims.len() > 1 && verdict != Verdict::Conflicting {
                findings.note(namespace, Class::Conflicting, name);
            }
            let class = match verdict {
                Verdict::Conflicting => Class::Conflicting,
                Verdict::Missing => Class::Missing,
                Verdict::Stale => Class::Stale,
                Verdict::Foreign => Class::Foreign,
                Verdict::Withheld => Class::Withheld,
                Verdict::Orphaned => Class::Orphaned,
                Verdict::Right | Verdict::Rejected | Verdict::Failed => continue,
            };
            findings.note(namespace, class, name);
        }
        if self.table.range.account.is_none() {
            for index_id in self.table.dangling() {
                findings.note(Namespace::Settings, Class::Dangling, index_id);
            }
        }
        (findings, ours)
    }
}

/// Returns what the keys of an account's items start with, but for shop ids.
fn prefix_of(namespace: Namespace, account: &str) -> String {
    match namespace {
        Namespace::Settings => format!("{account}-"),
        Namespace::QueryConfigs => query_config_key_prefix(account),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{Fakes, KvFault, entry, index_item, kv_error, query_config};
    use crate::kv::Source;
    use crate::ports::ListPage;
    use serde_json::json;
    use std::time::Duration;

    fn page(keys: &[&str], cursor: Option<&str>) -> ListPage {
        let keys = keys.iter().map(|key| ((*key).to_owned(), None)).collect();
        ListPage { keys, cursor: cursor.map(str::to_owned) }
    }

    /// The names that were listed, or the error.
    fn names(listing: &Result<Part, ReconcileError>) -> String {
        match listing {
            Ok(listing) => {
                let names = listing.table.rows.keys().map(|key| key.name.as_str());
                names.collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    fn refused() -> KvFault {
        KvFault::Fails(kv_error(ErrorKind::RefusedContent))
    }

    #[tokio::test(start_paused = true)]
    async fn how_a_listing_is_followed() {
        let failed = "the keys of Settings can't be listed; nothing was written";
        let circle = "the listing of Settings goes round in a circle; nothing was written";
        let (start, later) = (("", None), ("b", Some("1")));
        let auth = kv_error(ErrorKind::AuthRejected);
        let same_cursor = vec![page(&["a"], Some("1")), page(&[], Some("1"))];
        let same_key = vec![page(&["a", "b"], Some("1")), page(&["b"], Some("2"))];
        let empty = vec![page(&["a"], Some("1")), page(&[], Some("2")), page(&["b"], None)];
        let whole = vec![page(&["a", "b", "c"], None)];
        let rows = [
            ("one page", start, vec![], whole.clone(), "a b c"),
            ("an empty page between", start, vec![], empty.clone(), "a b"),
            ("the same cursor again", start, vec![], same_cursor, circle),
            ("the same key again", start, vec![], same_key, circle),
            ("from a place", later, vec![], whole, "b c"),
            ("an expired cursor", later, vec![refused()], empty, "b"),
            ("refused twice", later, vec![refused(), refused()], vec![], failed),
            ("refused without a cursor", start, vec![refused()], vec![], failed),
            ("a refused token", later, vec![KvFault::Fails(auth)], vec![], failed),
        ];
        for (name, (from, cursor), faults, pages, expected) in rows {
            let fakes = Fakes::new();
            fakes.kv.faults.then(faults);
            fakes.kv.pages.then(pages);
            let range = Range { from: KvKey::of_settings(from), ..Range::default() };
            let cursor = cursor.map(str::to_owned);
            let listing = Part::list(&fakes.invocation(Source::Reconcile), range, cursor).await;
            assert_eq!(names(&listing), expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_is_listed_to_its_end_and_no_further() {
        let fakes = Fakes::new();
        let pages = [(&["a"][..], Some("1")), (&["b", "c"], Some("2")), (&["d"], None)];
        fakes.kv.pages.then(pages.map(|(keys, cursor)| page(keys, cursor)));
        let range = Range { to: Some(KvKey::of_settings("c")), ..Range::default() };
        let listing = Part::list(&fakes.invocation(Source::Reconcile), range, None).await;
        assert_eq!(names(&listing), "a b");
        assert_eq!(fakes.kv.requests.borrow().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn where_half_of_the_time_is_over_the_rest_is_left_to_another_part() {
        let fakes = Fakes::new();
        fakes.kv.faults.then([KvFault::TimesOut]);
        // The first page is before the range.
        fakes.kv.pages.then([page(&["a"], Some("1")), page(&["b", "c"], Some("2"))]);
        let mut invocation = fakes.invocation(Source::Reconcile);
        invocation.budget.deadline = Instant::now() + Duration::from_secs(60);
        let range = Range { from: KvKey::of_settings("b"), ..Range::default() };
        let listing = Part::list(&invocation, range, None).await.unwrap();
        let end = listing.end().unwrap().clone();
        assert_eq!(end.name, "c\0", "the first name that can come after it");
        assert_eq!(listing.cursor_to(&end).as_deref(), Some("2"));
        assert_eq!(listing.cursor_to(&KvKey::of_settings("c")).as_deref(), Some("1"));
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_account_its_prefixes_are_listed_and_the_shop_ids_read_that_it_asks_for() {
        let fakes = Fakes::new();
        let config = query_config("i", "q").kv_key();
        let other = config.replacen("qcfg-a-", "qcfg-b-", 1);
        for key in ["a-i", "b-i", "s", "t", &config, &other] {
            fakes.kv.hold_entry(key, &entry("i", &json!({})));
        }
        fakes.table.put(index_item("i", &json!({"shop_id": {"S": "s"}})));
        fakes.table.put(index_item("j", &json!({"shop_id": {"S": "absent"}})));
        let invocation = fakes.invocation(Source::Reconcile);
        let range = Range { account: Some("a".to_owned()), ..Range::default() };
        let listing = Part::list(&invocation, range, None).await;
        assert_eq!(names(&listing), format!("a-i a-j absent s {config}"));
    }
}
