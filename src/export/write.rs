//! Writes items: read, put, read again. The stream, re-exports, repairs and removals all write like this, so
//! nothing in KV stays behind the table.
//!
//! | the item, read again | then |
//! | --- | --- |
//! | is as it was written | done |
//! | asks for another value, or another key | written again, with the API key that is known already |
//! | no longer asks for a key that was written | the key is left behind, to be removed |
//! | is gone | all its keys are left behind; an image that stood in stays as written, for its REMOVE follows |
//! | can't be exported any more | rejected: KV keeps what was written |
//! | can't be read | a batch's is done, with a warning; any other has failed |
//!
//! An item is put at most [`MAX_PUTS`] times; what still changes then has failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::api_keys::{ApiKeyOwner, ApiKeys, NotExportable};
use super::bulk;
use super::desired::{Decoded, Desired, Exportable};
use super::error::ExportError;
use super::invocation::Invocation;
use super::table::{ReadError, read_items};
use crate::config::ExporterConfig;
use crate::error_chain::Chain;
use crate::index::ItemRef;
use crate::item::{Item, Rejection};
use crate::kv::{Entry, Namespace, Pair, Source};
use crate::ports::Services;

/// The most often that an item is put.
pub const MAX_PUTS: usize = 3;

/// Items that are read at once: one request, with up to 40 MB, because an item may have 400 KB.
pub const READ_ITEMS: usize = 100;

/// How long the second read may take where the first one failed. The next batch may hold a rollback.
const SECOND_CHANCE: Duration = Duration::from_secs(25);

/// What the values of one round may take, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// An item to be written.
#[derive(Debug, Clone)]
pub struct WriteItem {
    pub item: ItemRef,
    /// The keys that may be written. `None` means all that the item asks for.
    pub only: Option<BTreeSet<String>>,
    /// What stands in where the table has no such item, or can't be read.
    pub image: Option<Item>,
    /// When the table took the change, RFC 3339.
    pub changed_at: Option<String>,
}

impl WriteItem {
    pub fn new(item: ItemRef) -> Self {
        Self { item, only: None, image: None, changed_at: None }
    }

    pub fn under(item: ItemRef, keys: BTreeSet<String>) -> Self {
        Self { only: Some(keys), ..Self::new(item) }
    }
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// KV holds it, under the keys that are its own.
    Written,
    /// The table has no such item, and nothing stood in for it.
    Absent,
    Rejected(Rejection),
    Failed(ExportError),
}

impl From<NotExportable> for Fate {
    fn from(why: NotExportable) -> Self {
        match why {
            NotExportable::Rejected(rejection) => Self::Rejected(rejection),
            NotExportable::Unavailable(error) => Self::Failed(error.into()),
        }
    }
}

#[derive(Debug, Default)]
pub struct Written {
    fates: BTreeMap<ItemRef, Fate>,
    /// The keys that KV has confirmed, and the items that have them.
    pub keys: BTreeMap<String, ItemRef>,
    /// Keys that were written for an item that no longer asks for them.
    pub left_behind: BTreeMap<String, ItemRef>,
    /// Whether a write was sent that may have been carried out.
    pub may_have_written: bool,
}

impl Written {
    pub fn fate(&self, item: &ItemRef) -> Fate {
        self.fates.get(item).cloned().unwrap_or(Fate::Failed(ExportError::Undecided))
    }
}

/// An item's value and its keys, as read last.
struct Draft {
    write: WriteItem,
    entry: Rc<Entry>,
    keys: Vec<String>,
    /// The account whose API key it has.
    owner: Option<ApiKeyOwner>,
    /// Whether the image stood in.
    stood_in: bool,
}

/// Writes items of one namespace, each given once. Where two ask for one key, the later one gets it. Returns what
/// became of them.
pub async fn write_items<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    items: Vec<WriteItem>,
    api_keys: &mut ApiKeys,
) -> Written {
    let owners = items.iter().filter_map(|write| owner_of_image(write, invocation.config));
    let mut owners: BTreeSet<ApiKeyOwner> = owners.collect();
    let written = Written::default();
    let mut writing = Writing { invocation, namespace, api_keys, table_error: None, written };
    let mut items = VecDeque::from(items);
    while !items.is_empty() {
        let mut drafts = Vec::new();
        let mut bytes = 0;
        while bytes < MAX_BYTES && !items.is_empty() {
            let next: Vec<WriteItem> = items.drain(..READ_ITEMS.min(items.len())).collect();
            let new = writing.first_read(next, std::mem::take(&mut owners)).await;
            bytes += new.iter().map(|draft| draft.entry.body_bytes()).sum::<usize>();
            drafts.extend(new);
        }
        writing.write(drafts).await;
    }
    let Written { keys, left_behind, .. } = &mut writing.written;
    left_behind.retain(|key, _| !keys.contains_key(key));
    writing.written
}

struct Writing<'a, 's, S> {
    invocation: &'a Invocation<'s, S>,
    namespace: Namespace,
    api_keys: &'a mut ApiKeys,
    /// Why a first read failed: then the table is not waited for again.
    table_error: Option<ReadError>,
    written: Written,
}

impl<S: Services> Writing<'_, '_, S> {
    /// Reads items while API keys are asked for. Returns their drafts.
    async fn first_read(
        &mut self,
        writes: Vec<WriteItem>,
        owners: BTreeSet<ApiKeyOwner>,
    ) -> Vec<Draft> {
        let invocation = self.invocation;
        let (known, until) = (self.table_error.clone(), self.until(invocation.budget.first_read));
        let read = async {
            if let Some(error) = known {
                return Err(error);
            }
            read_items(invocation, until, writes.iter().map(|write| write.item.key())).await
        };
        let (read, ()) = tokio::join!(read, self.api_keys.ask(invocation, owners));
        let items = read.unwrap_or_else(|error| {
            if self.table_error.is_none() && writes.iter().any(|write| write.image.is_some()) {
                warn!(
                    error = %Chain(&error),
                    "the table can't be read: images of the stream stand in for its items"
                );
            }
            self.table_error = Some(error);
            BTreeMap::new()
        });
        let mut found = Vec::new();
        for mut write in writes {
            let item = items.get(&write.item.key()).cloned();
            let stood_in = item.is_none();
            match (item.or_else(|| write.image.take()), &self.table_error) {
                (Some(item), _) => found.push((write, item, stood_in)),
                (None, None) => self.decide(write.item, Fate::Absent),
                (None, Some(error)) => {
                    let error = error.clone().into();
                    self.decide(write.item, Fate::Failed(error));
                }
            }
        }
        self.draft(found).await
    }

    /// Returns the drafts of items that were read, with their API keys.
    async fn draft(&mut self, found: Vec<(WriteItem, Item, bool)>) -> Vec<Draft> {
        let mut decoded = Vec::new();
        for (write, item, stood_in) in found {
            match Decoded::of(&write.item, &item, self.invocation.config) {
                Ok(item) => decoded.push((write, item, stood_in)),
                Err(rejection) => self.decide(write.item, Fate::Rejected(rejection)),
            }
        }
        let settings = decoded.iter().filter_map(|(_, item, _)| item.settings());
        settings.clone().for_each(warn_if_odd);
        self.api_keys.find(self.invocation, settings.collect()).await;
        let made = decoded.into_iter().map(|(write, item, stood_in)| {
            let owner = item.settings().map(|settings| settings.owner.clone());
            let desired = item.desired(self.api_keys);
            (write, owner, desired, stood_in)
        });
        let mut drafts = Vec::new();
        for (write, owner, desired, stood_in) in made.collect::<Vec<_>>() {
            match desired {
                Ok(desired) => drafts.push(self.draft_of(write, owner, desired, stood_in)),
                Err(why) => self.decide(write.item, why.into()),
            }
        }
        drafts
    }

    fn draft_of(
        &self,
        write: WriteItem,
        owner: Option<ApiKeyOwner>,
        Desired { mut keys, value }: Desired,
        stood_in: bool,
    ) -> Draft {
        if let Some(only) = &write.only {
            keys.retain(|key| only.contains(key));
        }
        let metadata = self.invocation.metadata(&write.item.index, write.changed_at.clone());
        let entry = Rc::new(Entry::new(&value, metadata).of_item(write.item.clone()));
        Draft { write, entry, keys, owner, stood_in }
    }

    /// Returns when `time` is over, the deadline at the latest.
    fn until(&self, time: Duration) -> Instant {
        let deadline = self.invocation.budget.deadline;
        Instant::now().checked_add(time).map_or(deadline, |until| until.min(deadline))
    }

    fn decide(&mut self, item: ItemRef, fate: Fate) {
        self.written.fates.insert(item, fate);
    }

    /// Puts the drafts, and follows their items.
    async fn write(&mut self, mut drafts: Vec<Draft>) {
        for round in 0..MAX_PUTS {
            if drafts.is_empty() {
                return;
            }
            let put = self.put(drafts, round == 0).await;
            drafts = self.read_again(put).await;
        }
        for draft in drafts {
            self.decide(draft.write.item, Fate::Failed(ExportError::StillChanging));
        }
    }

    /// Returns the drafts that were confirmed under all of their keys. A draft that is put again takes no
    /// key from another item.
    async fn put(&mut self, drafts: Vec<Draft>, is_first: bool) -> Vec<Draft> {
        let mut last: BTreeMap<&String, &Draft> = BTreeMap::new();
        for draft in &drafts {
            for key in &draft.keys {
                if let Some(loser) = last.insert(key, draft) {
                    let index = &draft.write.item.index;
                    warn!(
                        system_account_id = index.account,
                        index_name = index.name,
                        key,
                        loser = %loser.write.item,
                        "several items of the batch ask for one KV key: the last one has it"
                    );
                }
            }
        }
        // In the order of the items. So Cloudflare's refusals are found in this order too, and each delivery
        // gets further.
        let mut pairs = Vec::new();
        for draft in &drafts {
            for key in &draft.keys {
                let taken = self.written.keys.get(key).is_some_and(|by| *by != draft.write.item);
                if !std::ptr::eq(last[key], draft) || (taken && !is_first) {
                    continue;
                }
                pairs.push(Pair { key: key.clone(), entry: Rc::clone(&draft.entry) });
                self.written.keys.insert(key.clone(), draft.write.item.clone());
            }
        }
        let bounds = self.invocation.budget.for_writes();
        let failures = bulk::put(self.invocation, self.namespace, bounds, pairs).await;
        let is_certain =
            |key: &String| failures.get(key).is_some_and(|failure| !failure.may_be_done);
        self.written.may_have_written |=
            !drafts.iter().flat_map(|draft| &draft.keys).all(is_certain);
        let mut confirmed = Vec::new();
        for draft in drafts {
            let own = draft.keys.iter().filter(|key| {
                self.written.keys.get(*key).is_some_and(|item| *item == draft.write.item)
            });
            let failed = own.filter_map(|key| Some((key, failures.get(key)?))).next();
            match failed.map(|(key, failure)| ExportError::kv(key, failure.error.clone())) {
                Some(error) => self.decide(draft.write.item, Fate::Failed(error)),
                None => confirmed.push(draft),
            }
        }
        self.written.keys.retain(|key, _| !failures.contains_key(key));
        confirmed
    }

    /// Reads the items again. Returns those that have changed, to be put again.
    async fn read_again(&mut self, drafts: Vec<Draft>) -> Vec<Draft> {
        let time = if self.table_error.is_some() { SECOND_CHANCE } else { Duration::MAX };
        let until = self.until(time);
        let mut changed = Vec::new();
        let mut drafts = VecDeque::from(drafts);
        while !drafts.is_empty() {
            let part: Vec<Draft> = drafts.drain(..READ_ITEMS.min(drafts.len())).collect();
            let keys = part.iter().map(|draft| draft.write.item.key());
            let read = read_items(self.invocation, until, keys).await;
            match read {
                Ok(items) => {
                    let follow = |draft: Draft| {
                        let item = items.get(&draft.write.item.key());
                        self.follow(draft, item)
                    };
                    changed.extend(part.into_iter().filter_map(follow));
                }
                Err(error) => self.leave_unverified(part, &error),
            }
        }
        changed
    }

    /// Follows an item that was read again. Returns what is to be put.
    fn follow(&mut self, draft: Draft, item: Option<&Item>) -> Option<Draft> {
        let Some(item) = item else {
            let fate = if draft.stood_in { Fate::Written } else { Fate::Absent };
            if !draft.stood_in {
                self.leave_behind(&draft, &[]);
            }
            self.decide(draft.write.item, fate);
            return None;
        };
        let new = Decoded::of(&draft.write.item, item, self.invocation.config).map(|mut item| {
            if let (Decoded::Settings(settings), Some(owner)) = (&mut item, &draft.owner) {
                settings.owner = owner.clone();
            }
            item.desired(self.api_keys)
        });
        match new.unwrap_or_else(|rejection| Err(rejection.into())) {
            Ok(desired) => {
                let new = self.draft_of(draft.write.clone(), draft.owner.clone(), desired, false);
                self.leave_behind(&draft, &new.keys);
                let is_same = new.entry.digest() == draft.entry.digest();
                if !is_same || new.keys.iter().any(|key| !draft.keys.contains(key)) {
                    return Some(new);
                }
                self.decide(draft.write.item, Fate::Written);
            }
            Err(why) => self.decide(draft.write.item, why.into()),
        }
        None
    }

    /// Notes the keys that were written for an item and for which it no longer asks.
    fn leave_behind(&mut self, draft: &Draft, asked: &[String]) {
        for key in draft.keys.iter().filter(|key| !asked.contains(key)) {
            if self.written.keys.get(key) == Some(&draft.write.item) {
                self.written.keys.remove(key);
                self.written.left_behind.insert(key.clone(), draft.write.item.clone());
            }
        }
    }

    fn leave_unverified(&mut self, drafts: Vec<Draft>, error: &ReadError) {
        let is_batch = self.invocation.source == Source::Stream;
        if is_batch {
            warn!(
                items = drafts.len(),
                error = %Chain(error),
                "items were exported, and could not be read again: a change meanwhile has its own record"
            );
        }
        for draft in drafts {
            let fate = if is_batch { Fate::Written } else { Fate::Failed(error.clone().into()) };
            if !is_batch {
                self.written.keys.retain(|_, item| *item != draft.write.item);
            }
            self.decide(draft.write.item, fate);
        }
    }
}

/// Returns the account whose API key the image of an index will need, and its cell.
fn owner_of_image(write: &WriteItem, config: &ExporterConfig) -> Option<ApiKeyOwner> {
    let image = write.image.as_ref().filter(|_| write.item.query.is_none())?;
    Some(Exportable::decode(&write.item.index, image, config).ok()?.owner)
}

fn warn_if_odd(Exportable { settings, .. }: &Exportable) {
    if let Some(warning) = &settings.warning {
        warn!(
            system_account_id = settings.index.account,
            index_name = settings.index.name,
            warning,
            "an index is exported as it is, and is worth a look"
        );
    }
}
