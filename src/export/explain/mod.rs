//! Explain: what KV holds of an index, or under a key, and why; what saving an item would do; what an account
//! has. Changes nothing.
//!
//! | asked about | requests to KV | reads of the table |
//! | --- | --- | --- |
//! | an index | its keys; the shop id that only a value names | its item; a pass; the items that ask for the keys |
//! | a key whose value names an index | the key; the index's other keys; the shop id that only a value names | the same |
//! | any other key | the same | a pass to find the index, then the same |
//! | a query config's key | the key | its item; a pass |
//! | an item that is tried | its keys and its targets; the shop ids that only values name | as an index |
//! | an account | the keys of a part of its indexes, three requests | a pass to find them, then as an index |

mod differs;
mod item;
mod report;
mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use self::item::Tried;
pub use self::report::Explained;
use self::report::{AccountReport, ExplainReport, names_of, short};
use self::stages::{Explaining, Judged, Values, WantedBy, named_by};
use super::error::ExportError;
use super::invocation::Invocation;
use super::judge::KvKey;
use super::remove::look;
use super::table::pass;
use crate::index::{IndexRef, ItemRef};
use crate::item::keys::is_query_config_key;
use crate::item::{ItemKey, claimed_keys};
use crate::kv::Namespace;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{KvError, ScanColumns, Services};

/// The most keys of a report on an account: three requests.
const MAX_KEYS: usize = 3 * MAX_BULK_GET_KEYS;

/// The most names that an error proposes.
const MAX_NEAREST: usize = 3;

/// How many characters of a name are compared.
const COMPARED_CHARACTERS: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    pub subject: Subject,
    /// Whether the report shows the values where they differ.
    pub values: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    Index(IndexRef),
    /// A key of either namespace.
    Key(String),
    /// An item, as if it were saved or removed.
    Item(Tried),
    /// The indexes of an account, or those after this name.
    Account {
        account: String,
        after: Option<String>,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "index {index}"),
            Self::Key(key) => write!(f, "key {key:?}"),
            Self::Item(tried) => write!(f, "item {}", tried.key),
            Self::Account { account, .. } => write!(f, "an index of account {account}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("neither the table nor KV knows {asked}, and no active alias points at it{nearest}")]
    IndexNotFound { asked: String, nearest: String },
    #[error(transparent)]
    CloudflareAuthRejected(KvError),
    /// A service failed; the same again may help.
    #[error("{asked} can't be explained")]
    Incomplete {
        asked: String,
        #[source]
        error: ExportError,
    },
}

/// Why there is no report.
enum Failure {
    /// Nothing knows what was asked about. With the names of the account's indexes if an index was.
    Unknown(BTreeSet<String>),
    Service(ExportError),
}

impl<E: Into<ExportError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Service(error.into())
    }
}

pub async fn explain<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Explain,
) -> Result<Explained, ExplainError> {
    let explaining = Explaining { invocation, request };
    let report = match &request.subject {
        Subject::Index(index) => explaining.item(&settings_key(index), Values::new()).await,
        Subject::Key(key) if is_query_config_key(key) => explaining.query_config(key, None).await,
        Subject::Key(key) => explaining.key(key).await,
        Subject::Item(Tried { key, .. }) => match key.item().filter(|item| item.query.is_some()) {
            Some(config) => explaining.query_config(&config.kv_key(), Some(config)).await,
            None => explaining.item(key, Values::new()).await,
        },
        Subject::Account { account, after } => explaining.account(account, after.as_deref()).await,
    };
    let asked = request.subject.to_string();
    report.map_err(|failure| match failure {
        Failure::Unknown(names) => {
            ExplainError::IndexNotFound { asked, nearest: nearest(&request.subject, &names) }
        }
        Failure::Service(error) => match error.auth_rejected() {
            Some(refusal) => ExplainError::CloudflareAuthRejected(refusal.clone()),
            None => ExplainError::Incomplete { asked, error },
        },
    })
}

type Found = Result<Explained, Failure>;

impl<S: Services> Explaining<'_, '_, S> {
    /// Explains a settings key: the index that its value names, else the one whose item asks for it.
    async fn key(&self, name: &str) -> Found {
        let key = KvKey::of_settings(name);
        let values = self.read(Values::new(), Namespace::Settings, [name.to_owned()]).await?;
        if let Some(index) = values[&key].as_ref().and_then(named_by) {
            return self.item(&settings_key(&index), values).await;
        }
        let table = look(self.invocation, self.table(&values), |_| true).await?;
        if let Some(claim) = table.claim_of(&key) {
            return self.item(&settings_key(&claim.index), values).await;
        }
        let pointed_at_by = names_of(table.pointers_at(name, None));
        if values[&key].is_none() && pointed_at_by.is_empty() {
            return Err(Failure::Unknown(BTreeSet::new()));
        }
        let judged = Judged { values, table, wanted: WantedBy::new(), names: BTreeSet::new() };
        let report = self.report(&judged, None, |_| true);
        Ok(Explained::Index(ExplainReport { pointed_at_by, ..report }))
    }

    /// Explains a query config's key by an item, or else by the item to which its value refers.
    async fn query_config(&self, name: &str, item: Option<ItemRef>) -> Found {
        let key = KvKey { namespace: Namespace::QueryConfigs, name: name.to_owned() };
        let values = self.read(Values::new(), key.namespace, [name.to_owned()]).await?;
        let stored = values[&key].as_ref();
        let referred_to = || stored?.query_config().filter(|item| item.kv_key() == name);
        let item = item.or_else(referred_to);
        if stored.is_none() && item.is_none() {
            return Err(Failure::Unknown(BTreeSet::new()));
        }
        let index = item.as_ref().map(|item| item.index.clone()).or_else(|| named_by(stored?));
        let wanted = self.want(item.into_iter().collect()).await?;
        let judged = self.judge(values, &[], wanted).await?;
        Ok(Explained::Index(self.report(&judged, index.as_ref(), |_| true)))
    }

    /// Explains the next indexes of an account, as many as three requests read the keys of.
    async fn account(&self, account: &str, after: Option<&str>) -> Found {
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
            return Err(Failure::Unknown(BTreeSet::new()));
        }
        let (mut keys, mut part) = (BTreeSet::new(), Vec::new());
        for (index, names) in &found {
            if keys.len() + names.len() > MAX_KEYS {
                break;
            }
            keys.extend(names.iter().cloned());
            part.push(index.clone());
        }
        let last = part.last().filter(|_| part.len() < found.len());
        let values = self.read(Values::new(), Namespace::Settings, keys).await?;
        let judged = self.judge(values, &part, WantedBy::new()).await?;
        let reports = part.iter().map(|index| {
            let is_its = |key: &KvKey| found[index].contains(&key.name) && judged.knows(key);
            self.report(&judged, Some(index), is_its)
        });
        Ok(Explained::Account(AccountReport {
            system_account_id: account.to_owned(),
            indexes: reports.collect(),
            progress: last.map(|index| index.name.clone()),
        }))
    }
}

fn settings_key(index: &IndexRef) -> ItemKey {
    ItemRef::from(index.clone()).key()
}

/// Returns the end of an error's sentence: the account's indexes whose names are nearest to the given one.
fn nearest(subject: &Subject, names: &BTreeSet<String>) -> String {
    let Subject::Index(asked) = subject else { return String::new() };
    let compared = |name: &str| name.chars().take(COMPARED_CHARACTERS).collect::<String>();
    let asked = compared(&asked.name);
    let mut names: Vec<&String> = names.iter().collect();
    names.sort_by_cached_key(|name| strsim::levenshtein(&compared(name), &asked));
    let names: Vec<String> = names.into_iter().take(MAX_NEAREST).map(|name| short(name)).collect();
    let names = if names.is_empty() { "no index".to_owned() } else { names.join(", ") };
    format!("; the account has {names}")
}

#[cfg(test)]
mod tests;
