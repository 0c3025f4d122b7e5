//! Receipts: one line for each item that was written or removed, whoever asked for it. They alone tell
//! what KV holds.
//!
//! [`bulk`](super::bulk) notes what KV has confirmed of each key. A line is written when it is final:
//! a key that was written twice, or deleted and put back, is told of once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tracing::{error, info};

use crate::index::ItemName;
use crate::item::Rejection;
use crate::kv::{Digest, Entry, Source};
use crate::ports::Namespace;

/// What KV has confirmed, and no line has told yet.
#[derive(Debug, Default)]
pub struct Receipts {
    keys: RefCell<BTreeMap<Namespace, BTreeMap<String, Confirmed>>>,
    /// The records of the batch that decide.
    records: RefCell<BTreeMap<ItemName, Record>>,
}

/// What was last done to a key.
#[derive(Debug)]
enum Confirmed {
    Holds(Rc<Entry>),
    Gone(ItemName),
}

/// A stream record.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Where it stands in its shard.
    pub sequence_number: Option<String>,
    /// When the table took the change, RFC 3339.
    pub changed_at: Option<String>,
}

/// What a line tells of an item, but for the keys.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    item: ItemName,
    /// What its keys hold; none where they are gone.
    digest: Option<Digest>,
    changed_at: Option<String>,
}

impl Receipts {
    /// Notes the record that decides on an item.
    pub fn note_record(&self, item: ItemName, record: Record) {
        self.records.borrow_mut().insert(item, record);
    }

    /// Notes that a key holds an entry.
    pub fn holds(&self, namespace: Namespace, key: String, entry: Rc<Entry>) {
        self.note(namespace, key, Confirmed::Holds(entry));
    }

    /// Notes that the key of an item is gone.
    pub fn gone(&self, namespace: Namespace, key: String, item: ItemName) {
        self.note(namespace, key, Confirmed::Gone(item));
    }

    fn note(&self, namespace: Namespace, key: String, confirmed: Confirmed) {
        self.keys.borrow_mut().entry(namespace).or_default().insert(key, confirmed);
    }

    /// Writes the lines of a namespace.
    pub fn write(&self, namespace: Namespace, source: Source) {
        let confirmed = self.keys.borrow_mut().remove(&namespace).unwrap_or_default();
        let records = self.records.borrow();
        let mut lines: BTreeMap<Line, Vec<String>> = BTreeMap::new();
        for (key, confirmed) in confirmed {
            let line = match confirmed {
                Confirmed::Gone(item) => {
                    let changed_at = records.get(&item).and_then(|it| it.changed_at.clone());
                    Line { item, digest: None, changed_at }
                }
                Confirmed::Holds(entry) => {
                    let Some(item) = entry.item.clone() else { continue };
                    let changed_at = entry.changed_at.clone();
                    Line { item, digest: Some(entry.digest()), changed_at }
                }
            };
            lines.entry(line).or_default().push(key);
        }
        for (Line { item, digest, changed_at }, keys) in lines {
            let record = records.get(&item);
            log(&item, digest, &keys.join(", "), source, changed_at, record);
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

fn log(
    ItemName { index, query }: &ItemName,
    digest: Option<Digest>,
    keys: &str,
    source: Source,
    changed_at: Option<String>,
    record: Option<&Record>,
) {
    let sequence_number = record.and_then(|record| record.sequence_number.as_deref());
    macro_rules! line {
        ($message:literal) => {
            info!(
                system_account_id = index.account,
                index_name = index.name,
                normalized_query = query,
                keys,
                digest = digest.map(|digest| digest.to_string()),
                source = source.as_str(),
                changed_at,
                sequence_number,
                $message
            )
        };
    }
    match digest {
        Some(_) => line!("exported"),
        None => line!("removed"),
    }
}
