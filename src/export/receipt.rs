//! Receipts: one line for each item that was written or removed, whoever asked for it. They alone tell
//! what KV holds.
//!
//! [`bulk`](super::bulk) notes what KV has confirmed of each key. A line is written when it is final:
//! a key that was written twice, or deleted and put back, is told of once.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tracing::{error, info};

use crate::index::ItemName;
use crate::item::Rejection;
use crate::kv::{Digest, Entry, Source};
use crate::ports::Namespace;

/// What KV has confirmed, and no line has told yet.
#[derive(Debug, Default)]
pub struct Receipts {
    keys: RefCell<BTreeMap<Namespace, BTreeMap<String, Line>>>,
    /// The records of the batch that decide.
    records: RefCell<BTreeMap<ItemName, Record>>,
}

/// A stream record.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub sequence_number: Option<String>,
    /// When the table took the change, RFC 3339.
    pub changed_at: Option<String>,
}

/// What a line tells of an item, but for the keys.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    item: ItemName,
    /// What its keys hold; none where they are gone.
    digest: Option<Digest>,
    changed_at: Option<String>,
    sequence_number: Option<String>,
}

impl Receipts {
    pub fn note_record(&self, item: ItemName, record: Record) {
        self.records.borrow_mut().insert(item, record);
    }

    pub fn note_written(&self, namespace: Namespace, key: String, entry: &Entry) {
        let line = entry.item.clone().map(|item| Line {
            sequence_number: self.record(&item).sequence_number,
            item,
            digest: Some(entry.digest()),
            changed_at: entry.changed_at.clone(),
        });
        self.note(namespace, key, line);
    }

    pub fn note_deleted(&self, namespace: Namespace, key: String, item: Option<ItemName>) {
        let line = item.map(|item| {
            let Record { sequence_number, changed_at } = self.record(&item);
            Line { item, digest: None, changed_at, sequence_number }
        });
        self.note(namespace, key, line);
    }

    fn record(&self, item: &ItemName) -> Record {
        self.records.borrow().get(item).cloned().unwrap_or_default()
    }

    fn note(&self, namespace: Namespace, key: String, line: Option<Line>) {
        let mut keys = self.keys.borrow_mut();
        let keys = keys.entry(namespace).or_default();
        match line {
            Some(line) => keys.insert(key, line),
            None => keys.remove(&key),
        };
    }

    pub fn write(&self, namespace: Namespace, source: Source) {
        let mut lines: BTreeMap<Line, Vec<String>> = BTreeMap::new();
        for (key, line) in self.keys.borrow_mut().remove(&namespace).unwrap_or_default() {
            lines.entry(line).or_default().push(key);
        }
        for (Line { item: ItemName { index, query }, digest, changed_at, sequence_number }, keys) in
            lines
        {
            let message = if digest.is_some() { "exported" } else { "removed" };
            info!(
                message,
                system_account_id = index.account,
                index_name = index.name,
                normalized_query = query,
                keys = keys.join(", "),
                digest = digest.map(|digest| digest.to_string()),
                source = source.as_str(),
                changed_at,
                sequence_number,
            );
        }
    }
}

/// Says that an item can't be exported.
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
