//! A part of what is compared: as many of KV's next keys as memory and time allow. A small fleet is
//! one part with both namespaces.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::ReconcileError;
use super::owners::Owners;
use super::progress::{Place, Progress};
use super::report::{Class, Examples, MAX_EXAMPLES};
use super::rows::{NO_PAGE, Rows, ToWrite};
use super::samples::Samples;
use crate::error_chain::Chain;
use crate::export::bulk;
use crate::export::desired::Desired;
use crate::export::invocation::Invocation;
use crate::item::keys::query_config_key_prefix;
use crate::kv::Metadata;
use crate::kv::limits::MAX_LIST_KEYS;
use crate::ports::{KvError, ListPage, Namespace, Services};

/// Names of strangers' keys that are held until it is known whether an item asks for them.
const STRANGER_NAMES: usize = 10 * MAX_EXAMPLES;

/// A page of the listing.
pub struct ListedPage {
    cursor: Option<String>,
    /// Its last key; `None` where it had none.
    last: Option<String>,
}

/// The keys of one namespace that are compared at once, and what is known of them.
pub struct Section {
    pub namespace: Namespace,
    /// What all listed names start with.
    prefix: String,
    /// The last key before it; `None` at the beginning.
    after: Option<String>,
    /// Its last key; `None` where it goes to the end.
    last: Option<String>,
    pub pages: Vec<ListedPage>,
    pub rows: Rows,
    /// Names of listed keys that are not ours.
    pub strangers: Vec<String>,
    /// Keys that KV holds and that were read one by one.
    pub read: BTreeSet<String>,
    /// Index ids that active aliases point at and that KV does not list.
    pub pointed_at: BTreeSet<String>,
    /// Items that can't be exported.
    pub rejected: u64,
    /// Values that may be stale.
    pub samples: Samples,
}

/// What is compared at once.
pub struct Part {
    /// The settings, the query configs, or both in this order.
    pub sections: Vec<Section>,
    /// Where the next part begins, if there is one.
    pub next: Option<Place>,
    /// Why not all of it could be compared, if so.
    pub stopped: Option<String>,
    /// The owners of the settings' keys.
    pub owners: Owners,
    /// Whether a pass over the table has found an index item.
    pub has_indexes: bool,
    pub examples: Examples,
}

/// What a listing came to.
pub enum Listing {
    Listed(Box<Part>),
    /// There was no turn for the first request in this run.
    NoTurn,
}

impl Section {
    /// An empty section that begins at `place`.
    pub fn new(place: &Place, only_account: Option<&str>) -> Self {
        let prefix = match (place.namespace, only_account) {
            (_, None) => String::new(),
            (Namespace::Settings, Some(account)) => format!("{account}-"),
            (Namespace::QueryConfigs, Some(account)) => query_config_key_prefix(account),
        };
        Self {
            namespace: place.namespace,
            prefix,
            after: place.after.clone(),
            last: None,
            pages: Vec::new(),
            rows: Rows::default(),
            strangers: Vec::new(),
            read: BTreeSet::new(),
            pointed_at: BTreeSet::new(),
            rejected: 0,
            samples: Samples::default(),
        }
    }

    /// Whether a key is compared here. What the listing's prefix leaves out is compared in the first
    /// section of its namespace.
    pub fn covers(&self, key: &str) -> bool {
        if !self.matches_prefix(key) {
            return self.after.is_none();
        }
        let is_after = |after: &String| key > after.as_str();
        let is_within = |last: &String| key <= last.as_str();
        self.after.as_ref().is_none_or(is_after) && self.last.as_ref().is_none_or(is_within)
    }

    /// Whether the listing shows a key if KV has it.
    pub fn matches_prefix(&self, key: &str) -> bool {
        key.starts_with(&self.prefix)
    }

    /// Where it begins.
    pub fn begins_at(&self) -> Place {
        let cursor = self.pages.first().and_then(|page| page.cursor.clone());
        Place { namespace: self.namespace, after: self.after.clone(), cursor }
    }

    /// The place after one of its keys, which is on this page; `None` for one that was not listed.
    pub fn place_after(&self, page: u16, key: Option<String>) -> Option<Place> {
        let cursor = self.pages.get(usize::from(page))?.cursor.clone();
        Some(Place { namespace: self.namespace, after: key, cursor })
    }

    /// Adds the value that an item asks for to the sample, if KV holds another one.
    pub fn sample(&mut self, key: &str, desired: &Desired) {
        if self.rows.why_written(key) == Some(ToWrite::Stale) {
            self.samples.add(key, desired.value());
        }
    }

    /// Adds names of keys of the classes of which names are held.
    pub fn add_examples(&self, examples: &mut Examples) {
        for class in [Class::Missing, Class::Stale, Class::Conflicting, Class::Failed] {
            let names = self.rows.examples(class).take(MAX_EXAMPLES);
            names.for_each(|name| examples.add(class, name));
        }
        let foreign = self.strangers.iter().filter(|key| self.rows.is_foreign(key));
        foreign.take(MAX_EXAMPLES).for_each(|key| examples.add(Class::Foreign, key));
        let dangling = self.pointed_at.iter().filter(|index_id| !self.rows.holds(index_id));
        dangling.take(MAX_EXAMPLES).for_each(|index_id| examples.add(Class::Dangling, index_id));
    }

    /// Ends the section after the last key that was listed; the next one begins there.
    fn end(&mut self, cursor: Option<String>) -> Place {
        // One of empty pages ends where it begins.
        let last = self.pages.iter().rev().find_map(|page| page.last.clone());
        let last = last.or_else(|| self.after.clone()).unwrap_or_default();
        self.last = Some(last.clone());
        Place { namespace: self.namespace, after: Some(last), cursor }
    }
}

impl Part {
    /// The settings' section, if the part has one: then it is the first.
    pub fn settings(&self) -> Option<&Section> {
        self.sections.first().filter(|section| section.namespace == Namespace::Settings)
    }

    /// The section of a namespace.
    pub fn section(&mut self, namespace: Namespace) -> Option<&mut Section> {
        self.sections.iter_mut().find(|section| section.namespace == namespace)
    }

    /// Takes in a key that KV holds.
    pub fn add_key<S: Services>(
        &mut self,
        listing: &Lister<'_, S>,
        section: usize,
        key: &str,
        page: u16,
        metadata: Option<&Metadata>,
    ) {
        let environment = &listing.invocation.config.environment;
        let section = &mut self.sections[section];
        let owner = section.rows.list(key, page, metadata, environment, listing.only_account);
        match owner {
            Some(owner) if section.namespace == Namespace::Settings => self.owners.add(owner),
            Some(_) => {}
            None if section.strangers.len() < STRANGER_NAMES => {
                section.strangers.push(key.to_owned());
            }
            None => {}
        }
    }

    /// Takes in that all items have been seen.
    pub fn close(&mut self) {
        let Self { sections, owners, .. } = self;
        if let Some(settings) =
            sections.first().filter(|section| section.namespace == Namespace::Settings)
        {
            owners.close(&settings.rows);
        }
    }

    /// How many keys have been listed.
    pub fn listed(&self) -> usize {
        self.sections.iter().map(|section| section.rows.listed()).sum()
    }
}

/// Lists KV.
pub struct Lister<'a, S> {
    pub invocation: &'a Invocation<'a, S>,
    /// The account of a run of one account.
    pub only_account: Option<&'a str>,
}

/// Where a section's listing came to its end.
enum End {
    OfNamespace,
    Before(Place),
    NoTurn,
}

impl<S: Services> Lister<'_, S> {
    /// Lists the next part, and leaves time for the passes over the table and for mending. One that is
    /// to be repaired further is listed as far as it went when it was compared, namespace by namespace.
    pub async fn list(&self, progress: &Progress) -> Result<Listing, ReconcileError> {
        let deadline = self.invocation.deadline;
        let left = deadline.saturating_duration_since(Instant::now());
        let repair_end = progress.repair.as_ref().map(|repair| repair.end.as_ref());
        let until = match repair_end {
            Some(_) => deadline,
            None => Instant::now() + progress.time_to_list(left),
        };
        let bounds = Bounds { until, keys: progress.part_keys, repair_end };
        let mut part = Part {
            sections: Vec::new(),
            next: None,
            stopped: None,
            owners: Owners::default(),
            has_indexes: false,
            examples: Examples::default(),
        };
        let mut next = Some(progress.place.clone());
        while let Some(place) = next.take() {
            let is_first = part.sections.is_empty();
            if !is_first && (bounds.is_repair() || bounds.are_full(&part)) {
                part.next = Some(place);
                break;
            }
            let namespace = place.namespace;
            part.sections.push(Section::new(&place, self.only_account));
            match self.list_section(&mut part, &place, bounds).await {
                Ok(End::OfNamespace) => next = Place::next_namespace(namespace),
                Ok(End::Before(place)) => part.next = Some(place),
                Ok(End::NoTurn) if is_first || bounds.is_repair() => return Ok(Listing::NoTurn),
                Ok(End::NoTurn) => {
                    part.sections.pop();
                    part.next = Some(place);
                }
                Err(error) if is_first => return Err(self.stopped(&part, namespace, error)),
                Err(error) => {
                    part.sections.pop();
                    part.next = Some(place);
                    let error = self.stopped(&part, namespace, error);
                    part.stopped = Some(could_not_be_compared(&error));
                }
            }
        }
        Ok(Listing::Listed(Box::new(part)))
    }

    async fn list_section(
        &self,
        part: &mut Part,
        place: &Place,
        bounds: Bounds<'_>,
    ) -> Result<End, KvError> {
        let at = part.sections.len() - 1;
        let end = bounds.end().filter(|end| end.namespace == place.namespace);
        let end = end.and_then(|end| end.after.as_deref());
        let mut cursor = place.cursor.clone();
        loop {
            let is_first = part.sections[at].pages.is_empty();
            let until = if part.listed() == 0 { self.invocation.deadline } else { bounds.until };
            let turn = self.invocation.wait_for_turn(1, until).await;
            match turn {
                Err(_) if is_first || bounds.is_repair() => return Ok(End::NoTurn),
                Ok(()) if is_first || !bounds.are_full(part) => {}
                Ok(()) | Err(_) => return Ok(End::Before(part.sections[at].end(cursor))),
            }
            let prefix = part.sections[at].prefix.clone();
            let page = self.page(place.namespace, &prefix, cursor.as_deref()).await?;
            let is_meant = |key: &String| {
                place.after.as_ref().is_none_or(|after| key > after)
                    && end.is_none_or(|end| key.as_str() <= end)
            };
            let number = u16::try_from(part.sections[at].pages.len()).unwrap_or(NO_PAGE);
            let reaches_end =
                end.is_some_and(|end| page.keys.last().is_some_and(|(key, _)| key.as_str() >= end));
            let mut last = None;
            for (key, metadata) in page.keys.into_iter().filter(|(key, _)| is_meant(key)) {
                part.add_key(self, at, &key, number, metadata.as_ref());
                last = Some(key);
            }
            part.sections[at].pages.push(ListedPage { cursor, last });
            cursor = page.cursor;
            if reaches_end || (cursor.is_none() && end.is_some()) {
                part.sections[at].last = end.map(str::to_owned);
                return Ok(bounds.end().cloned().map_or(End::OfNamespace, End::Before));
            }
            if cursor.is_none() {
                return Ok(End::OfNamespace);
            }
        }
    }

    async fn page(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError> {
        bulk::list(self.invocation, namespace, prefix, cursor).await
    }

    /// Lists a page of a section once more, because only hashes of names are held; answers with its
    /// names. What was written since may have moved the last of them to the next page.
    pub async fn names_of_page(
        &self,
        section: &Section,
        page: u16,
    ) -> Result<Vec<String>, KvError> {
        let mut names = Vec::new();
        let Some(ListedPage { cursor, last: Some(last) }) = section.pages.get(usize::from(page))
        else {
            return Ok(names);
        };
        let mut cursor = cursor.clone();
        loop {
            let turn = self.invocation.wait_for_turn(1, self.invocation.deadline).await;
            turn.map_err(|_| KvError::OutOfTime)?;
            let listed = self.page(section.namespace, &section.prefix, cursor.as_deref()).await?;
            cursor = listed.cursor;
            let goes_beyond = listed.keys.last().is_some_and(|(key, _)| key >= last);
            let keys = listed.keys.into_iter().map(|(key, _)| key);
            names.extend(keys.filter(|key| section.covers(key) && key <= last));
            if goes_beyond || cursor.is_none() {
                return Ok(names);
            }
        }
    }

    fn stopped(&self, part: &Part, namespace: Namespace, error: KvError) -> ReconcileError {
        match error {
            error @ KvError::AuthRejected { .. } => ReconcileError::CloudflareAuthRejected(error),
            error => ReconcileError::ListingStopped { namespace, keys: part.listed(), error },
        }
    }
}

/// Why a run stops before its next part.
pub fn could_not_be_compared(error: &ReconcileError) -> String {
    format!("the next part could not be compared: {}", Chain(error))
}

/// How much one part may list.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    until: Instant,
    keys: usize,
    /// Where a part ends that is listed again, to go on with its repair: there and nowhere else.
    repair_end: Option<Option<&'a Place>>,
}

impl<'a> Bounds<'a> {
    fn is_repair(&self) -> bool {
        self.repair_end.is_some()
    }

    fn end(&self) -> Option<&'a Place> {
        self.repair_end.flatten()
    }

    /// Whether there is no room for another page.
    fn are_full(&self, part: &Part) -> bool {
        let has_room = self.keys.saturating_sub(part.listed()) >= MAX_LIST_KEYS;
        !self.is_repair() && (!has_room || Instant::now() >= self.until)
    }
}
