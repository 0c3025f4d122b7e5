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
//! An item is put at most three times; what still changes then has failed. Where the first read finds no
//! item, an image of the stream may stand in: [`batch`](super::batch) says when.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::api_keys::{ApiKeyOwner, ApiKeys, NotExportable};
use super::bulk;
use super::error::ExportError;
use super::exportable::Exportable;
use super::invocation::{Budget, Invocation};
use super::table::read_items;
use crate::index::ItemRef;
use crate::item::{Item, ItemKey, Rejection};
use crate::kv::{Namespace, Pair, Source, StoredValue};
use crate::ports::{ServiceError, Services};
use crate::text::Chain;

/// The most often that an item is put.
const MAX_PUTS: usize = 3;

/// Items that are read at once: one request, with up to 40 MB, because an item may have 400 KB.
pub const READ_ITEMS: usize = 100;

/// How long the second read may take where the first one failed. The next batch may hold a rollback.
const SECOND_CHANCE: Duration = Duration::from_secs(25);

/// What the values of one round may take, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

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

#[derive(Debug, Default)]
pub struct Written {
    fates: BTreeMap<ItemRef, Fate>,
    /// The keys that KV has confirmed, and the items that have them.
    pub keys: BTreeMap<String, ItemRef>,
    /// The item of each key, even if its write failed.
    pub winners: BTreeMap<String, ItemRef>,
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
    /// It has an image only if that stood in.
    write: WriteItem,
    stored: Rc<StoredValue>,
    /// Those that are not another item's.
    keys: Vec<String>,
    /// The account whose API key the value has.
    owner: Option<ApiKeyOwner>,
    /// What is odd about the item.
    warning: Option<String>,
    /// Why KV did not confirm one of the keys.
    failure: Option<ExportError>,
}

/// Writes items of one namespace, each given once. Where two ask for one key, the later one gets it. Returns what
/// became of them.
pub async fn write_items<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    items: Vec<WriteItem>,
    api_keys: &mut ApiKeys,
) -> Written {
    let owners = items.iter().filter_map(|write| {
        let image = Exportable::decode(&write.item, write.image.as_ref()?, invocation.config);
        image.ok()?.owner().cloned()
    });
    let mut writing = Writing {
        invocation,
        namespace,
        api_keys,
        is_batch: invocation.source == Source::Stream
            && items.iter().all(|write| write.only.is_none()),
        owners: owners.collect(),
        table: Ok(()),
        written: Written::default(),
    };
    let mut items = items.into_iter();
    while items.len() > 0 {
        let (mut drafts, mut bytes) = (Vec::new(), 0);
        while bytes < MAX_BYTES && items.len() > 0 {
            let new = writing.draft_all(items.by_ref().take(READ_ITEMS).collect()).await;
            bytes += new.iter().map(|draft| draft.stored.body_bytes()).sum::<usize>();
            drafts.extend(new);
        }
        for _ in 0..MAX_PUTS {
            writing.give_contested_keys_to_the_last(&mut drafts);
            let put = writing.put(drafts).await;
            drafts = writing.read_again(put).await;
        }
        for draft in drafts {
            writing.fail(draft, ExportError::StillChanging);
        }
    }
    writing.written
}

struct Writing<'a, 's, S> {
    invocation: &'a Invocation<'s, S>,
    namespace: Namespace,
    api_keys: &'a mut ApiKeys,
    /// Whether these are a batch's own items, and not those for which a removal writes.
    is_batch: bool,
    /// The accounts whose API keys the images will need. They are asked for beside the first read.
    owners: BTreeSet<ApiKeyOwner>,
    /// Whether the first reads succeed. After one that fails, the table is not waited for again.
    table: Result<(), ServiceError>,
    written: Written,
}

impl<S: Services> Writing<'_, '_, S> {
    /// Returns the drafts of items, with their API keys.
    async fn draft_all(&mut self, writes: Vec<WriteItem>) -> Vec<Draft> {
        let mut items = self.first_read(&writes).await;
        let mut found = Vec::new();
        for mut write in writes {
            let item = items.remove(&write.item.key());
            if item.is_some() {
                write.image = None;
            }
            match (item.as_ref().or(write.image.as_ref()), self.table.clone()) {
                (Some(item), _) => {
                    let item = Exportable::decode(&write.item, item, self.invocation.config);
                    found.push((write, item));
                }
                (None, Ok(())) => self.decide(write.item, Fate::Absent),
                (None, Err(error)) => self.decide(write.item, Fate::Failed(error.into())),
            }
        }
        let exportable = found.iter().filter_map(|(_, item)| item.as_ref().ok());
        self.api_keys.find(self.invocation, exportable).await;
        found.into_iter().filter_map(|(write, item)| self.draft(write, item)).collect()
    }

    /// Reads items while API keys are asked for. A table that can't be read has none of them.
    async fn first_read(&mut self, writes: &[WriteItem]) -> BTreeMap<ItemKey, Item> {
        let invocation = self.invocation;
        let until = self.until(invocation.budget.first_read);
        let read = async {
            self.table.clone()?;
            read_items(invocation, until, writes.iter().map(|write| write.item.key())).await
        };
        let owners = std::mem::take(&mut self.owners);
        let (read, ()) = tokio::join!(read, self.api_keys.ask(invocation, owners));
        read.unwrap_or_else(|error| {
            if writes.iter().any(|write| write.image.is_some()) {
                warn!(
                    error = %Chain(&error),
                    "the table can't be read: images of the stream stand in for its items"
                );
            }
            self.table = Err(error);
            BTreeMap::new()
        })
    }

    /// Returns the draft of an item, if it can be exported with the API keys that are known.
    fn draft(&mut self, write: WriteItem, item: Result<Exportable, Rejection>) -> Option<Draft> {
        let exported = item.map_err(NotExportable::from).and_then(|item| {
            let (keys, owner) = (item.keys.clone(), item.owner().cloned());
            let warning = item.settings().and_then(|(settings, _)| settings.warning.clone());
            Ok((keys, owner, warning, item.value(self.api_keys)?))
        });
        let fate = match exported {
            Ok((mut keys, owner, warning, value)) => {
                keys.retain(|key| write.only.as_ref().is_none_or(|only| only.contains(key)));
                let metadata =
                    self.invocation.metadata(&write.item.index, write.changed_at.clone());
                let stored = Rc::new(StoredValue::new(value, metadata));
                return Some(Draft { write, stored, keys, owner, warning, failure: None });
            }
            Err(NotExportable::Rejected(rejection)) => Fate::Rejected(rejection),
            Err(NotExportable::Unavailable(error)) => Fate::Failed(error.into()),
        };
        self.decide(write.item, fate);
        None
    }

    /// Returns when `time` is over, the deadline at the latest.
    fn until(&self, time: Duration) -> Instant {
        let deadline = self.invocation.budget.deadline;
        Instant::now().checked_add(time).map_or(deadline, |until| until.min(deadline))
    }

    fn decide(&mut self, item: ItemRef, fate: Fate) {
        self.written.fates.insert(item, fate);
    }

    /// Decides about an item that was put, and to which the table has nothing to add.
    fn decide_put(&mut self, Draft { write, failure, .. }: Draft) {
        self.decide(write.item, failure.map_or(Fate::Written, Fate::Failed));
    }

    /// Notes that an item was put, and that KV may differ from the table.
    fn fail(&mut self, Draft { write, .. }: Draft, error: ExportError) {
        self.written.keys.retain(|_, item| *item != write.item);
        self.decide(write.item, Fate::Failed(error));
    }

    fn give_contested_keys_to_the_last(&mut self, drafts: &mut [Draft]) {
        let mut winners: BTreeMap<String, ItemRef> = BTreeMap::new();
        for Draft { write: WriteItem { item, .. }, keys, .. } in drafts.iter_mut().rev() {
            keys.retain(|key| {
                let winner = winners.entry(key.clone()).or_insert_with(|| item.clone());
                if winner != item {
                    warn!(
                        system_account_id = winner.index.account,
                        index_name = winner.index.name,
                        key,
                        loser = %item,
                        "several items of the batch ask for one KV key: the last one has it"
                    );
                }
                winner == item
            });
        }
        self.written.left_behind.retain(|key, _| !winners.contains_key(key));
        self.written.winners.extend(winners);
    }

    /// Returns the drafts that KV may hold now, whole or in part.
    async fn put(&mut self, drafts: Vec<Draft>) -> Vec<Draft> {
        drafts.iter().for_each(warn_if_odd);
        // In the order of the items. So Cloudflare's refusals are found in this order too, and each delivery
        // gets further.
        let pairs = drafts.iter().flat_map(|Draft { write, keys, stored, .. }| {
            keys.iter().map(|key| Pair {
                key: key.clone(),
                stored: Rc::clone(stored),
                item: Some(write.item.clone()),
            })
        });
        let budget = self.invocation.budget;
        let deadline = if self.is_batch { budget.writes_until } else { budget.deadline };
        let budget = Budget { deadline, ..budget };
        let failures = bulk::put(self.invocation, self.namespace, budget, pairs.collect()).await;
        let mut put = Vec::new();
        for mut draft in drafts {
            let (mut errors, mut may_be_put) = (Vec::new(), draft.keys.is_empty());
            for key in &draft.keys {
                let failure = failures.get(key);
                may_be_put |= failure.is_none_or(|failure| failure.may_be_done);
                if let Some(failure) = failure {
                    self.written.keys.remove(key);
                    errors.push(ExportError::kv(key, failure.error.clone()));
                } else {
                    self.written.keys.insert(key.clone(), draft.write.item.clone());
                }
            }
            // One that another try may help wins over the others.
            draft.failure = errors.into_iter().min_by_key(ExportError::is_own_fault);
            if may_be_put {
                self.written.may_have_written |= !draft.keys.is_empty();
                put.push(draft);
            } else {
                self.decide_put(draft);
            }
        }
        put
    }

    /// Reads the items again. Returns those that have changed, to be put again.
    async fn read_again(&mut self, drafts: Vec<Draft>) -> Vec<Draft> {
        let until = self.until(if self.table.is_ok() { Duration::MAX } else { SECOND_CHANCE });
        let mut changed = Vec::new();
        let mut drafts = drafts.into_iter();
        while drafts.len() > 0 {
            let part: Vec<Draft> = drafts.by_ref().take(READ_ITEMS).collect();
            let keys = part.iter().map(|draft| draft.write.item.key());
            match read_items(self.invocation, until, keys).await {
                Ok(items) => changed.extend(part.into_iter().filter_map(|draft| {
                    let item = items.get(&draft.write.item.key());
                    self.follow(draft, item)
                })),
                // A table that fails is not waited for again.
                Err(error) => {
                    let unread = part.into_iter().chain(drafts.by_ref()).collect();
                    self.leave_unverified(unread, &error);
                }
            }
        }
        changed
    }

    /// Follows an item that was read again. Returns what is to be put.
    fn follow(&mut self, mut draft: Draft, item: Option<&Item>) -> Option<Draft> {
        let stood_in = draft.write.image.take().is_some();
        let Some(item) = item else {
            if stood_in {
                self.decide_put(draft);
            } else {
                self.leave_behind(&draft, &[]);
                self.decide(draft.write.item, Fate::Absent);
            }
            return None;
        };
        let item = Exportable::decode(&draft.write.item, item, self.invocation.config);
        let item = item.map(|item| item.with_owner(draft.owner.as_ref()));
        let mut new = self.draft(draft.write.clone(), item)?;
        self.leave_behind(&draft, &new.keys);
        let item = &draft.write.item;
        new.keys.retain(|key| self.written.winners.get(key).is_none_or(|winner| winner == item));
        let is_same = new.stored.value == draft.stored.value;
        if is_same && new.keys.iter().all(|key| draft.keys.contains(key)) {
            self.decide_put(draft);
            return None;
        }
        Some(new)
    }

    /// Notes the keys that were written for an item and for which it no longer asks.
    fn leave_behind(&mut self, draft: &Draft, asked: &[String]) {
        for key in draft.keys.iter().filter(|key| !asked.contains(key)) {
            self.written.keys.remove(key);
            self.written.winners.remove(key);
            self.written.left_behind.insert(key.clone(), draft.write.item.clone());
        }
    }

    /// Decides about items that could not be read again.
    fn leave_unverified(&mut self, drafts: Vec<Draft>, error: &ServiceError) {
        // A removal writes items of other records. Such a record may be exported already, and nothing would follow it.
        if self.is_batch {
            warn!(
                items = drafts.len(),
                error = %Chain(error),
                "items were exported, and could not be read again: a change meanwhile has its own record"
            );
            drafts.into_iter().for_each(|draft| self.decide_put(draft));
        } else {
            drafts.into_iter().for_each(|draft| self.fail(draft, error.clone().into()));
        }
    }
}

fn warn_if_odd(Draft { write: WriteItem { item, .. }, warning, .. }: &Draft) {
    if let Some(warning) = warning {
        warn!(
            system_account_id = item.index.account,
            index_name = item.index.name,
            warning,
            "an index is exported as it is, and is worth a look"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::api_keys::Fallback;
    use crate::export::fakes::{
        Fakes, KvFault, TIME_LEFT, TableChange, api_keys_error, index_item, kv_error, pixel,
        settings_of, shop,
    };
    use crate::ports::ErrorKind;
    use serde_json::{Value, json};

    const SECOND: Duration = Duration::from_secs(1);

    /// Attributes with the shop id `s`, unless they name another.
    fn with_shop(attributes: &Value) -> Value {
        let mut all = shop("s");
        all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        all
    }

    fn becomes(attributes: &Value) -> TableChange {
        TableChange::Put(index_item("i", &with_shop(attributes)))
    }

    async fn write(fakes: &Fakes, source: Source, items: Vec<WriteItem>) -> Written {
        let mut invocation = fakes.invocation(source);
        invocation.budget.first_read = 5 * SECOND;
        let mut api_keys = ApiKeys::new(Fallback::Kv, TIME_LEFT);
        write_items(&invocation, Namespace::Settings, items, &mut api_keys).await
    }

    /// Writes an item of index `i`, with the shop id `s`, while the table changes behind the first read.
    async fn write_while(
        fakes: &Fakes,
        source: Source,
        item: WriteItem,
        changes: impl IntoIterator<Item = TableChange>,
    ) -> Written {
        fakes.table.put(index_item("i", &with_shop(&json!({}))));
        fakes.table.changes.then_nothing(1);
        fakes.table.changes.then(changes);
        write(fakes, source, vec![item]).await
    }

    fn item_i() -> WriteItem {
        WriteItem::new(settings_of("i"))
    }

    fn names(keys: &BTreeMap<String, ItemRef>) -> String {
        keys.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// What became of the settings of an index, in a word.
    fn fate(written: &Written, name: &str) -> String {
        match written.fate(&settings_of(name)) {
            Fate::Written => "written".to_owned(),
            Fate::Absent => "absent".to_owned(),
            Fate::Rejected(rejection) => format!("rejected: {}", rejection.path),
            Fate::Failed(error) => format!("failed: {}", Chain(&error)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_from_the_second_read() {
        let moves = || becomes(&shop("t"));
        let to_and_fro = vec![moves(), becomes(&json!({}))];
        let value = becomes(&pixel("1"));
        let cell = becomes(&json!({"cell": {"S": "new"}}));
        let gone = TableChange::Remove(settings_of("i").key());
        let broken = becomes(&json!({"index_endpoint": null}));
        let fails = || TableChange::Fails;
        let unread = "failed: settings table: BatchGetItem: down";
        let [batch, by_hand] = [Source::Stream, Source::ReExport].map(|source| (source, None));
        let one_key = (Source::Stream, Some(BTreeSet::from(["s".to_owned()])));
        // The keys of each put.
        let (once, twice, moved) = ("s a-i", "s a-i, s a-i", "s a-i, t a-i");
        let back = "s a-i, t a-i, s a-i";
        let rows = [
            ("as it was", &batch, vec![], "written", "a-i s", "", once),
            ("another value", &batch, vec![value], "written", "a-i s", "", twice),
            ("another key", &batch, vec![moves()], "written", "a-i t", "s", moved),
            ("another key, and back", &by_hand, to_and_fro, "written", "a-i s", "t", back),
            ("another cell", &batch, vec![cell], "written", "a-i s", "", once),
            ("gone", &batch, vec![gone], "absent", "", "a-i s", once),
            ("broken", &batch, vec![broken], "rejected: index_endpoint", "a-i s", "", once),
            ("unread, of a batch", &batch, vec![fails()], "written", "a-i s", "", once),
            ("unread, by hand", &by_hand, vec![fails()], unread, "", "", once),
            ("one key, as it was", &one_key, vec![], "written", "s", "", "s"),
            ("one key, another key", &one_key, vec![moves()], "written", "", "s", "s"),
            // A change of an item that is not the batch's may have been exported before.
            ("one key, unread", &one_key, vec![fails()], unread, "", "", "s"),
        ];
        for (name, (source, only), changes, expected, keys, left_behind, puts) in rows {
            let fakes = Fakes::new();
            // The table has the item when it is first read, so the image stands in for nothing.
            let (_, image) = index_item("i", &with_shop(&pixel("image")));
            let item = WriteItem { only: only.clone(), image: Some(image), ..item_i() };
            let written = write_while(&fakes, *source, item, changes).await;
            assert_eq!(fate(&written, "i"), expected, "{name}");
            assert_eq!(names(&written.keys), keys, "{name}");
            assert_eq!(names(&written.left_behind), left_behind, "{name}");
            let requests: Vec<String> =
                fakes.kv.requests.borrow().iter().map(|keys| keys.join(" ")).collect();
            assert_eq!(requests.join(", "), puts, "{name}");
            assert_eq!(fakes.api_keys.requests.borrow().len(), 1, "{name}");
            assert!(written.may_have_written, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_that_moves_to_another_cell_has_the_api_key_of_the_one_that_was_asked() {
        for cell in ["none", "unasked"] {
            let fakes = Fakes::new();
            let of = |name, cell| {
                index_item(name, &json!({"cell": {"S": cell}, "pixel_id": {"S": cell}}))
            };
            [of("i", "none"), of("j", "some")].into_iter().for_each(|item| fakes.table.put(item));
            fakes.table.changes.then_after(1, [TableChange::Put(of("j", cell))]);
            fakes.api_keys.faults.then([api_keys_error(ErrorKind::NotFound)]);
            let items = ["i", "j"].map(|name| WriteItem::new(settings_of(name)));
            let written = write(&fakes, Source::Stream, items.into()).await;
            assert_eq!(fate(&written, "i"), "rejected: system_account_id");
            assert_eq!(fate(&written, "j"), "written", "{cell}");
            assert_eq!(fakes.kv.value("a-j")["pixel_id"], cell);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_twice_is_followed_and_what_changes_three_times_has_failed() {
        let changing = "failed: the table changes as fast as it is followed";
        for (changes, expected, keys) in [(2, "written", "a-i s"), (3, changing, "")] {
            let fakes = Fakes::new();
            let pixels = (1..=changes).map(|n| becomes(&pixel(&n.to_string())));
            let written = write_while(&fakes, Source::Stream, item_i(), pixels).await;
            assert_eq!(fate(&written, "i"), expected);
            assert_eq!(names(&written.keys), keys, "those that hold what the table says");
            assert_eq!(fakes.kv.requests.borrow().len(), MAX_PUTS);
            assert_eq!(fakes.kv.value("s")["pixel_id"], "2");
        }
    }

    /// API keys take 4 s. They are asked for beside the first read, which takes 5 s at most.
    #[tokio::test(start_paused = true)]
    async fn which_image_is_written() {
        let put = || becomes(&pixel("table"));
        let broken = becomes(&json!({"index_endpoint": {"S": "nowhere"}}));
        let gone = TableChange::Remove(settings_of("i").key());
        let (fails, hangs) = (|| TableChange::Fails, || TableChange::Hangs);
        let (none, image, table) = (None, Some("image"), Some("table"));
        let large = "x".repeat(25 * 1024 * 1024);
        let down = "failed: settings table: BatchGetItem: down";
        let late = "failed: settings table: no response in time";
        let rows: [(_, Vec<TableChange>, _, _, _, u64); 12] = [
            ("absent", vec![], image, "written", image, 4),
            ("absent, no image", vec![], none, "absent", none, 0),
            ("absent, the image too large", vec![], Some(&large), "rejected: (value)", none, 4),
            ("the table has it", vec![put()], image, "written", table, 4),
            ("the table has it, no image", vec![put()], none, "written", table, 4),
            ("the table has it broken", vec![broken], image, "rejected: index_endpoint", none, 4),
            ("the table fails", vec![fails(), fails()], image, "written", image, 4),
            ("the table fails, no image", vec![fails()], none, down, none, 0),
            ("the table fails, then has it", vec![fails(), put()], image, "written", table, 4),
            ("the item comes and goes", vec![fails(), put(), gone], image, "absent", table, 4),
            ("the table hangs", vec![hangs(), hangs()], image, "written", image, 5 + 25),
            ("the table hangs, no image", vec![hangs()], none, late, none, 5),
        ];
        for (name, changes, image, expected, pixel_id, seconds) in rows {
            let (fakes, start) = (Fakes::new(), Instant::now());
            fakes.api_keys.delays.borrow_mut().insert("a".to_owned(), 4 * SECOND);
            fakes.table.changes.then(changes);
            let image = image.map(|id| index_item("i", &with_shop(&pixel(id))).1);
            let written =
                write(&fakes, Source::Stream, vec![WriteItem { image, ..item_i() }]).await;
            assert_eq!(fate(&written, "i"), expected, "{name}");
            let is_sent = !fakes.kv.requests.borrow().is_empty();
            assert_eq!([is_sent, written.may_have_written], [pixel_id.is_some(); 2], "{name}");
            let held = is_sent.then(|| fakes.kv.value("s")["pixel_id"].clone());
            assert_eq!(held, pixel_id.map(Value::from), "{name}");
            let left_behind = if is_sent && expected == "absent" { "a-i s" } else { "" };
            assert_eq!(names(&written.left_behind), left_behind, "{name}");
            assert_eq!(start.elapsed().as_secs(), seconds, "{name}");
        }
    }

    /// Puts indexes into the table that ask for the shop id `s`. Returns their items, to be written in this order.
    fn rivals(fakes: &Fakes, names: [&str; 2]) -> Vec<WriteItem> {
        names.iter().for_each(|name| fakes.table.put(index_item(name, &shop("s"))));
        names.map(|name| WriteItem::new(settings_of(name))).into()
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_items_that_ask_for_a_key_the_later_has_it() {
        let (last_changes, first_changes) =
            ([vec!["a-j", "s", "a-i"], vec!["s", "a-i"]], [vec!["a-i", "s", "a-j"], vec!["a-i"]]);
        for (order, requests) in [(["j", "i"], last_changes), (["i", "j"], first_changes)] {
            let fakes = Fakes::new();
            let items = rivals(&fakes, order);
            fakes.table.changes.then_nothing(1);
            fakes.table.changes.then([becomes(&pixel("1"))]);
            let written = write(&fakes, Source::Stream, items).await;
            assert_eq!(*fakes.kv.requests.borrow(), requests, "what changes takes no other's key");
            assert_eq!(written.keys["s"], settings_of(order[1]));
            assert_eq!(fakes.kv.value("s")["index_name"], order[1]);
        }
    }

    /// Writes `i000` to `i100`, which are read in two requests, while the table changes behind the first reads.
    async fn write_101(
        fakes: &Fakes,
        attributes: Value,
        changes: impl IntoIterator<Item = TableChange>,
    ) -> Written {
        let names: Vec<String> = (0..=READ_ITEMS).map(|number| format!("i{number:03}")).collect();
        names.iter().for_each(|name| fakes.table.put(index_item(name, &attributes)));
        fakes.table.changes.then_nothing(2);
        fakes.table.changes.then(changes);
        let items = names.iter().map(|name| WriteItem::new(settings_of(name))).collect();
        write(fakes, Source::Stream, items).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_for_which_two_items_come_to_ask_meanwhile_is_once_in_a_request() {
        let fakes = Fakes::new();
        let asks = |name: &str| TableChange::Put(index_item(name, &shop("s")));
        let written = write_101(&fakes, json!({}), [asks("i000"), asks("i100")]).await;
        assert_eq!(fakes.kv.requests.borrow()[1], ["a-i000", "s", "a-i100"]);
        assert_eq!(written.keys["s"], settings_of("i100"));
    }

    #[tokio::test(start_paused = true)]
    async fn values_that_fill_memory_are_put_before_more_items_are_read() {
        let fakes = Fakes::new();
        write_101(&fakes, pixel(&"x".repeat(200 * 1024)), []).await;
        let sizes: Vec<usize> = fakes.kv.requests.borrow().iter().map(Vec::len).collect();
        assert_eq!(sizes, [READ_ITEMS, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_fails_a_second_read_is_not_waited_for_again() {
        let fakes = Fakes::new();
        let unseen = TableChange::Put(index_item("i100", &pixel("1")));
        let written = write_101(&fakes, json!({}), [TableChange::Fails, unseen]).await;
        assert_eq!(["i000", "i100"].map(|name| fate(&written, name)), ["written", "written"]);
        assert_eq!(fakes.kv.requests.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_with_a_key_that_kv_does_not_confirm_has_failed() {
        let [refused, lost] = [ErrorKind::RefusedContent, ErrorKind::Transient]
            .map(|kind| move || KvFault::Fails(kv_error(kind)));
        let of_s = "failed: key \"s\": Cloudflare KV: scripted";
        let of_i = "failed: key \"a-i\": Cloudflare KV: scripted";
        let refused_and_lost = [vec![refused(); 2], vec![lost(); 4]].concat();
        let one_refused = || vec![refused(), refused()];
        let changes = vec![becomes(&pixel("1"))];
        let gone = vec![TableChange::Remove(settings_of("i").key())];
        for (name, faults, changes, expected, keys, may_have_written) in [
            ("one refused", one_refused(), vec![], of_s, "a-i", true),
            ("all refused", vec![refused(); 3], vec![], of_s, "", false),
            ("lost", vec![lost(); 4], vec![], of_s, "", true),
            ("refused and lost", refused_and_lost, vec![], of_i, "", true),
            // What KV confirmed must not stay behind the table.
            ("one refused, then changed", one_refused(), changes, "written", "a-i s", true),
            ("one refused, then gone", one_refused(), gone, "absent", "", true),
            ("one refused, unread", one_refused(), vec![TableChange::Fails], of_s, "a-i", true),
        ] {
            let fakes = Fakes::new();
            fakes.kv.faults.then(faults);
            let written = write_while(&fakes, Source::Stream, item_i(), changes).await;
            assert_eq!(fate(&written, "i"), expected, "{name}");
            assert_eq!(names(&written.keys), keys, "{name}");
            assert_eq!(written.may_have_written, may_have_written, "{name}");
        }
    }

    #[test]
    fn an_item_that_nobody_decided_about_has_failed() {
        assert_eq!(fate(&Written::default(), "i"), "failed: nobody decided about it");
    }
}
