//! Explain: what KV holds of an index, or under a key, and why; what saving an item would do; what an account
//! has. Changes nothing.
//!
//! | asked about | requests to KV | reads of the table |
//! | --- | --- | --- |
//! | an index | its keys; the shop id that only a value names | its item; a pass; the items that ask for the keys |
//! | a key whose value names an index | the key; the index's other keys; the shop id that only a value names | the same |
//! | any other key | the same | a pass to find the index, then the same |
//! | a query config's key | the key | its item, or else its index's; a pass |
//! | one that KV lacks, or whose value does not name its item | the key | a pass over all items to find it, then the same |
//! | an item that is tried | its keys and its targets; the shop ids that only values name | as when it is saved |
//! | an account | the keys of a part of its indexes, three requests | a pass to find them, then as an index |

mod differs;
mod item;
mod report;
mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use self::item::explain_item;
pub use self::report::Explained;
use self::report::{names_of, report, short};
use self::stages::{Values, judge_keys, look_at, named_by, read};
use super::error::ExportError;
use super::invocation::Invocation;
use super::judge::KvKey;
use super::table::pass;
use crate::index::{IndexRef, ItemRef};
use crate::item::keys::is_query_config_key;
use crate::item::{Item, ItemKey, claimed_keys};
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::{Namespace, StoredValue};
use crate::ports::{ScanColumns, Services};

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
    /// An item, as if it were saved; `None` as if it were removed.
    Item(ItemKey, Option<Item>),
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
            Self::Item(key, _) => write!(f, "item {key}"),
            Self::Account { account, .. } => write!(f, "an index of account {account}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("neither the table nor KV knows {asked}, and no active alias points at it{nearest}")]
    IndexNotFound { asked: String, nearest: String },
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
    /// Nothing knows what was asked about. With the names that are nearest.
    Unknown(String),
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
    let explained = match &request.subject {
        Subject::Index(index) => {
            let key = ItemRef::from(index.clone()).key();
            explain_item(invocation, request, &key, Values::new()).await
        }
        Subject::Item(key, _) => explain_item(invocation, request, key, Values::new()).await,
        Subject::Key(key) => explain_key(invocation, request, key).await,
        Subject::Account { account, after } => {
            explain_account(invocation, account, after.as_deref()).await
        }
    };
    let asked = request.subject.to_string();
    explained.map_err(|failure| match failure {
        Failure::Unknown(nearest) => ExplainError::IndexNotFound { asked, nearest },
        Failure::Service(error) => ExplainError::Incomplete { asked, error },
    })
}

type Found = Result<Explained, Failure>;

/// Explains a key: the item that its value names, else the item that asks for it, else the key alone.
async fn explain_key<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Explain,
    name: &str,
) -> Found {
    let is_config = is_query_config_key(name);
    let namespace = if is_config { Namespace::QueryConfigs } else { Namespace::Settings };
    let key = KvKey { namespace, name: name.to_owned() };
    let values = read(invocation, Values::new(), [key.clone()]).await?;
    let stored = values[&key].as_ref();
    let is_held = stored.is_some();
    let item = match is_config {
        true => stored.and_then(StoredValue::query_config).filter(|item| item.kv_key() == name),
        false => stored.and_then(StoredValue::settings).map(|settings| settings.index.into()),
    };
    if let Some(item) = item {
        return explain_item(invocation, request, &item.key(), values).await;
    }
    let index = stored.and_then(named_by);
    // Only a pass over all items knows the query config that asks for a key.
    let columns = if is_config { ScanColumns::All } else { ScanColumns::Claims };
    let table = look_at(invocation, columns, &values, |_| true).await?;
    if let Some(claim) = table.claim_of(&key) {
        return explain_item(invocation, request, &claim.item().key(), values).await;
    }
    let mut pointers = names_of(table.pointers_at(name, None));
    if !is_held && pointers.is_empty() {
        return Err(Failure::Unknown(String::new()));
    }
    let judged = judge_keys(invocation, values, table, None, index.as_slice()).await?;
    let mut report = report(&judged, index.as_ref(), None, |_| true, request.values);
    pointers.retain(|pointer| !report.pointed_at_by.contains(pointer));
    report.pointed_at_by.append(&mut pointers);
    Ok(Explained::Index(report))
}

fn distinct_keys(found: &BTreeMap<IndexRef, Vec<KvKey>>) -> usize {
    found.values().flatten().collect::<BTreeSet<_>>().len()
}

/// Explains the next indexes of an account, as many as three requests read the keys of.
async fn explain_account<S: Services>(
    invocation: &Invocation<'_, S>,
    account: &str,
    after: Option<&str>,
) -> Found {
    let mut found: BTreeMap<IndexRef, Vec<KvKey>> = BTreeMap::new();
    let mut has_more = false;
    pass(invocation, ScanColumns::Claims, async |items| {
        for (key, item) in items {
            let Some(claimant @ ItemRef { query: None, .. }) = key.item() else { continue };
            let ItemRef { index, .. } = &claimant;
            if index.account == account && after.is_none_or(|after| *index.name > *after) {
                let keys = claimed_keys(&claimant, &item.attributes()).into_iter();
                found.insert(claimant.index, keys.map(KvKey::of_settings).collect());
            }
        }
        while found.len() > MAX_KEYS || distinct_keys(&found) > MAX_KEYS {
            found.pop_last();
            has_more = true;
        }
    })
    .await?;
    if found.is_empty() && after.is_none() {
        return Err(Failure::Unknown(String::new()));
    }
    let keys = found.values().flatten().cloned();
    let values = read(invocation, Values::new(), keys).await?;
    let table = look_at(invocation, ScanColumns::Claims, &values, |_| true).await?;
    let indexes: Vec<IndexRef> = found.keys().cloned().collect();
    let judged = judge_keys(invocation, values, table, None, &indexes).await?;
    let reports = found.iter().map(|(index, keys)| {
        let wanted = judged.wanted.get(&index.clone().into());
        let is_its = |key: &KvKey| keys.contains(key) && judged.knows(key);
        report(&judged, Some(index), wanted, is_its, false)
    });
    Ok(Explained::Account {
        system_account_id: account.to_owned(),
        indexes: reports.collect(),
        progress: indexes.last().filter(|_| has_more).map(|index| index.name.clone()),
    })
}

/// Returns the end of an error's sentence: the account's indexes whose names are nearest to the given one.
fn nearest(asked: &str, names: &BTreeSet<String>) -> String {
    let compared = |name: &str| name.chars().take(COMPARED_CHARACTERS).collect::<String>();
    let asked = compared(asked);
    let mut names: Vec<&String> = names.iter().collect();
    names.sort_by_cached_key(|name| strsim::levenshtein(&compared(name), &asked));
    let names: Vec<String> = names.into_iter().take(MAX_NEAREST).map(|name| short(name)).collect();
    let names = if names.is_empty() { "no index".to_owned() } else { names.join(", ") };
    format!("; the account has {names}")
}
