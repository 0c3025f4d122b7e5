//! A part of a namespace: as many of its next keys, in KV's order, as memory and time allow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;

use super::ReconcileError;
use super::brakes::Rewrites;
use super::part_keys::PartKeys;
use super::progress::Place;
use super::report::MAX_EXAMPLES;
use super::run::Run;
use crate::export::bulk::{self, Failures};
use crate::item::ItemKey;
use crate::item::keys::query_config_key_prefix;
use crate::kv::limits::{MAX_BULK_GET_KEYS, MAX_LIST_KEYS};
use crate::kv::{Metadata, StoredValue};
use crate::ports::{KvError, ListPage, Namespace, Services};

/// Keys that one part lists at the most. With 65 bytes each they take a quarter of the memory that
/// the function has.
const PART_KEYS: usize = 1_000_000;

/// Names of strangers' keys that are held until it is known whether an item asks for them.
const FOREIGN_NAMES: usize = 10 * MAX_EXAMPLES;

/// The page of keys that were read one by one.
pub const NO_PAGE: u16 = u16::MAX;

/// A page of the listing.
pub struct ListedPage {
    cursor: Option<String>,
    /// Its last key; `None` where it had none.
    last: Option<String>,
}

/// The keys of a part, and what is known of them.
pub struct Part {
    pub namespace: Namespace,
    pub keys: PartKeys,
    /// What all listed names start with.
    prefix: String,
    /// The last key before the part; `None` at the beginning.
    after: Option<String>,
    /// Its last key; `None` where it goes to the end.
    last: Option<String>,
    /// Where the next part begins, if the namespace has one.
    pub next: Option<Place>,
    /// The pages that were listed.
    pub pages: Vec<ListedPage>,
    /// Index ids in this part that active aliases point at and that KV does not list.
    pub pointed_at: BTreeSet<String>,
    /// Names of listed keys that are not ours.
    pub strangers: Vec<String>,
    /// Keys that KV holds and that were read one by one.
    pub read: BTreeSet<String>,
    /// Keys that are not written, because what they hold, or lead to, could not be read.
    pub unreadable: BTreeSet<String>,
    /// What the brake on rewrites says.
    pub rewrites: Rewrites,
    /// Keys that the repair has written for an item that asks for them no more.
    pub left_behind: BTreeMap<ItemKey, BTreeSet<String>>,
    /// Whether its orphans have been looked at.
    pub orphans_seen: bool,
}

impl Part {
    pub(super) fn new(place: &Place, only_account: Option<&str>) -> Self {
        let prefix = match (place.namespace, only_account) {
            (_, None) => String::new(),
            (Namespace::Settings, Some(account)) => format!("{account}-"),
            (Namespace::QueryConfigs, Some(account)) => query_config_key_prefix(account),
        };
        Self {
            namespace: place.namespace,
            keys: PartKeys::default(),
            prefix,
            after: place.after.clone(),
            last: None,
            next: None,
            pages: Vec::new(),
            pointed_at: BTreeSet::new(),
            strangers: Vec::new(),
            read: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            rewrites: Rewrites::Undecided,
            left_behind: BTreeMap::new(),
            orphans_seen: false,
        }
    }

    /// Whether a key is compared in this part. What the listing's prefix leaves out is compared in
    /// the first part of its namespace.
    pub fn covers(&self, key: &str) -> bool {
        if self.next.is_some() && self.last.is_none() {
            // Only empty pages have been listed.
            return false;
        }
        let after = self.after.as_deref();
        if !self.matches_prefix(key) {
            return after.is_none();
        }
        after.is_none_or(|after| key > after) && self.last.as_deref().is_none_or(|last| key <= last)
    }

    /// Whether a key is compared in this part, and what it holds could be read.
    pub fn compares(&self, key: &str) -> bool {
        self.covers(key) && !self.unreadable.contains(key)
    }

    /// Whether it is a part of the settings namespace.
    pub fn is_of_settings(&self) -> bool {
        self.namespace == Namespace::Settings
    }

    /// Whether a key starts with the listing's prefix, so that the listing shows it if KV has it.
    pub fn matches_prefix(&self, key: &str) -> bool {
        key.starts_with(&self.prefix)
    }
}

impl<S: Services> Run<'_, S> {
    /// Lists the part that begins at `place`, and leaves time for the pass over the table and for
    /// mending.
    pub(super) async fn list(&mut self, place: &Place) -> Result<Part, ReconcileError> {
        let mut part = Part::new(place, self.account());
        let left = self.invocation.deadline.saturating_duration_since(Instant::now());
        let until = Instant::now() + self.progress.time_to_list(place.namespace, left);
        let mut cursor = place.cursor.clone();
        loop {
            let is_first = part.pages.is_empty();
            let wait_until = if is_first { self.invocation.deadline } else { until };
            let turn = self.invocation.wait_for_turn(1, wait_until).await;
            let full = part.keys.len() + MAX_LIST_KEYS > PART_KEYS || Instant::now() >= until;
            if !is_first && (turn.is_err() || full) {
                // A part of empty pages ends where it began.
                part.last = part.last.or_else(|| part.after.clone());
                part.next =
                    Some(Place { namespace: part.namespace, after: part.last.clone(), cursor });
                return Ok(part);
            }
            let page = match turn {
                Ok(()) => self.list_page(&part, cursor.as_deref()).await,
                Err(_) => Err(KvError::OutOfTime),
            };
            let page = page.map_err(|error| self.listing_stopped(&part, error))?;
            let last = page.keys.last().map(|(key, _)| key.clone());
            part.pages.push(ListedPage { cursor, last });
            self.take_in(&mut part, &page);
            cursor = page.cursor;
            if cursor.is_none() {
                part.last = None;
                return Ok(part);
            }
        }
    }

    async fn list_page(&self, part: &Part, cursor: Option<&str>) -> Result<ListPage, KvError> {
        bulk::list(self.invocation, part.namespace, &part.prefix, cursor).await
    }

    fn take_in(&self, part: &mut Part, page: &ListPage) {
        let number = u16::try_from(part.pages.len() - 1).unwrap_or(NO_PAGE);
        for (key, metadata) in &page.keys {
            self.add_key(part, key, number, metadata.as_ref());
            part.last = Some(key.clone());
        }
    }

    fn add_key(&self, part: &mut Part, key: &str, page: u16, metadata: Option<&Metadata>) {
        let environment = &self.invocation.config.environment;
        part.keys.list(key, page, metadata, environment, self.account());
        let is_ours = metadata.is_some_and(|metadata| metadata.is_of(environment));
        if !is_ours && part.strangers.len() < FOREIGN_NAMES {
            part.strangers.push(key.to_owned());
        }
    }

    fn listing_stopped(&self, part: &Part, error: KvError) -> ReconcileError {
        match error {
            error @ KvError::AuthRejected { .. } => ReconcileError::CloudflareAuthRejected(error),
            error => ReconcileError::ListingStopped {
                namespace: part.namespace,
                keys: u64::try_from(part.keys.len()).unwrap_or(u64::MAX),
                error,
            },
        }
    }

    /// Reads keys that the listing leaves out: those under which items of the one account want to be
    /// found, and those that its values name.
    pub(super) async fn read_unlisted(&mut self, part: &mut Part, keys: BTreeSet<String>) {
        let is_read = |key: &String| part.keys.holds(key) || part.unreadable.contains(key);
        let unread: Vec<String> = keys.into_iter().filter(|key| !is_read(key)).collect();
        if unread.is_empty() {
            return;
        }
        let (found, failures) = self.read_values(part.namespace, unread).await;
        for (key, error) in failures {
            self.fail(part.namespace, &key, &error.into());
            part.unreadable.insert(key);
        }
        for (key, stored) in found {
            let metadata = stored.metadata.and_then(|json| Metadata::parse(json.get()));
            self.add_key(part, &key, NO_PAGE, metadata.as_ref());
            part.read.insert(key);
        }
    }

    /// Reads values, when it is this run's turn.
    pub(super) async fn read_values(
        &self,
        namespace: Namespace,
        keys: Vec<String>,
    ) -> (BTreeMap<String, StoredValue>, Failures) {
        let requests = keys.len().div_ceil(MAX_BULK_GET_KEYS);
        match self.invocation.wait_for_turn(requests, self.invocation.deadline).await {
            Ok(()) => bulk::read(self.invocation, namespace, keys).await,
            Err(_) => {
                let failed = keys.into_iter().map(|key| (key, KvError::OutOfTime));
                (BTreeMap::new(), failed.collect())
            }
        }
    }

    /// The next names, at most `number` and a page's more, of keys of ours that no item asks for; none
    /// at the end. Their pages are listed once more, because only hashes of names are held.
    pub(super) async fn next_unclaimed(
        &self,
        part: &Part,
        unclaimed: &mut Unclaimed,
        number: usize,
    ) -> Result<Vec<String>, KvError> {
        while unclaimed.names.len() < number {
            let Some(page) = unclaimed.pages.pop_front() else { break };
            let Some(ListedPage { cursor, last }) = part.pages.get(usize::from(page)) else {
                continue;
            };
            let mut cursor = cursor.clone();
            loop {
                let turn = self.invocation.wait_for_turn(1, self.invocation.deadline).await;
                turn.map_err(|_| KvError::OutOfTime)?;
                let listed = self.list_page(part, cursor.as_deref()).await?;
                cursor = listed.cursor;
                let listed_keys = listed.keys.len();
                let keys = listed.keys.into_iter().map(|(key, _)| key);
                let keys: Vec<String> =
                    keys.filter(|key| last.as_ref().is_some_and(|last| key <= last)).collect();
                let is_whole = keys.last() == last.as_ref() || keys.len() < listed_keys;
                unclaimed.names.extend(keys.into_iter().filter(|key| part.keys.is_unclaimed(key)));
                // What was written since may have moved the page's last keys to the next one.
                if is_whole || cursor.is_none() {
                    break;
                }
            }
        }
        Ok(std::mem::take(&mut unclaimed.names))
    }
}

/// The keys of ours that no item asks for, as far as they are still to be named.
pub struct Unclaimed {
    pages: VecDeque<u16>,
    names: Vec<String>,
}

impl Unclaimed {
    /// All of a part.
    pub fn of(part: &Part) -> Self {
        let pages = part.keys.pages_with_unclaimed().into_iter().collect();
        let read = part.read.iter().filter(|key| part.keys.is_unclaimed(key));
        Self { pages, names: read.cloned().collect() }
    }

    /// Whether all have been named.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.names.is_empty()
    }
}
