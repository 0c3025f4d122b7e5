//! Receipts: one line for each item that was written or removed, whoever asked for it. They alone tell
//! what KV holds.
//!
//! [`bulk`](super::bulk) notes what KV has confirmed of each key. A line is written when it is final:
//! a key that was written twice, or deleted and put back, is told of once.

use std::cell::RefCell;
use std::collections::BTreeMap;

use enum_map::EnumMap;
use tracing::{error, info};

use crate::index::ItemName;
use crate::item::Rejection;
use crate::kv::{Digest, Entry, Source};
use crate::ports::Namespace;

/// What KV has confirmed, and no line has told yet.
#[derive(Debug, Default)]
pub struct Receipts {
    keys: RefCell<EnumMap<Namespace, BTreeMap<String, Line>>>,
    /// The records of the batch that decide.
    records: RefCell<BTreeMap<ItemName, Record>>,
}

/// What a receipt says of a stream record.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// When the table took the change, RFC 3339.
    pub changed_at: Option<String>,
    /// Where it stands in its shard.
    pub sequence_number: Option<String>,
}

/// What a line tells of an item, but for the keys.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    item: ItemName,
    /// What its keys hold; none where they are gone.
    digest: Option<Digest>,
    record: Record,
}

impl Receipts {
    pub fn note_record(&self, item: ItemName, record: Record) {
        self.records.borrow_mut().insert(item, record);
    }

    /// Notes what a key of this item holds; no entry where it is gone.
    pub fn note(
        &self,
        namespace: Namespace,
        key: String,
        item: Option<ItemName>,
        entry: Option<&Entry>,
    ) {
        let mut keys = self.keys.borrow_mut();
        let keys = &mut keys[namespace];
        let Some(item) = item else {
            keys.remove(&key);
            return;
        };
        let mut record = self.records.borrow().get(&item).cloned().unwrap_or_default();
        if let Some(entry) = entry {
            record.changed_at = entry.changed_at.clone();
        }
        keys.insert(key, Line { item, digest: entry.map(Entry::digest), record });
    }

    pub fn write(&self, namespace: Namespace, source: Source) {
        let mut lines: BTreeMap<Line, Vec<String>> = BTreeMap::new();
        for (key, line) in std::mem::take(&mut self.keys.borrow_mut()[namespace]) {
            lines.entry(line).or_default().push(key);
        }
        for (Line { item: ItemName { index, query }, digest, record }, keys) in lines {
            let message = if digest.is_some() { "exported" } else { "removed" };
            info!(
                message,
                system_account_id = index.account,
                index_name = index.name,
                normalized_query = query,
                keys = keys.join(", "),
                digest = digest.map(|digest| digest.to_string()),
                source = source.as_str(),
                changed_at = record.changed_at,
                sequence_number = record.sequence_number,
            );
        }
    }
}

pub fn log_rejected(item: Option<&ItemName>, sequence_number: Option<&str>, rejection: &Rejection) {
    error!(
        system_account_id = item.map(|item| item.index.account.as_str()),
        index_name = item.map(|item| item.index.name.as_str()),
        normalized_query = item.and_then(|item| item.query.as_deref()),
        path = rejection.path,
        sequence_number,
        error = %rejection,
        "record rejected"
    );
}
