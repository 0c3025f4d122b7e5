//! A part of what is compared: as many of KV's next keys as memory and time allow. A small fleet is
//! one part with both namespaces.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::owners::Owners;
use super::progress::{Place, Progress};
use super::report::{Class, Examples, MAX_EXAMPLES};
use super::rows::{READ_ALONE, Rows};
use super::samples::Samples;
use super::{Reconcile, ReconcileError};
use crate::error_chain::Chain;
use crate::export::bulk;
use crate::export::invocation::Invocation;
use crate::item::keys::query_config_key_prefix;
use crate::kv::Metadata;
use crate::kv::limits::MAX_LIST_KEYS;
use crate::ports::{KvError, Namespace, Services};

/// Names of strangers' keys that are held until it is known whether an item asks for them.
const STRANGER_NAMES: usize = 10 * MAX_EXAMPLES;

struct ListedPage {
    cursor: Option<String>,
    /// Its last key; `None` where it had none.
    last: Option<String>,
}

/// The keys of one namespace that are compared at once, and what is known of them.
#[derive(Default)]
pub struct Section {
    pub begin: Place,
    /// Where the namespace goes on after it; `None` where it goes to the end.
    pub next: Option<Place>,
    /// What all listed names start with.
    prefix: String,
    /// The pages, of which the first has number 1.
    pages: Vec<ListedPage>,
    pub rows: Rows,
    pub owners: Owners,
    /// Names of listed keys that are not ours.
    strangers: Vec<String>,
    /// Keys that KV holds and that were read one by one.
    pub read: BTreeSet<String>,
    /// Index ids that active aliases point at and that KV does not list.
    pub pointed_at: BTreeSet<String>,
    /// Items that can't be exported.
    pub rejected: u64,
    pub samples: Samples,
}

#[derive(Default)]
pub struct Part {
    /// The settings, the query configs, or both in this order.
    pub sections: Vec<Section>,
    /// Where the next part begins, if there is one.
    pub next: Option<Place>,
    /// Why not all of it could be compared, if so.
    pub stopped: Option<String>,
    /// Whether API keys took the time that there was to compare it.
    pub is_unfinished: bool,
    /// Whether a pass over the table has found an index item.
    pub has_indexes: bool,
    pub examples: Examples,
}

impl Section {
    fn new(begin: Place, only_account: Option<&str>) -> Self {
        let prefix = match (begin.namespace, only_account) {
            (_, None) => String::new(),
            (Namespace::Settings, Some(account)) => format!("{account}-"),
            (Namespace::QueryConfigs, Some(account)) => query_config_key_prefix(account),
        };
        Self { begin, prefix, ..Self::default() }
    }

    pub fn namespace(&self) -> Namespace {
        self.begin.namespace
    }

    /// Whether a key is compared here. What the listing's prefix leaves out is compared in the first
    /// section of its namespace.
    pub fn covers(&self, key: &str) -> bool {
        if !self.matches_prefix(key) {
            return self.begin.after.is_none();
        }
        let last = self.next.as_ref().and_then(|next| next.after.as_deref());
        self.begin.after.as_deref().is_none_or(|after| key > after)
            && last.is_none_or(|last| key <= last)
    }

    /// Whether the listing shows a key if KV has it.
    pub fn matches_prefix(&self, key: &str) -> bool {
        key.starts_with(&self.prefix)
    }

    /// The place after one of its keys, which was listed on this page.
    pub fn place_after(&self, page: u32, key: String) -> Option<Place> {
        let ListedPage { cursor, .. } = self.page(page)?;
        Some(Place { namespace: self.namespace(), after: Some(key), cursor: cursor.clone() })
    }

    pub fn add_key<S: Services>(
        &mut self,
        lister: &Lister<'_, S>,
        key: &str,
        page: u32,
        metadata: Option<&Metadata>,
    ) {
        let environment = &lister.invocation.config.environment;
        match self.rows.list(key, page, metadata, environment, lister.only_account()) {
            Some(owner) if self.namespace() == Namespace::Settings => self.owners.add(owner),
            None if self.strangers.len() < STRANGER_NAMES => self.strangers.push(key.to_owned()),
            Some(_) | None => {}
        }
    }

    /// Index ids that active aliases point at and that have neither an item nor a key.
    pub fn dangling(&self) -> impl Iterator<Item = &String> {
        self.pointed_at.iter().filter(|index_id| !self.rows.holds(index_id))
    }

    /// Adds names of keys of the classes of which names are held.
    pub fn add_examples(&self, examples: &mut Examples) {
        for class in [Class::Missing, Class::Stale, Class::Conflicting, Class::Failed] {
            let names = self.rows.names_of(class).take(MAX_EXAMPLES);
            names.for_each(|name| examples.add(class, name));
        }
        let foreign = self.strangers.iter().filter(|key| self.rows.is(key, Class::Foreign));
        foreign.take(MAX_EXAMPLES).for_each(|key| examples.add(Class::Foreign, key));
        let dangling = self.dangling().take(MAX_EXAMPLES);
        dangling.for_each(|index_id| examples.add(Class::Dangling, index_id));
    }

    fn page(&self, number: u32) -> Option<&ListedPage> {
        self.pages.get((number as usize).checked_sub(1)?)
    }
}

impl Part {
    /// The settings' section, if the part has one: then it is the first.
    pub fn settings(&self) -> Option<&Section> {
        self.sections.first().filter(|section| section.namespace() == Namespace::Settings)
    }

    pub fn section(&mut self, namespace: Namespace) -> Option<&mut Section> {
        self.sections.iter_mut().find(|section| section.namespace() == namespace)
    }

    pub fn listed(&self) -> usize {
        self.sections.iter().map(|section| section.rows.listed).sum()
    }
}

pub struct Lister<'a, S> {
    pub invocation: &'a Invocation<'a, S>,
    pub request: &'a Reconcile,
}

impl<'a, S: Services> Lister<'a, S> {
    /// The account of a run of one account.
    pub fn only_account(&self) -> Option<&'a str> {
        self.request.system_account_id.as_deref()
    }

    /// Lists the next part, and leaves time for the passes over the table and for mending; `None` where
    /// there is no turn for the first request in this run. One that is to be repaired further is listed
    /// no farther than it went when it was compared, and one namespace at a time.
    pub async fn list(&self, progress: &Progress) -> Result<Option<Part>, ReconcileError> {
        let left = self.invocation.deadline.saturating_duration_since(Instant::now());
        let until = Instant::now() + progress.time_to_list(left);
        let mut part = Part { next: progress.place.clone(), ..Part::default() };
        while let Some(begin) = part.next.clone() {
            let is_first = part.sections.is_empty();
            let listed = part.listed();
            let has_room = progress.room_after(listed) >= MAX_LIST_KEYS && Instant::now() < until;
            let ended_early = part.sections.last().is_some_and(|section| section.next.is_some());
            if !is_first && (ended_early || progress.repair.is_some() || !has_room) {
                break;
            }
            let section = match self.list_section(begin, listed, progress, until).await {
                Ok(Some(section)) => section,
                Ok(None) if is_first => return Ok(None),
                Ok(None) => break,
                Err(error) if is_first => return Err(error),
                Err(error) => {
                    part.stopped = Some(could_not_be_compared(&error));
                    break;
                }
            };
            let next = section.next.clone();
            part.next = next.or_else(|| Place::next_namespace(section.namespace()));
            part.sections.push(section);
        }
        Ok(Some(part))
    }

    /// Lists a section, after so many keys of others; `None` where there is no turn for it.
    async fn list_section(
        &self,
        begin: Place,
        listed: usize,
        progress: &Progress,
        until: Instant,
    ) -> Result<Option<Section>, ReconcileError> {
        let namespace = begin.namespace;
        let mut cursor = begin.cursor.clone();
        let mut section = Section::new(begin, self.only_account());
        let end = progress.repair.as_ref().and_then(|repair| repair.end.clone());
        section.next = end.filter(|end| end.namespace == namespace);
        let last_meant = section.next.as_ref().and_then(|next| next.after.clone());
        loop {
            let is_first = section.pages.is_empty();
            let keys = listed + section.rows.listed;
            // While nothing is listed, there is nothing else to do with the time.
            let turn_by = if keys == 0 { self.invocation.deadline } else { until };
            let has_turn = self.invocation.wait_for_turn(1, turn_by).await.is_ok();
            let has_room = progress.room_after(keys) >= MAX_LIST_KEYS && Instant::now() < until;
            if !has_turn && is_first {
                return Ok(None);
            }
            if !has_turn || !(is_first || has_room) {
                // It ends after the last key that was listed; one of empty pages where it begins.
                let last = section.pages.iter().rev().find_map(|page| page.last.clone());
                let last = last.or_else(|| section.begin.after.clone()).unwrap_or_default();
                section.next = Some(Place { namespace, after: Some(last), cursor });
                return Ok(Some(section));
            }
            let page =
                bulk::list(self.invocation, namespace, &section.prefix, cursor.as_deref()).await;
            let page = page.map_err(|error| match error {
                KvError::AuthRejected(_) => ReconcileError::CloudflareAuthRejected(error),
                error => ReconcileError::ListingStopped { namespace, keys, error },
            })?;
            let last_listed = page.keys.last().map(|(key, _)| key.clone());
            let reaches_end = last_meant.is_some() && last_listed >= last_meant;
            let number = u32::try_from(section.pages.len() + 1).unwrap_or(u32::MAX);
            let mut last = None;
            for (key, metadata) in page.keys {
                if section.covers(&key) {
                    section.add_key(self, &key, number, metadata.as_ref());
                    last = Some(key);
                }
            }
            section.pages.push(ListedPage { cursor, last });
            cursor = page.cursor;
            if reaches_end || cursor.is_none() {
                return Ok(Some(section));
            }
        }
    }

    /// The names of a page's keys of a class, in order. The page is listed once more, because only
    /// hashes are held. What was written since may have moved the last of them to the next page.
    pub async fn names_of_page(
        &self,
        section: &Section,
        page: u32,
        class: Class,
    ) -> Result<Vec<String>, KvError> {
        let is_meant = |key: &String| section.rows.is(key, class);
        if page == READ_ALONE {
            return Ok(section.read.iter().filter(|key| is_meant(key)).cloned().collect());
        }
        let mut names = Vec::new();
        let Some(ListedPage { cursor, last: Some(last) }) = section.page(page) else {
            return Ok(names);
        };
        let mut cursor = cursor.clone();
        loop {
            let turn = self.invocation.wait_for_turn(1, self.invocation.deadline).await;
            turn.map_err(|_| KvError::OutOfTime)?;
            let (namespace, prefix) = (section.namespace(), &section.prefix);
            let listed = bulk::list(self.invocation, namespace, prefix, cursor.as_deref()).await?;
            cursor = listed.cursor;
            let goes_beyond = listed.keys.last().is_some_and(|(key, _)| key >= last);
            let keys = listed.keys.into_iter().map(|(key, _)| key);
            names.extend(keys.filter(|key| key <= last && is_meant(key)));
            if goes_beyond || cursor.is_none() {
                return Ok(names);
            }
        }
    }
}

pub fn could_not_be_compared(error: &ReconcileError) -> String {
    format!("the next part could not be compared: {}", Chain(error))
}
