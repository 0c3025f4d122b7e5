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
//! An item is put at most [`MAX_PUTS`] times; what still changes then has failed. Where the first read finds no
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
use super::invocation::Invocation;
use super::table::{ReadError, read_items};
use crate::config::ExporterConfig;
use crate::error_chain::Chain;
use crate::index::ItemRef;
use crate::item::{Item, ItemKey, Rejection};
use crate::kv::{Namespace, Pair, Source, StoredValue};
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

    fn key(&self) -> ItemKey {
        self.item.key()
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
    /// The items that have the keys, also where their writes failed.
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
    write: WriteItem,
    stored: Rc<StoredValue>,
    /// Those that are not another item's.
    keys: Vec<String>,
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
    let owners = owners.collect();
    let mut writing = Writing {
        invocation,
        namespace,
        api_keys,
        owners,
        table_error: None,
        written: Written::default(),
    };
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let mut drafts = Vec::new();
        let mut bytes = 0;
        while bytes < MAX_BYTES && items.peek().is_some() {
            let new = writing.first_read(items.by_ref().take(READ_ITEMS).collect()).await;
            bytes += new.iter().map(|draft| draft.stored.body_bytes()).sum::<usize>();
            drafts.extend(new);
        }
        writing.write(drafts).await;
    }
    let Written { winners, left_behind, .. } = &mut writing.written;
    left_behind.retain(|key, _| !winners.contains_key(key));
    writing.written
}

struct Writing<'a, 's, S> {
    invocation: &'a Invocation<'s, S>,
    namespace: Namespace,
    api_keys: &'a mut ApiKeys,
    /// The accounts whose API keys the images will need. They are asked for beside the first read.
    owners: BTreeSet<ApiKeyOwner>,
    /// Why a first read failed: then the table is not waited for again.
    table_error: Option<ReadError>,
    written: Written,
}

impl<S: Services> Writing<'_, '_, S> {
    /// Reads items while API keys are asked for. Returns their drafts.
    async fn first_read(&mut self, writes: Vec<WriteItem>) -> Vec<Draft> {
        let invocation = self.invocation;
        let until = self.until(invocation.budget.first_read);
        let known = self.table_error.clone();
        let read = async {
            match known {
                None => read_items(invocation, until, writes.iter().map(WriteItem::key)).await,
                Some(error) => Err(error),
            }
        };
        let owners = std::mem::take(&mut self.owners);
        let (read, ()) = tokio::join!(read, self.api_keys.ask(invocation, owners));
        let mut items = read.unwrap_or_else(|error| {
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
            let item = items.remove(&write.key());
            let stood_in = item.is_none();
            match (item.or_else(|| write.image.take()), self.table_error.clone()) {
                (Some(item), _) => found.push((write, item, stood_in)),
                (None, None) => self.decide(write.item, Fate::Absent),
                (None, Some(error)) => self.decide(write.item, Fate::Failed(error.into())),
            }
        }
        self.draft(found).await
    }

    /// Returns the drafts of items that were read, with their API keys.
    async fn draft(&mut self, found: Vec<(WriteItem, Item, bool)>) -> Vec<Draft> {
        let mut exportable = Vec::new();
        for (write, item, stood_in) in found {
            match Exportable::decode(&write.item, &item, self.invocation.config) {
                Ok(item) => exportable.push((write, item, stood_in)),
                Err(rejection) => self.decide(write.item, Fate::Rejected(rejection)),
            }
        }
        exportable.iter().for_each(|(_, item, _)| warn_if_odd(item));
        self.api_keys.find(self.invocation, exportable.iter().map(|(_, item, _)| item)).await;
        let mut drafts = Vec::new();
        for (write, item, stood_in) in exportable {
            match self.draft_of(&write, item, stood_in) {
                Ok(draft) => drafts.push(draft),
                Err(why) => self.decide(write.item, why.into()),
            }
        }
        drafts
    }

    fn draft_of(
        &self,
        write: &WriteItem,
        item: Exportable,
        stood_in: bool,
    ) -> Result<Draft, NotExportable> {
        let mut keys = item.keys.clone();
        if let Some(only) = &write.only {
            keys.retain(|key| only.contains(key));
        }
        let metadata = self.invocation.metadata(&write.item.index, write.changed_at.clone());
        let stored = Rc::new(StoredValue::new(item.value(self.api_keys)?, metadata));
        Ok(Draft { write: write.clone(), stored, keys, stood_in })
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
        for _ in 0..MAX_PUTS {
            if drafts.is_empty() {
                return;
            }
            self.give_contested_keys_to_the_last(&mut drafts);
            let put = self.put(drafts).await;
            drafts = self.read_again(put).await;
        }
        for draft in drafts {
            self.fail(draft, ExportError::StillChanging);
        }
    }

    /// Notes that KV may hold something else than the table of an item that was put.
    fn fail(&mut self, Draft { write, .. }: Draft, error: ExportError) {
        self.written.keys.retain(|_, item| *item != write.item);
        self.decide(write.item, Fate::Failed(error));
    }

    fn give_contested_keys_to_the_last(&mut self, drafts: &mut [Draft]) {
        let mut winners: BTreeMap<String, ItemRef> = BTreeMap::new();
        for Draft { write: WriteItem { item, .. }, keys, .. } in drafts.iter_mut().rev() {
            keys.retain(|key| {
                if let Some(ItemRef { index, .. }) = winners.get(key) {
                    warn!(
                        system_account_id = index.account,
                        index_name = index.name,
                        key,
                        loser = %item,
                        "several items of the batch ask for one KV key: the last one has it"
                    );
                    return false;
                }
                winners.insert(key.clone(), item.clone());
                true
            });
        }
        self.written.winners.extend(winners);
    }

    /// Returns the drafts that were confirmed under all of their keys.
    async fn put(&mut self, drafts: Vec<Draft>) -> Vec<Draft> {
        // In the order of the items. So Cloudflare's refusals are found in this order too, and each delivery
        // gets further.
        let pairs = drafts.iter().flat_map(|Draft { write, keys, stored, .. }| {
            keys.iter().map(|key| Pair {
                key: key.clone(),
                stored: Rc::clone(stored),
                item: Some(write.item.clone()),
            })
        });
        let budget = self.invocation.budget.for_writes();
        let failures = bulk::put(self.invocation, self.namespace, budget, pairs.collect()).await;
        let mut confirmed = Vec::new();
        for draft in drafts {
            let mut errors = Vec::new();
            for key in &draft.keys {
                let failure = failures.get(key);
                self.written.may_have_written |= failure.is_none_or(|failure| failure.may_be_done);
                if let Some(failure) = failure {
                    self.written.keys.remove(key);
                    errors.push(ExportError::kv(key, failure.error.clone()));
                } else {
                    self.written.keys.insert(key.clone(), draft.write.item.clone());
                }
            }
            // One that another try may help wins over the others.
            match errors.into_iter().min_by_key(ExportError::is_own_fault) {
                Some(error) => self.decide(draft.write.item, Fate::Failed(error)),
                None => confirmed.push(draft),
            }
        }
        confirmed
    }

    /// Reads the items again. Returns those that have changed, to be put again.
    async fn read_again(&mut self, drafts: Vec<Draft>) -> Vec<Draft> {
        let until = self.until(match self.table_error {
            Some(_) => SECOND_CHANCE,
            None => Duration::MAX,
        });
        let mut changed = Vec::new();
        let mut drafts = drafts.into_iter().peekable();
        while drafts.peek().is_some() {
            let part: Vec<Draft> = drafts.by_ref().take(READ_ITEMS).collect();
            let keys = part.iter().map(|draft| draft.write.key());
            match read_items(self.invocation, until, keys).await {
                Ok(items) => changed.extend(part.into_iter().filter_map(|draft| {
                    let item = items.get(&draft.write.key());
                    self.follow(draft, item)
                })),
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
        let new = Exportable::decode(&draft.write.item, item, self.invocation.config)
            .map_err(NotExportable::from)
            .and_then(|item| self.draft_of(&draft.write, item, false));
        match new {
            Ok(mut new) => {
                self.leave_behind(&draft, &new.keys);
                let is_anothers = |by: &ItemRef| *by != draft.write.item;
                new.keys.retain(|key| !self.written.winners.get(key).is_some_and(is_anothers));
                let is_same = new.stored.value == draft.stored.value;
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
                self.written.winners.remove(key);
                self.written.left_behind.insert(key.clone(), draft.write.item.clone());
            }
        }
    }

    fn leave_unverified(&mut self, drafts: Vec<Draft>, error: &ReadError) {
        // Another item's keys are written by a removal. A change of that item meanwhile may have been exported
        // before.
        let is_of_the_batch =
            |draft: &Draft| self.invocation.source == Source::Stream && draft.write.only.is_none();
        let (of_the_batch, others): (Vec<_>, Vec<_>) =
            drafts.into_iter().partition(is_of_the_batch);
        if !of_the_batch.is_empty() {
            warn!(
                items = of_the_batch.len(),
                error = %Chain(error),
                "items were exported, and could not be read again: a change meanwhile has its own record"
            );
        }
        for draft in of_the_batch {
            self.decide(draft.write.item, Fate::Written);
        }
        for draft in others {
            self.fail(draft, error.clone().into());
        }
    }
}

/// Returns the account whose API key the image of an index will need, and its cell.
fn owner_of_image(write: &WriteItem, config: &ExporterConfig) -> Option<ApiKeyOwner> {
    let image = write.image.as_ref()?;
    Exportable::decode(&write.item, image, config).ok()?.owner().cloned()
}

fn warn_if_odd(item: &Exportable) {
    if let Some(warning) = item.settings().and_then(|(settings, _)| settings.warning.as_ref()) {
        warn!(
            system_account_id = item.item.index.account,
            index_name = item.item.index.name,
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
        Fakes, Keys, KvFault, TIME_LEFT, TableChange, index_item, item, pixel, query_config,
        settings_of,
    };
    use crate::index::IndexRef;
    use crate::ports::{ApiKeyError, Cause, KvError};
    use serde_json::{Value, json};

    const SECOND: Duration = Duration::from_secs(1);

    /// Attributes with the shop id `s`, unless they name another.
    fn with_shop(attributes: &Value) -> Value {
        let mut all = json!({"shop_id": {"S": "s"}});
        all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        all
    }

    fn becomes(attributes: &Value) -> TableChange {
        TableChange::Put(index_item("i", &with_shop(attributes)))
    }

    fn with_image(name: &str, attributes: &Value) -> WriteItem {
        let (_, image) = index_item(name, &with_shop(attributes));
        WriteItem { image: Some(image), ..WriteItem::new(settings_of(name)) }
    }

    async fn write(fakes: &Fakes, source: Source, items: Vec<WriteItem>) -> Written {
        let mut invocation = fakes.invocation(source);
        invocation.budget.first_read = 5 * SECOND;
        let mut api_keys = ApiKeys::new(Fallback::Kv, TIME_LEFT);
        write_items(&invocation, Namespace::Settings, items, &mut api_keys).await
    }

    /// Writes index `i` with the shop id `s`, while the table changes behind the first read.
    async fn write_while(
        fakes: &Fakes,
        source: Source,
        changes: impl IntoIterator<Item = TableChange>,
    ) -> Written {
        fakes.table.put(index_item("i", &with_shop(&json!({}))));
        fakes.table.changes.then_nothing(1);
        fakes.table.changes.then(changes);
        write(fakes, source, vec![WriteItem::new(settings_of("i"))]).await
    }

    fn names<T>(keys: &BTreeMap<String, T>) -> Vec<&str> {
        keys.keys().map(String::as_str).collect()
    }

    /// A fate in a word.
    fn word(fate: &Fate) -> String {
        match fate {
            Fate::Written => "written".to_owned(),
            Fate::Absent => "absent".to_owned(),
            Fate::Rejected(rejection) => format!("rejected: {}", rejection.path),
            Fate::Failed(error) => format!("failed: {}", Chain(error)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_from_the_second_read() {
        let moved = || becomes(&json!({"shop_id": {"S": "t"}}));
        let gone = || TableChange::Remove(settings_of("i").key());
        let broken = || becomes(&json!({"index_endpoint": null}));
        let unread = "failed: settings table: BatchGetItem: down";
        let (stream, by_hand) = (Source::Stream, Source::ReExport);
        let (back, cell) = (becomes(&json!({})), becomes(&json!({"cell": {"S": "new"}})));
        let both: &[&str] = &["a-i", "s"];
        let rows: [(_, _, Vec<TableChange>, _, &[&str], &[&str], _); 9] = [
            ("as it was", stream, vec![], "written", both, &[], 1),
            ("another value", stream, vec![becomes(&pixel("1"))], "written", both, &[], 2),
            ("another key", stream, vec![moved()], "written", &["a-i", "t"], &["s"], 2),
            ("another key, and back", by_hand, vec![moved(), back], "written", both, &["t"], 3),
            ("another cell", stream, vec![cell], "written", both, &[], 1),
            ("gone", stream, vec![gone()], "absent", &[], both, 1),
            ("broken", stream, vec![broken()], "rejected: index_endpoint", both, &[], 1),
            ("unread, of a batch", stream, vec![TableChange::Fails], "written", both, &[], 1),
            ("unread, by hand", by_hand, vec![TableChange::Fails], unread, &[], &[], 1),
        ];
        for (name, source, changes, fate, keys, left_behind, puts) in rows {
            let fakes = Fakes::new();
            let written = write_while(&fakes, source, changes).await;
            assert_eq!(word(&written.fate(&settings_of("i"))), fate, "{name}");
            assert_eq!(names(&written.keys), keys, "{name}");
            assert_eq!(names(&written.left_behind), left_behind, "{name}");
            assert_eq!(fakes.kv.requests.borrow().len(), puts, "{name}");
            assert_eq!(fakes.api_keys.requests.borrow().len(), 1, "{name}");
            assert!(written.may_have_written, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_twice_is_followed_and_what_changes_three_times_has_failed() {
        for (changes, fate) in
            [(2, "written"), (3, "failed: the item still changes after 3 writes")]
        {
            let fakes = Fakes::new();
            let pixels = (1..=changes).map(|n| becomes(&pixel(&n.to_string())));
            let written = write_while(&fakes, Source::Stream, pixels).await;
            assert_eq!(word(&written.fate(&settings_of("i"))), fate);
            assert_eq!(
                written.keys.is_empty(),
                changes == 3,
                "KV does not hold what the table says"
            );
            assert_eq!(fakes.kv.requests.borrow().len(), MAX_PUTS);
            assert_eq!(fakes.kv.value("s")["pixel_id"], "2");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn which_image_is_written() {
        let put = || TableChange::Put(index_item("i", &with_shop(&pixel("table"))));
        let (fails, hangs) = (|| TableChange::Fails, || TableChange::Hangs);
        let (none, image, table) = (None, Some("image"), Some("table"));
        let down = "failed: settings table: BatchGetItem: down";
        let late = "failed: settings table: the invocation's time is up";
        let rows: [(_, Vec<TableChange>, _, _, _, u64); 9] = [
            ("absent", vec![], image, "written", image, 0),
            ("absent, no image", vec![], none, "absent", none, 0),
            ("the table has it", vec![put()], image, "written", table, 0),
            ("the table has it, no image", vec![put()], none, "written", table, 0),
            ("the table fails", vec![fails(), fails()], image, "written", image, 0),
            ("the table fails, no image", vec![fails()], none, down, none, 0),
            ("the table fails, then has it", vec![fails(), put()], image, "written", table, 0),
            ("the table hangs", vec![hangs(), hangs()], image, "written", image, 5 + 25),
            ("the table hangs, no image", vec![hangs()], none, late, none, 5),
        ];
        for (name, changes, image, fate, pixel_id, seconds) in rows {
            let (fakes, start) = (Fakes::new(), Instant::now());
            fakes.table.changes.then(changes);
            let item = image
                .map_or_else(|| WriteItem::new(settings_of("i")), |id| with_image("i", &pixel(id)));
            let written = write(&fakes, Source::Stream, vec![item]).await;
            assert_eq!(word(&written.fate(&settings_of("i"))), fate, "{name}");
            let is_held = !fakes.kv.keys().is_empty();
            let held = is_held.then(|| fakes.kv.value("s")["pixel_id"].clone());
            assert_eq!(held, pixel_id.map(Value::from), "{name}");
            assert!(written.left_behind.is_empty(), "{name}");
            assert_eq!(start.elapsed().as_secs(), seconds, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_that_the_table_has_is_rejected_however_good_its_image_is() {
        let fakes = Fakes::new();
        fakes.table.put(index_item("i", &json!({"index_endpoint": {"S": "nowhere"}})));
        let written = write(&fakes, Source::Stream, vec![with_image("i", &json!({}))]).await;
        assert_eq!(word(&written.fate(&settings_of("i"))), "rejected: index_endpoint");
        assert!(fakes.kv.requests.borrow().is_empty() && !written.may_have_written);
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_beyond_kvs_limit_is_rejected_before_anything_is_sent() {
        let fakes = Fakes::new();
        let large = json!({"search_config": {"M": {"x": {"S": "x".repeat(25 * 1024 * 1024)}}}});
        let written = write(&fakes, Source::Stream, vec![with_image("i", &large)]).await;
        assert_eq!(word(&written.fate(&settings_of("i"))), "rejected: (value)");
        assert!(fakes.kv.requests.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_read_goes_out_beside_the_requests_for_api_keys() {
        let (fakes, start) = (Fakes::new(), Instant::now());
        fakes.api_keys.delays.borrow_mut().insert("a".to_owned(), 9 * SECOND);
        fakes.table.changes.then([TableChange::Hangs]);
        let written = write(&fakes, Source::Stream, vec![with_image("i", &json!({}))]).await;
        assert_eq!(word(&written.fate(&settings_of("i"))), "written");
        assert_eq!(start.elapsed(), 9 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_items_that_ask_for_a_key_the_later_has_it() {
        let (last_changes, first_changes) =
            ([vec!["a-j", "s", "a-i"], vec!["s", "a-i"]], [vec!["a-i", "s", "a-j"], vec!["a-i"]]);
        for (order, requests) in [(["j", "i"], last_changes), (["i", "j"], first_changes)] {
            let fakes = Fakes::new();
            order.iter().for_each(|it| fakes.table.put(index_item(it, &with_shop(&json!({})))));
            fakes.table.changes.then_nothing(1);
            fakes.table.changes.then([becomes(&pixel("1"))]);
            let items = order.map(|name| WriteItem::new(settings_of(name)));
            let written = write(&fakes, Source::Stream, items.into()).await;
            assert_eq!(*fakes.kv.requests.borrow(), requests, "what changes takes no other's key");
            assert_eq!(written.keys["s"], settings_of(order[1]));
            assert_eq!(fakes.kv.value("s")["index_name"], order[1]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_could_not_be_written_for_the_later_item_is_not_the_earlier_ones() {
        let fakes = Fakes::new();
        for name in ["i", "j"] {
            fakes.table.put(index_item(name, &with_shop(&json!({}))));
        }
        let unsuccessful = || KvFault::ListsAsUnsuccessful(Keys::Named(&["s"]));
        fakes.kv.faults.then((0..4).map(|_| unsuccessful()));
        let items = ["i", "j"].map(|name| WriteItem::new(settings_of(name)));
        let written = write(&fakes, Source::Stream, items.into()).await;
        assert_eq!(written.fate(&settings_of("i")), Fate::Written);
        assert!(matches!(written.fate(&settings_of("j")), Fate::Failed(_)));
        assert_eq!(fakes.kv.keys(), ["a-i", "a-j"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_for_which_two_items_come_to_ask_meanwhile_is_once_in_a_request() {
        let fakes = Fakes::new();
        let names: Vec<String> = (0..=READ_ITEMS).map(|number| format!("i{number:03}")).collect();
        names.iter().for_each(|name| fakes.table.put(index_item(name, &json!({}))));
        // The items are read in two requests. Each of the second reads finds one item changed.
        let asks = |name: &str| TableChange::Put(index_item(name, &with_shop(&json!({}))));
        fakes.table.changes.then_nothing(2);
        fakes.table.changes.then([asks("i000"), asks("i100")]);
        let items = names.iter().map(|name| WriteItem::new(settings_of(name))).collect();
        let written = write(&fakes, Source::Stream, items).await;
        assert_eq!(fakes.kv.requests.borrow()[1], ["a-i000", "s", "a-i100"]);
        assert_eq!(written.keys["s"], settings_of("i100"));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_keys_that_were_given_are_written() {
        let moved = Some(becomes(&json!({"shop_id": {"S": "t"}})));
        // A change of an item that is not the batch's may have been exported before.
        let unread = "failed: settings table: BatchGetItem: down";
        for (name, change, fate, keys, left_behind) in [
            ("as it was", None, "written", &["s"][..], &[][..]),
            ("another key", moved, "written", &[], &["s"]),
            ("unread", Some(TableChange::Fails), unread, &[], &[]),
        ] {
            let fakes = Fakes::new();
            fakes.table.put(index_item("i", &with_shop(&json!({}))));
            fakes.table.changes.then_nothing(1);
            fakes.table.changes.then(change);
            let item = WriteItem::under(settings_of("i"), BTreeSet::from(["s".to_owned()]));
            let written = write(&fakes, Source::Stream, vec![item]).await;
            assert_eq!(word(&written.fate(&settings_of("i"))), fate, "{name}");
            assert_eq!(names(&written.keys), keys, "{name}");
            assert_eq!(names(&written.left_behind), left_behind, "{name}");
            assert_eq!(fakes.kv.keys(), ["s"], "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_with_a_key_that_kv_does_not_confirm_has_failed() {
        let refused = || KvFault::Fails(KvError::RefusedContent(Cause::new("scripted")));
        let lost = || KvFault::Fails(KvError::Transient(Cause::new("scripted")));
        let refusal = "failed: key \"s\": Cloudflare KV refuses the request: scripted";
        let lost_key = "failed: key \"s\": Cloudflare KV: scripted";
        let other_lost = "failed: key \"a-i\": Cloudflare KV: scripted";
        let refused_and_lost = vec![refused(), refused(), lost(), lost(), lost(), lost()];
        for (name, faults, fate, keys, may_have_written) in [
            ("one refused", vec![refused(), refused()], refusal, &["a-i"][..], true),
            ("all refused", vec![refused(), refused(), refused()], refusal, &[], false),
            ("lost", vec![lost(), lost(), lost(), lost()], lost_key, &[], true),
            ("refused and lost", refused_and_lost, other_lost, &[], true),
        ] {
            let fakes = Fakes::new();
            fakes.kv.faults.then(faults);
            let written = write_while(&fakes, Source::Stream, []).await;
            assert_eq!(word(&written.fate(&settings_of("i"))), fate, "{name}");
            assert_eq!(names(&written.keys), keys, "{name}");
            assert_eq!(written.may_have_written, may_have_written, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_without_an_api_key_is_not_written_and_takes_no_other_down() {
        let refused = ApiKeyError::Refused(Cause::new("403"));
        let failed =
            "failed: no API key from cell \"cell\", and KV holds none of this index to use again";
        for (error, fate) in
            [(ApiKeyError::NotFound, "rejected: system_account_id"), (refused, failed)]
        {
            let fakes = Fakes::new();
            let other = ItemRef::from(IndexRef::parse("b", "i").unwrap());
            fakes.table.put(index_item("i", &json!({})));
            fakes.table.put(item(&other, &json!({"index_endpoint": {"S": "https://h"}})));
            fakes.api_keys.faults.then([error]);
            let items = [settings_of("i"), other.clone()].map(WriteItem::new);
            let written = write(&fakes, Source::Stream, items.into()).await;
            assert!(word(&written.fate(&settings_of("i"))).starts_with(fate));
            assert_eq!(written.fate(&other), Fate::Written);
            assert_eq!(fakes.kv.keys(), ["b-i"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn query_configs_need_no_api_key() {
        let fakes = Fakes::new();
        let config = query_config("i", "q");
        fakes.table.put(item(&config, &json!({"x": {"N": "1"}})));
        let invocation = fakes.invocation(Source::Stream);
        let mut api_keys = ApiKeys::new(Fallback::Nothing, Duration::ZERO);
        let items = vec![WriteItem::new(config.clone())];
        let written = write_items(&invocation, Namespace::QueryConfigs, items, &mut api_keys).await;
        assert_eq!(written.fate(&config), Fate::Written);
        assert_eq!(fakes.kv.value(&config.kv_key())["x"], 1);
        assert!(fakes.api_keys.requests.borrow().is_empty());
    }

    #[test]
    fn an_item_that_nobody_decided_about_has_failed() {
        let fate = Written::default().fate(&settings_of("i"));
        assert_eq!(word(&fate), "failed: nobody decided about it");
    }
}
