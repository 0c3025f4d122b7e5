//! What an account has: its indexes, with the verdicts of their keys.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{AccountReport, Explained, MAX_NAME_CHARACTERS};
use super::{Explaining, Found};
use crate::export::judge::KvKey;
use crate::export::reconcile::cut;
use crate::export::table::pass;
use crate::index::{IndexRef, ItemRef};
use crate::item::claimed_keys;
use crate::kv::Namespace;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{ScanColumns, Services};

/// The most keys of one report: three requests.
const MAX_KEYS: usize = 3 * MAX_BULK_GET_KEYS;

/// The most names that an error proposes.
const MAX_NEAREST: usize = 3;

/// How many characters of a name are compared.
const COMPARED_CHARACTERS: usize = 64;

impl<S: Services> Explaining<'_, '_, S> {
    pub(super) async fn account(&mut self, account: &str, after: Option<&str>) -> Found {
        let mut found: BTreeMap<IndexRef, Vec<String>> = BTreeMap::new();
        pass(self.invocation, ScanColumns::Claims, async |items| {
            for (key, item) in items {
                let Some(ItemRef { index, query: None }) = key.item() else { continue };
                if index.account == account && after.is_none_or(|after| *index.name > *after) {
                    let keys = claimed_keys(&index, &item.attributes());
                    found.insert(index, keys);
                }
            }
            while found.len() > MAX_KEYS + 1 {
                found.pop_last();
            }
        })
        .await?;
        if found.is_empty() && after.is_none() {
            return Ok(None);
        }
        let mut keys = BTreeSet::new();
        let mut part = Vec::new();
        for (index, names) in &found {
            if keys.len() + names.len() > MAX_KEYS {
                break;
            }
            keys.extend(names.iter().cloned());
            part.push(index.clone());
        }
        let last = part.last().filter(|_| part.len() < found.len());
        self.read(Namespace::Settings, keys).await?;
        let (table, wanted) = self.judged(&part).await?;
        let reports = part.iter().map(|index| {
            let shows = |key: &KvKey| found[index].contains(&key.name);
            self.report(Some(index), &table, &wanted, shows)
        });
        Ok(Some(Explained::Account(AccountReport {
            system_account_id: account.to_owned(),
            indexes: reports.collect(),
            progress: last.map(|index| index.name.clone()),
        })))
    }

    /// Returns the end of an error's sentence: the account's indexes whose names are nearest to the given one.
    pub(super) fn nearest(&self) -> String {
        let Some(asked) = self.asked else { return String::new() };
        let mut names: Vec<&String> = self.names.iter().collect();
        names.sort_by_cached_key(|name| distance(name, &asked.name));
        names.truncate(MAX_NEAREST);
        let names: Vec<String> = names.iter().map(|name| cut(name, MAX_NAME_CHARACTERS)).collect();
        let names = if names.is_empty() { "no index".to_owned() } else { names.join(", ") };
        format!("; the account has {names}")
    }
}

/// Returns how many characters have to be inserted, deleted or replaced to make one name the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(COMPARED_CHARACTERS).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, character) in one.chars().take(COMPARED_CHARACTERS).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, wanted) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *wanted);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
