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

mod account;
mod differs;
mod report;
mod tried;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use secrecy::SecretString;

use self::differs::{ApiKeyCheck, differences};
pub use self::report::{ExplainReport, Explained, ItemName, ItemState};
use self::report::{KeyReport, MAX_NAME_CHARACTERS};
pub use self::tried::Tried;
use super::api_keys::{ApiKeys, Fallback, NotExportable};
use super::bulk;
use super::error::ExportError;
use super::exportable::Exportable;
use super::invocation::Invocation;
use super::judge::{Held, KvKey, Table, Wants};
use super::reconcile::cut;
use super::remove::look_at;
use super::table::{ReadError, read_items};
use crate::index::{IndexRef, ItemRef};
use crate::item::keys::is_query_config_key;
use crate::item::{AliasTarget, Item, ItemKey, Map, Rejection, alias_targets, claimed_keys};
use crate::kv::{Digest, Namespace, StoredValue, check_key};
use crate::ports::{KvError, Services};

/// The most items that a report names in one place.
const MAX_ITEMS: usize = 100;

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

pub async fn explain<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Explain,
) -> Result<Explained, ExplainError> {
    let (asked, tried) = match &request.subject {
        Subject::Index(index) => (Some(index), None),
        Subject::Item(tried) => (None, Some(tried)),
        _ => (None, None),
    };
    let mut explaining = Explaining {
        invocation,
        asked,
        tried,
        shows_values: request.values,
        api_keys: ApiKeys::new(Fallback::Nothing, invocation.budget.api_keys),
        values: BTreeMap::new(),
        names: BTreeSet::new(),
    };
    let report = match &request.subject {
        Subject::Index(index) => explaining.index(index).await,
        Subject::Key(key) if is_query_config_key(key) => explaining.query_config(key, None).await,
        Subject::Key(key) => explaining.key(key).await,
        Subject::Item(tried) => explaining.tried(tried).await,
        Subject::Account { account, after } => explaining.account(account, after.as_deref()).await,
    };
    let asked = request.subject.to_string();
    report
        .map_err(|error| match error.auth_rejected() {
            Some(refusal) => ExplainError::CloudflareAuthRejected(refusal.clone()),
            None => ExplainError::Incomplete { asked: asked.clone(), error },
        })?
        .ok_or_else(|| ExplainError::IndexNotFound { asked, nearest: explaining.nearest() })
}

/// What an item wants under its keys.
struct Wanted {
    wants: Wants,
    /// The value, without its API key where that can't be had.
    value: Option<String>,
    rejection: Option<Rejection>,
    /// What its active aliases point at, by index id.
    points_at: BTreeSet<String>,
}

/// What the items that ask for the keys want.
type WantedBy = BTreeMap<IndexRef, Wanted>;

struct Explaining<'a, 's, S> {
    invocation: &'a Invocation<'s, S>,
    /// The index in the request, if it names one.
    asked: Option<&'a IndexRef>,
    /// The item that counts instead of the saved one.
    tried: Option<&'a Tried>,
    shows_values: bool,
    api_keys: ApiKeys,
    /// What KV holds under the keys that were read.
    values: BTreeMap<KvKey, Option<StoredValue>>,
    /// The names of the account's indexes, collected if the request names an index.
    names: BTreeSet<String>,
}

/// `None` where nothing knows what was asked about.
type Found = Result<Option<Explained>, ExportError>;

impl<S: Services> Explaining<'_, '_, S> {
    /// Explains a settings key: the index that its value names, else the one whose item asks for it.
    async fn key(&mut self, name: &str) -> Found {
        let key = KvKey::of_settings(name);
        self.read(Namespace::Settings, BTreeSet::from([name.to_owned()])).await?;
        if let Some(index) = self.named_by(&key) {
            return self.index(&index).await;
        }
        let table = self.look(self.table()).await?;
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
        Ok(Some(ExplainReport { keys, pointed_at_by, ..ExplainReport::default() }.into()))
    }

    /// Explains an index, and the settings keys that have been read before.
    async fn index(&mut self, index: &IndexRef) -> Found {
        let own = ItemRef::from(index.clone()).key();
        let items = self.items(vec![own.clone()]).await?;
        let keys = match items.get(&own) {
            Some(item) => claimed_keys(index, &item.attributes()),
            None => vec![index.index_id()],
        };
        self.read(Namespace::Settings, keys.into_iter().collect()).await?;
        let shop_ids = self.shop_ids(|_, of| of == index);
        self.read(Namespace::Settings, shop_ids).await?;
        let (table, wanted) = self.judged(std::slice::from_ref(index)).await?;
        let report = self.report(Some(index), &table, &wanted, |_| true);
        Ok(report.is_known().then(|| report.into()))
    }

    /// Returns the shop ids in the values that count, by their keys and indexes.
    fn shop_ids(&self, counts: impl Fn(&str, &IndexRef) -> bool) -> BTreeSet<String> {
        let shop_id = |(key, stored): (&KvKey, &Option<StoredValue>)| {
            let settings = stored.as_ref()?.settings()?;
            settings.shop_id.filter(|_| counts(&key.name, &settings.index))
        };
        self.values.iter().filter_map(shop_id).collect()
    }

    /// Returns a table of the keys that were read, and what these indexes want, and the indexes that have the keys.
    async fn judged(&mut self, indexes: &[IndexRef]) -> Result<(Table, WantedBy), ExportError> {
        let mut table = self.table();
        indexes.iter().for_each(|index| table.watch(&mut Rc::new(index.clone())));
        let mut table = self.look(table).await?;
        let claims = table.rows.values().filter_map(|row| row.claim.as_ref());
        let asking = claims.map(|claim| &*claim.index).chain(indexes).cloned().collect();
        let wanted = self.wanted(asking).await?;
        for (index, Wanted { wants, .. }) in &wanted {
            if self.tried.is_some() && indexes.contains(index) && *wants != Wants::Rejected {
                table.give(index);
            }
            table.resolve_claims(index, *wants);
        }
        Ok((table, wanted))
    }

    /// Returns the report on an index and on the keys that are shown.
    fn report(
        &self,
        index: Option<&IndexRef>,
        table: &Table,
        wanted: &WantedBy,
        shows: impl Fn(&KvKey) -> bool,
    ) -> ExplainReport {
        let index_id = index.map(IndexRef::index_id).unwrap_or_default();
        let is_its = |key: &KvKey| table.claimants(key).any(|claimant| Some(&**claimant) == index);
        let names = self.values.keys().filter(|key| is_its(key)).map(|key| &key.name);
        let pointers: BTreeSet<&ItemKey> =
            names.chain([&index_id]).flat_map(|name| table.pointers_at(name, index)).collect();
        let mut keys: Vec<&KvKey> = self.values.keys().collect();
        keys.retain(|key| self.values[*key].is_some() || table.claim_of(key).is_some());
        keys.retain(|key| shows(key));
        // The primary key first, then the index id's, then what is left over.
        keys.sort_by_key(|key| (!is_its(key), key.name == index_id));
        let keys = keys.into_iter().map(|key| {
            let wanted = table.claim_of(key).and_then(|claim| wanted.get(&*claim.index));
            self.report_key(key, table, wanted)
        });
        let mut report = ExplainReport {
            index: index.map(ItemName::from),
            keys: keys.collect(),
            pointed_at_by: names_of(pointers),
            ..report_item(index.and_then(|index| wanted.get(index)))
        };
        report.api_key_unavailable = report.keys.iter().any(|key| key.api_key_unavailable);
        report
    }

    /// Explains a query config's key by an item, or else by the item to which its value refers.
    async fn query_config(&mut self, name: &str, item: Option<ItemRef>) -> Found {
        let key = KvKey { namespace: Namespace::QueryConfigs, name: name.to_owned() };
        self.read(Namespace::QueryConfigs, BTreeSet::from([name.to_owned()])).await?;
        let stored = self.values.get(&key).and_then(Option::as_ref);
        let referred_to = || stored?.query_config().filter(|item| item.kv_key() == name);
        let item = item.or_else(referred_to);
        if stored.is_none() && item.is_none() {
            return Ok(None);
        }
        // The pass knows less of the item than the item itself: it comes second.
        let mut table = self.table();
        let mut wanted = None;
        if let Some(item_ref) = &item
            && let Some((item_key, item)) =
                self.items(vec![item_ref.key()]).await?.first_key_value()
        {
            let own = self.want(item_ref, item);
            table.add(item_key, &item.attributes(), own.wants);
            wanted = Some(own);
        }
        let table = self.look(table).await?;
        let index = item.map(|item| item.index).or_else(|| self.named_by(&key));
        let pointers = index.as_ref().map(|it| table.pointers_at(&it.index_id(), Some(it)));
        let report = ExplainReport {
            index: index.as_ref().map(ItemName::from),
            keys: vec![self.report_key(&key, &table, wanted.as_ref())],
            pointed_at_by: names_of(pointers.unwrap_or_default()),
            ..report_item(wanted.as_ref())
        };
        Ok(Some(report.into()))
    }

    /// Reads items. An item that is tried is returned as if it were saved.
    async fn items(&self, keys: Vec<ItemKey>) -> Result<BTreeMap<ItemKey, Item>, ReadError> {
        let until = self.invocation.budget.deadline;
        let tried = self.tried.filter(|tried| keys.contains(&tried.key));
        let mut items = read_items(self.invocation, until, keys).await?;
        if let Some(Tried { key, item }) = tried {
            items.remove(key);
            items.extend(item.clone().map(|item| (key.clone(), item)));
        }
        Ok(items)
    }

    /// Makes a pass for the keys of a table. An item that is tried counts instead of the saved one.
    async fn look(&mut self, table: Table) -> Result<Table, ReadError> {
        let (tried, asked, names) = (self.tried, self.asked, &mut self.names);
        let mut table = look_at(self.invocation, table, |key| {
            if asked.is_some_and(|asked| asked.account == key.pk) {
                names.extend(key.item().map(|item| item.index.name));
            }
            tried.is_none_or(|tried| tried.key != *key)
        })
        .await?;
        if let Some(tried) = tried {
            tried.add_to(&mut table, self.invocation.config);
        }
        Ok(table)
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
        let mut table = Table::new(None);
        self.hold(&mut table);
        table
    }

    /// Tells a table what KV holds under the keys that were read.
    fn hold(&self, table: &mut Table) {
        for (key, stored) in &self.values {
            let held = Held::read(stored.as_ref(), &self.invocation.config.environment);
            table.hold(key.clone(), held);
        }
    }

    /// Returns the index that a key's value names, or else its metadata, whichever environment wrote them.
    fn named_by(&self, key: &KvKey) -> Option<IndexRef> {
        let stored = self.values.get(key)?.as_ref()?;
        let by_value = stored.settings().map(|settings| settings.index);
        by_value.or_else(|| Some(stored.metadata()?.index))
    }

    /// Returns what the items of these indexes want.
    async fn wanted(&mut self, indexes: BTreeSet<IndexRef>) -> Result<WantedBy, ExportError> {
        let refs: Vec<ItemRef> = indexes.into_iter().map(ItemRef::from).collect();
        let items = self.items(refs.iter().map(ItemRef::key).collect()).await?;
        let decoded = refs.iter().filter_map(|item_ref| {
            Exportable::decode(item_ref, items.get(&item_ref.key())?, self.invocation.config).ok()
        });
        let owners = decoded.filter_map(|item| item.owner().cloned()).collect();
        self.api_keys.ask(self.invocation, owners).await;
        let wanted = refs.into_iter().filter_map(|item_ref| {
            let item = items.get(&item_ref.key())?;
            let wanted = self.want(&item_ref, item);
            Some((item_ref.index, wanted))
        });
        Ok(wanted.collect())
    }

    fn want(&self, item_ref: &ItemRef, item: &Item) -> Wanted {
        let ItemRef { index, .. } = item_ref;
        let points_at = index_ids(&item.attributes(), &index.account, Some(&index.index_id()));
        let (wants, value, rejection) =
            match Exportable::decode(item_ref, item, self.invocation.config) {
                Err(rejection) => (Wants::Rejected, None, Some(rejection)),
                Ok(decoded) => {
                    let without_api_key =
                        decoded.settings().map(|(it, _)| it.value(&SecretString::default()));
                    match decoded.value(&self.api_keys) {
                        Ok(value) => {
                            (Wants::Value(Digest::of(value.as_bytes())), Some(value), None)
                        }
                        Err(NotExportable::Rejected(rejection)) => {
                            (Wants::Rejected, None, Some(rejection))
                        }
                        Err(NotExportable::Unavailable(_)) => {
                            (Wants::Unavailable, without_api_key, None)
                        }
                    }
                }
            };
        Wanted { wants, value, rejection, points_at }
    }

    fn report_key(&self, key: &KvKey, table: &Table, wanted: Option<&Wanted>) -> KeyReport {
        let stored = self.values.get(key).and_then(Option::as_ref);
        let metadata = stored.and_then(StoredValue::metadata);
        let api_key_unavailable = wanted.is_some_and(|it| it.wants == Wants::Unavailable);
        let check =
            if api_key_unavailable { ApiKeyCheck::NotCompared } else { ApiKeyCheck::Compared };
        let value = wanted.and_then(|wanted| wanted.value.as_ref());
        let differs = stored.zip(value).map(|(held, value)| differences(&held.value, value, check));
        let differs = differs.unwrap_or_default();
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
            differs: differs.iter().map(|difference| difference.path.clone()).collect(),
            values: self.shows_values.then_some(differs),
            claimed_by: claimed_by.into_iter().take(MAX_ITEMS).collect(),
            api_key_unavailable,
        }
    }
}

/// Returns a report that says whether the item can be exported.
fn report_item(item: Option<&Wanted>) -> ExplainReport {
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

/// Returns the index ids that the active aliases of an item of `account` name, without its own.
fn index_ids(item: &Map, account: &str, own: Option<&str>) -> BTreeSet<String> {
    let targets = alias_targets(account, item).into_iter().filter_map(|target| match target {
        AliasTarget::IndexId(index_id) => Some(index_id),
        AliasTarget::ShopId(_) => None,
    });
    targets.filter(|index_id| Some(index_id.as_str()) != own).collect()
}

fn names_of(items: BTreeSet<&ItemKey>) -> Vec<ItemName> {
    items.into_iter().take(MAX_ITEMS).map(ItemName::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_chain::Chain;
    use crate::export::fakes::{
        Fakes, KvFault, down, entry, index, index_item, item, query_config, shop,
    };
    use crate::kv::Source;
    use crate::ports::Cause;
    use serde_json::{Value, json};

    async fn explain_by(fakes: &Fakes, subject: &Subject) -> Result<Value, ExplainError> {
        let request = Explain { subject: subject.clone(), values: false };
        let report = explain(&fakes.invocation(Source::ReExport), &request).await?;
        Ok(serde_json::to_value(report).unwrap())
    }

    fn key(name: &str) -> Subject {
        Subject::Key(name.to_owned())
    }

    /// The item's state and each key's verdict, or the error.
    fn words(explained: &Result<Value, ExplainError>) -> String {
        let report = match explained {
            Ok(report) => report,
            Err(error) => return Chain(error).to_string(),
        };
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let keys = report["keys"].as_array().unwrap().iter();
        let keys = keys.map(|it| format!("{}={}", word(&it["key"]), word(&it["verdict"])));
        [word(&report["item"])].into_iter().chain(keys).collect::<Vec<_>>().join(" ")
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_of_an_index_or_a_key() {
        let (i, points) = (index_item("i", &shop("s")), || json!({"read_alias": {"S": "a-i"}}));
        let pointer = index_item("x", &points());
        let broken = index_item("i", &json!({"index_endpoint": null}));
        let of_i = Some(("a-i", "i"));
        let unknown = |what: &str| {
            format!("neither the table nor KV knows {what}, and no active alias points at it")
        };
        let by_index = Subject::Index(index("i"));
        let near = "; the account has no index";
        for (subject, items, held, expected) in [
            (&by_index, vec![], None, (unknown("index a/i") + near).as_str()),
            (&by_index, vec![&pointer], None, "absent"),
            (&by_index, vec![&i], None, "exportable s=missing a-i=missing"),
            (&by_index, vec![&i], of_i, "exportable s=missing a-i=stale"),
            (&by_index, vec![&broken], of_i, "rejected a-i=rejected"),
            (&by_index, vec![], of_i, "absent a-i=orphaned"),
            (&by_index, vec![&pointer], of_i, "absent a-i=withheld"),
            (&key("s"), vec![], None, &unknown("key \"s\"")),
            (&key("s"), vec![&i], None, "exportable s=missing a-i=missing"),
            (&key("s"), vec![&i], Some(("s", "gone")), "absent s=stale"),
            (
                &key("old"),
                vec![&i],
                Some(("old", "i")),
                "exportable s=missing a-i=missing old=orphaned",
            ),
            (&key("a-i"), vec![&pointer], None, "absent a-i=foreign"),
        ] {
            let fakes = Fakes::new();
            items.into_iter().for_each(|item| fakes.table.put(item.clone()));
            held.iter().for_each(|(key, name)| fakes.kv.hold_entry(key, &entry(name, &json!({}))));
            assert_eq!(words(&explain_by(&fakes, subject).await), expected, "{subject} {held:?}");
            assert!(fakes.kv.keys().len() == held.iter().len(), "nothing is changed");
        }
        let mut fakes = Fakes::new();
        fakes.table.put(i);
        fakes.kv.hold("f", &json!({}));
        fakes.kv.hold_entry("a-i", &entry("i", &json!({})));
        assert_eq!(words(&explain_by(&fakes, &key("f")).await), "absent f=foreign");
        fakes.0.config.environment = "dev".to_owned();
        let explained = explain_by(&fakes, &by_index).await;
        assert_eq!(words(&explained), "exportable s=missing a-i=conflicting");
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_has_paths_claimants_and_pointers_and_takes_three_requests_and_two_passes() {
        let fakes = Fakes::new();
        let attributes = json!({"shop_id": {"S": "s"}, "pixel_id": {"S": "new"}});
        for item in [
            index_item("i", &attributes),
            index_item("j", &shop("s")),
            index_item("x", &json!({"read_alias": {"S": "a-i"}})),
        ] {
            fakes.table.put(item);
        }
        let value = json!({
            "system_account_id": "a", "index_name": "i", "index_url": "https://h", "shop_id": "old",
            "marqo_api_key": "k", "pixel_id": "before",
        });
        fakes.kv.hold_entry("a-i", &entry("i", &value));
        let invocation = fakes.invocation(Source::ReExport);
        let report =
            explain(&invocation, &Explain { subject: key("s"), values: false }).await.unwrap();
        let expected = json!({
            "system_account_id": "a", "index_name": "i", "item": "exportable",
            "keys": [
                {
                    "key": "s", "verdict": "missing", "differs": [],
                    "claimed_by": [
                        {"system_account_id": "a", "index_name": "i"},
                        {"system_account_id": "a", "index_name": "j"},
                    ],
                },
                {
                    "key": "a-i", "verdict": "stale", "environment": "prod", "source": "stream",
                    "named": {"system_account_id": "a", "index_name": "i"},
                    "differs": ["pixel_id", "shop_id"],
                    "claimed_by": [{"system_account_id": "a", "index_name": "i"}],
                },
            ],
            "pointed_at_by": [{"system_account_id": "a", "index_name": "x"}],
        });
        assert_eq!(serde_json::to_value(report).unwrap(), expected);
        let requests = [vec!["s"], vec!["a-i"], vec!["old"]];
        assert_eq!(*fakes.kv.requests.borrow(), requests);
        assert_eq!(invocation.stats().table_requests / 8, 2, "a pass has eight segments");
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_key_that_cannot_be_had_is_not_compared() {
        let fakes = Fakes::new();
        fakes.table.put(index_item("i", &json!({"pixel_id": {"S": "new"}})));
        let value = json!({
            "system_account_id": "a", "index_name": "i", "index_url": "https://h",
            "marqo_api_key": "old",
        });
        fakes.kv.hold_entry("a-i", &entry("i", &value));
        for (faults, verdict, differs) in
            [(4, "failed", json!(["pixel_id"])), (0, "stale", json!(["marqo_api_key", "pixel_id"]))]
        {
            fakes.api_keys.faults.then((0..faults).map(|_| down()));
            let report = explain_by(&fakes, &Subject::Index(index("i"))).await.unwrap();
            assert_eq!(report["keys"][0]["verdict"], verdict);
            assert_eq!(report["keys"][0]["differs"], differs);
            let flag = report.get("api_key_unavailable").cloned();
            assert_eq!(flag, (faults > 0).then_some(json!(true)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_configs_key_is_explained_by_the_item_that_its_value_refers_to() {
        let config = query_config("i", "q");
        let value = |x: i32| json!({"system_account_id": "a", "index_name": "i", "normalized_query": "q", "x": x});
        let (key, expected_key) = (key(&config.kv_key()), config.kv_key());
        for (held, attributes, expected) in [
            (None, None, "neither the table nor KV knows"),
            (Some(value(1)), None, "absent =orphaned"),
            (Some(value(1)), Some(json!({"x": {"N": "1"}})), "exportable =right"),
            (Some(value(1)), Some(json!({"x": {"N": "2"}})), "exportable =stale"),
            (Some(value(1)), Some(json!({"x": {"Q": 2}})), "rejected =rejected"),
            (Some(json!({"x": 1})), None, "absent =orphaned"),
        ] {
            let fakes = Fakes::new();
            attributes.iter().for_each(|it| fakes.table.put(item(&config, it)));
            held.iter().for_each(|it| fakes.kv.hold_entry(&expected_key, &entry("i", it)));
            let words = words(&explain_by(&fakes, &key).await).replace(&expected_key, "");
            assert!(words.starts_with(expected), "{held:?} {attributes:?}: {words}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_fails_is_named() {
        for (error, expected) in [
            (
                KvError::Refused(Cause::new("400")),
                "index a/i can't be explained: key \"a-i\": Cloudflare KV refuses the request: 400",
            ),
            (KvError::AuthRejected(Cause::new("401")), "CloudflareAuthRejected: "),
        ] {
            let fakes = Fakes::new();
            fakes.kv.faults.then([KvFault::Fails(error)]);
            let words = words(&explain_by(&fakes, &Subject::Index(index("i"))).await);
            assert!(words.starts_with(expected), "{words}");
        }
    }
}
