//! Explain: what KV holds of an index, or under a key, and why. Changes nothing.
//!
//! | asked about | requests to KV | reads of the table |
//! | --- | --- | --- |
//! | an index | its keys; the shop id that only a value names | its item; a pass; the items that ask for the keys |
//! | a key whose value names an index | the key; the index's other keys; the shop id that only a value names | the same |
//! | any other key | the same | a pass to find the index, then the same |
//! | a query config's key | the key | its item; a pass |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use secrecy::SecretString;
use serde::Serialize;

use super::api_keys::{ApiKeys, Fallback, NotExportable};
use super::bulk;
use super::desired::Decoded;
use super::differs::{ApiKeyCheck, differing_paths};
use super::error::ExportError;
use super::invocation::Invocation;
use super::judge::{Held, KvKey, Scope, Table, Verdict, Wants};
use super::reconcile::cut;
use super::remove::look;
use super::table::read_items;
use crate::index::{IndexRef, ItemRef};
use crate::item::keys::is_query_config_key;
use crate::item::{Item, ItemKey, Rejection, claimed_keys};
use crate::kv::{Namespace, Source, StoredValue, check_key};
use crate::ports::{KvError, Services};

/// The most items that a report names in one place.
const MAX_ITEMS: usize = 100;

/// The longest name that is shown whole, in characters. A stranger's value may hold any name.
const MAX_NAME_CHARACTERS: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explain {
    Index(IndexRef),
    /// A key of either namespace.
    Key(String),
}

impl fmt::Display for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "index {index}"),
            Self::Key(key) => write!(f, "key {key:?}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("neither the table nor KV knows {0}, and no active alias points at it")]
    IndexNotFound(Explain),
    #[error(transparent)]
    CloudflareAuthRejected(KvError),
    /// A service failed; the same again may help.
    #[error("{asked} can't be explained")]
    Incomplete {
        asked: Explain,
        #[source]
        error: ExportError,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ExplainReport {
    /// The index that it is about; absent where nothing says which.
    #[serde(flatten)]
    pub index: Option<ItemName>,
    pub item: ItemState,
    /// The field for which the item is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its keys, the primary one first, and the one that was asked about.
    pub keys: Vec<KeyReport>,
    /// The other items whose active aliases point at it.
    pub pointed_at_by: Vec<ItemName>,
    /// Whether an API key could not be had, so that `marqo_api_key` is not compared.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub api_key_unavailable: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemState {
    Exportable,
    Rejected,
    #[default]
    Absent,
}

/// An index, or another item: its sort key stands for the index's name then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ItemName {
    pub system_account_id: String,
    pub index_name: String,
}

impl From<&IndexRef> for ItemName {
    fn from(IndexRef { account, name }: &IndexRef) -> Self {
        Self {
            system_account_id: cut(account, MAX_NAME_CHARACTERS),
            index_name: cut(name, MAX_NAME_CHARACTERS),
        }
    }
}

impl From<&ItemKey> for ItemName {
    fn from(key: &ItemKey) -> Self {
        match key.item() {
            Some(ItemRef { index, query: None }) => Self::from(&index),
            _ => Self {
                system_account_id: cut(&key.pk, MAX_NAME_CHARACTERS),
                index_name: cut(&key.sk, MAX_NAME_CHARACTERS),
            },
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyReport {
    pub key: String,
    pub verdict: Verdict,
    /// The index that the value, or else its metadata, names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named: Option<ItemName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exported_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The paths at which the value differs from what a re-export would write.
    pub differs: Vec<String>,
    pub claimed_by: Vec<ItemName>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub api_key_unavailable: bool,
}

pub async fn explain<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Explain,
) -> Result<ExplainReport, ExplainError> {
    let mut explaining = Explaining {
        invocation,
        api_keys: ApiKeys::new(Fallback::Nothing, invocation.budget.api_keys),
        values: BTreeMap::new(),
    };
    let report = match request {
        Explain::Index(index) => explaining.index(index).await,
        Explain::Key(key) if is_query_config_key(key) => explaining.query_config(key).await,
        Explain::Key(key) => explaining.key(key).await,
    };
    report
        .map_err(|error| match error.auth_rejected() {
            Some(refusal) => ExplainError::CloudflareAuthRejected(refusal.clone()),
            None => ExplainError::Incomplete { asked: request.clone(), error },
        })?
        .ok_or_else(|| ExplainError::IndexNotFound(request.clone()))
}

/// What an item wants under its keys.
struct Wanted {
    wants: Wants,
    /// The value, without its API key where that can't be had.
    value: Option<String>,
    rejection: Option<Rejection>,
}

struct Explaining<'a, 's, S> {
    invocation: &'a Invocation<'s, S>,
    api_keys: ApiKeys,
    /// What KV holds under the keys that were read.
    values: BTreeMap<KvKey, Option<StoredValue>>,
}

type Explained = Result<Option<ExplainReport>, ExportError>;

impl<S: Services> Explaining<'_, '_, S> {
    /// Explains a settings key: the index that its value names, else the one whose item asks for it.
    async fn key(&mut self, name: &str) -> Explained {
        let key = KvKey::of_settings(name);
        self.read(Namespace::Settings, BTreeSet::from([name.to_owned()])).await?;
        if let Some(index) = self.named_by(&key) {
            return self.index(&index).await;
        }
        let table = look(self.invocation, self.table()).await?;
        if let Some(claim) = table.claim_of(&key) {
            let index = (*claim.index).clone();
            return self.index(&index).await;
        }
        let pointers = table.pointers_at(name, None);
        if self.values[&key].is_none() && pointers.is_empty() {
            return Ok(None);
        }
        let keys = vec![self.report_key(&key, &table, None)];
        let pointed_at_by = names_of(pointers);
        Ok(Some(ExplainReport { keys, pointed_at_by, ..ExplainReport::default() }))
    }

    /// Explains an index, and the settings keys that have been read before.
    async fn index(&mut self, index: &IndexRef) -> Explained {
        let own = ItemRef::from(index.clone()).key();
        let until = self.invocation.budget.deadline;
        let items = read_items(self.invocation, until, [own.clone()]).await?;
        let index_id = index.index_id();
        let keys = match items.get(&own) {
            Some(item) => claimed_keys(index, &item.attributes()),
            None => vec![index_id.clone()],
        };
        self.read(Namespace::Settings, keys.into_iter().collect()).await?;
        let of_index = |stored: &StoredValue| stored.settings().filter(|it| it.index == *index);
        let values = self.values.values().flatten();
        let shop_ids = values.filter_map(|stored| of_index(stored)?.shop_id).collect();
        self.read(Namespace::Settings, shop_ids).await?;

        let mut table = self.table();
        table.watch(&mut Rc::new(index.clone()));
        let mut table = look(self.invocation, table).await?;
        let wanted = self.wanted(&table, index).await?;
        for (index, Wanted { wants, .. }) in &wanted {
            table.resolve_claims(index, *wants);
        }
        let is_its = |key: &KvKey| table.claimants(key).any(|claimant| **claimant == *index);
        let names = self.values.keys().filter(|key| is_its(key)).map(|key| &key.name);
        let pointers: BTreeSet<&ItemKey> = names
            .chain([&index_id])
            .flat_map(|name| table.pointers_at(name, Some(index)))
            .collect();
        let mut keys: Vec<&KvKey> = self.values.keys().collect();
        keys.retain(|key| self.values[*key].is_some() || table.claim_of(key).is_some());
        let own = wanted.get(index);
        if own.is_none() && keys.is_empty() && pointers.is_empty() {
            return Ok(None);
        }
        // The primary key first, then the index id's, then what is left over.
        keys.sort_by_key(|key| (!is_its(key), key.name == index_id));
        let keys = keys.into_iter().map(|key| {
            let wanted = table.claim_of(key).and_then(|claim| wanted.get(&*claim.index));
            self.report_key(key, &table, wanted)
        });
        let mut report = ExplainReport { index: Some(index.into()), ..self.report_item(own) };
        report.keys = keys.collect();
        report.api_key_unavailable = report.keys.iter().any(|key| key.api_key_unavailable);
        report.pointed_at_by = names_of(pointers);
        Ok(Some(report))
    }

    /// Returns a report that says whether the item can be exported.
    fn report_item(&self, item: Option<&Wanted>) -> ExplainReport {
        let rejection = item.and_then(|item| item.rejection.as_ref());
        ExplainReport {
            item: match (item, rejection) {
                (None, _) => ItemState::Absent,
                (Some(_), Some(_)) => ItemState::Rejected,
                (Some(_), None) => ItemState::Exportable,
            },
            path: rejection.map(|rejection| cut(&rejection.path, MAX_NAME_CHARACTERS)),
            ..ExplainReport::default()
        }
    }

    /// Explains a query config's key by the item that its value refers to.
    async fn query_config(&mut self, name: &str) -> Explained {
        let key = KvKey { namespace: Namespace::QueryConfigs, name: name.to_owned() };
        self.read(Namespace::QueryConfigs, BTreeSet::from([name.to_owned()])).await?;
        let Some(stored) = self.values.get(&key).cloned().flatten() else { return Ok(None) };
        let named = stored.query_config().filter(|item| item.kv_key() == name);
        let mut table = look(self.invocation, self.table()).await?;
        let mut wanted = None;
        if let Some(item_ref) = &named {
            let until = self.invocation.budget.deadline;
            let items = read_items(self.invocation, until, [item_ref.key()]).await?;
            if let Some((item_key, item)) = items.first_key_value() {
                let own = self.want(item_ref, item);
                table.add(item_key, &item.attributes(), own.wants);
                wanted = Some(own);
            }
        }
        let index = named.map(|item| item.index).or_else(|| self.named_by(&key));
        let pointers = index.as_ref().map(|it| table.pointers_at(&it.index_id(), Some(it)));
        Ok(Some(ExplainReport {
            index: index.as_ref().map(ItemName::from),
            keys: vec![self.report_key(&key, &table, wanted.as_ref())],
            pointed_at_by: names_of(pointers.unwrap_or_default()),
            ..self.report_item(wanted.as_ref())
        }))
    }

    /// Reads what KV holds under the keys that were not read before.
    async fn read(
        &mut self,
        namespace: Namespace,
        names: BTreeSet<String>,
    ) -> Result<(), ExportError> {
        let mut keys = names.into_iter().map(|name| KvKey { namespace, name }).collect::<Vec<_>>();
        keys.retain(|key| check_key(&key.name).is_ok() && !self.values.contains_key(key));
        if keys.is_empty() {
            return Ok(());
        }
        let names = keys.iter().map(|key| key.name.clone());
        let (mut found, failures) = bulk::read(self.invocation, namespace, names).await;
        if let Some((key, failure)) = failures.into_iter().next() {
            return Err(ExportError::kv(&key, failure.error));
        }
        self.values.extend(keys.into_iter().map(|key| {
            let stored = found.remove(&key.name);
            (key, stored)
        }));
        Ok(())
    }

    /// Returns a table for the keys that were read.
    fn table(&self) -> Table {
        let mut table = Table::new(Scope::Given);
        for (key, stored) in &self.values {
            let held = Held::read(stored.as_ref(), &self.invocation.config.environment);
            table.hold(key.clone(), held);
        }
        table
    }

    /// Returns the index that a key's value names, or else its metadata, whichever environment wrote them.
    fn named_by(&self, key: &KvKey) -> Option<IndexRef> {
        let stored = self.values.get(key)?.as_ref()?;
        let by_value = stored.settings().map(|settings| settings.index);
        by_value.or_else(|| Some(stored.metadata()?.index))
    }

    /// Returns what `index` and the items that have the keys want.
    async fn wanted(
        &mut self,
        table: &Table,
        index: &IndexRef,
    ) -> Result<BTreeMap<IndexRef, Wanted>, ExportError> {
        let claims = table.rows.values().filter_map(|row| row.claim.as_ref());
        let mut indexes: BTreeSet<IndexRef> = claims.map(|claim| (*claim.index).clone()).collect();
        indexes.insert(index.clone());
        let refs: Vec<ItemRef> = indexes.into_iter().map(ItemRef::from).collect();
        let until = self.invocation.budget.deadline;
        let items = read_items(self.invocation, until, refs.iter().map(ItemRef::key)).await?;
        let decoded = refs.iter().filter_map(|item_ref| {
            Decoded::of(item_ref, items.get(&item_ref.key())?, self.invocation.config).ok()
        });
        let owners = decoded.filter_map(|item| Some(item.settings()?.owner.clone())).collect();
        self.api_keys.ask(self.invocation, owners).await;
        let wanted = refs.into_iter().filter_map(|item_ref| {
            let item = items.get(&item_ref.key())?;
            let wanted = self.want(&item_ref, item);
            Some((item_ref.index, wanted))
        });
        Ok(wanted.collect())
    }

    fn want(&self, item_ref: &ItemRef, item: &Item) -> Wanted {
        let rejected =
            |rejection| Wanted { wants: Wants::Rejected, value: None, rejection: Some(rejection) };
        let decoded = match Decoded::of(item_ref, item, self.invocation.config) {
            Ok(decoded) => decoded,
            Err(rejection) => return rejected(rejection),
        };
        let without_api_key =
            decoded.settings().map(|it| it.settings.value(&SecretString::default()));
        match decoded.desired(&self.api_keys) {
            Ok(desired) => Wanted {
                wants: Wants::Value(desired.digest()),
                value: Some(desired.value),
                rejection: None,
            },
            Err(NotExportable::Rejected(rejection)) => rejected(rejection),
            Err(NotExportable::Unavailable(_)) => {
                Wanted { wants: Wants::Unavailable, value: without_api_key, rejection: None }
            }
        }
    }

    fn report_key(&self, key: &KvKey, table: &Table, wanted: Option<&Wanted>) -> KeyReport {
        let stored = self.values.get(key).and_then(Option::as_ref);
        let metadata = stored.and_then(StoredValue::metadata);
        let api_key_unavailable = wanted.is_some_and(|it| it.wants == Wants::Unavailable);
        let check =
            if api_key_unavailable { ApiKeyCheck::NotCompared } else { ApiKeyCheck::Compared };
        let value = wanted.and_then(|wanted| wanted.value.as_ref());
        let differs =
            stored.zip(value).map(|(stored, value)| differing_paths(&stored.value, value, check));
        let claimed_by: BTreeSet<ItemName> =
            table.claimants(key).map(|index| ItemName::from(&**index)).collect();
        KeyReport {
            key: key.name.clone(),
            verdict: table.verdict(key),
            named: self.named_by(key).as_ref().map(ItemName::from),
            environment: metadata.as_ref().and_then(|it| it.shown_environment().map(str::to_owned)),
            exported_at: metadata.as_ref().and_then(|it| it.exported_at.clone()),
            changed_at: metadata.as_ref().and_then(|it| it.changed_at.clone()),
            source: metadata.as_ref().and_then(|it| it.source),
            differs: differs.unwrap_or_default(),
            claimed_by: claimed_by.into_iter().take(MAX_ITEMS).collect(),
            api_key_unavailable,
        }
    }
}

fn names_of(items: BTreeSet<&ItemKey>) -> Vec<ItemName> {
    items.into_iter().take(MAX_ITEMS).map(ItemName::from).collect()
}
