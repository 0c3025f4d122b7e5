//! What an account has: its indexes, with the verdicts of their keys.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{AccountIndex, AccountKey, AccountReport, Explained, MAX_NAME_CHARACTERS};
use super::{Explaining, Found};
use crate::export::judge::{KvKey, Scope, Table};
use crate::export::reconcile::cut;
use crate::export::table::pass;
use crate::index::{IndexRef, ItemRef};
use crate::item::claimed_keys;
use crate::kv::Namespace;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{ScanColumns, Services};

/// Keys of one report: three requests.
const MAX_KEYS: usize = 3 * MAX_BULK_GET_KEYS;

/// The names that an error proposes at most.
const MAX_NEAREST: usize = 3;

/// The characters of a name that count where names are compared.
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
        let mut keys = 0;
        let part: Vec<(IndexRef, Vec<String>)> = found
            .iter()
            .take_while(|(_, names)| {
                keys += names.len();
                keys <= MAX_KEYS
            })
            .map(|(index, names)| (index.clone(), names.clone()))
            .collect();
        let last = part.last().filter(|_| part.len() < found.len());

        let names: Vec<String> = part.iter().flat_map(|(_, names)| names).cloned().collect();
        let mut table = Table::new(Scope::Given);
        for names in names.chunks(MAX_BULK_GET_KEYS) {
            self.read(Namespace::Settings, names.iter().cloned().collect()).await?;
            self.hold(&mut table);
            self.values.clear();
        }
        let mut table = self.look(table).await?;
        let claims = table.rows.values().filter_map(|row| row.claim.as_ref());
        let indexes = claims.map(|claim| &*claim.index).chain(part.iter().map(|(index, _)| index));
        let indexes: Vec<IndexRef> =
            indexes.cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let mut states = BTreeMap::new();
        // A hundred at a time: their values are made for their digests.
        for indexes in indexes.chunks(100) {
            for (index, wanted) in self.wanted(indexes.iter().cloned().collect()).await? {
                table.resolve_claims(&index, wanted.wants);
                states.insert(index, (wanted.state(), wanted.path()));
            }
        }
        let indexes = part.iter().map(|(index, names)| {
            let (item, path) = states.remove(index).unwrap_or_default();
            let key = |key: &String| AccountKey {
                key: key.clone(),
                verdict: table.verdict(&KvKey::of_settings(&**key)),
            };
            let index_name = index.name.clone();
            AccountIndex { index_name, item, path, keys: names.iter().map(key).collect() }
        });
        Ok(Some(Explained::Account(AccountReport {
            system_account_id: account.to_owned(),
            indexes: indexes.collect(),
            progress: last.map(|(index, _)| index.name.clone()),
        })))
    }

    /// What an error says of the account's indexes whose names are nearest to the one that was asked about.
    pub(super) fn nearest(&self) -> String {
        let Some(index) = self.request.index() else { return String::new() };
        let mut names: Vec<&String> = self.names.iter().collect();
        names.sort_by_cached_key(|name| distance(name, &index.name));
        let names: Vec<String> = names
            .into_iter()
            .take(MAX_NEAREST)
            .map(|name| cut(name, MAX_NAME_CHARACTERS))
            .collect();
        match names.is_empty() {
            true => "; the account has no index".to_owned(),
            false => format!("; the account has {}", names.join(", ")),
        }
    }
}

/// The characters to insert, delete or replace to make one name the other.
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
