//! Removes the keys of query configs that the table no longer has.
//!
//! A dash in a name can give two items one key (`a`/`b-c` and `a-b`/`c`), so the items that the key
//! could also mean are read with it. What was written or deleted is looked at again, for at most
//! [`MAX_ROUNDS`] rounds.
//!
//! | the table has | last done to the key | then |
//! | --- | --- | --- |
//! | none | deleted, and KV confirmed it | done |
//! | none | deleted, and KV did not confirm it | fails |
//! | none | nothing, and it is another environment's | stays |
//! | none | anything else | deleted |
//! | the removed item | nothing | left to that item's own stream record |
//! | an item of that key | that very value was written | done |
//! | an item of that key | anything else | written for the first by account and index |
//! | an item of that key that can't be exported | | stays |

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::MAX_ROUNDS;
use super::bulk;
use super::desired::Desired;
use super::error::KeyError;
use super::invocation::Invocation;
use super::other_environments::{self, OtherEnvironments};
use super::table::read_items;
use crate::index::{IndexRef, ItemName};
use crate::item::{Item, ItemKey, QueryConfigRef, Rejection};
use crate::kv::{Digest, Entry, Pair, Stamp, check_key};
use crate::ports::{Namespace, Services};

#[derive(Debug, Clone, PartialEq)]
pub enum RemovalOutcome {
    /// It is left to another stream record, or to another environment.
    Left,
    /// It holds an item that asks for it.
    Written,
    Deleted,
    /// It stays as it is: its item can't be exported.
    Rejected(Rejection),
    Failed(KeyError),
}

#[derive(Debug, Clone, PartialEq)]
enum Done {
    Written(Digest),
    /// It was sent; the outcome says whether KV confirmed it.
    Deleted(RemovalOutcome),
}

#[derive(Debug, PartialEq)]
enum Next {
    Write(Rc<Entry>),
    Delete,
    Nothing(RemovalOutcome),
}

/// Removes the keys of query configs, unless items ask for them; what became of each key, those that
/// KV can't hold left out.
pub async fn remove<S: Services>(
    invocation: &Invocation<'_, S>,
    configs: &[QueryConfigRef],
    other_environments: OtherEnvironments,
) -> BTreeMap<String, RemovalOutcome> {
    if configs.is_empty() {
        return BTreeMap::new();
    }
    let keys = configs.iter().map(|config| (config.kv_key(), twins(config)));
    let mut removing = Removing {
        invocation,
        other_environments,
        removed: configs.iter().collect(),
        // Nothing can be under a name that KV can't hold.
        open: keys.filter(|(key, _)| check_key(key).is_ok()).collect(),
        last: BTreeMap::new(),
        outcomes: BTreeMap::new(),
    };
    removing.rounds().await;
    invocation.write_receipts(Namespace::QueryConfigs);
    removing.outcomes
}

/// The query configs that have the key of this one, as far as the table can hold them; the first by
/// account and index first.
pub fn twins(config: &QueryConfigRef) -> BTreeSet<QueryConfigRef> {
    let index_id = config.index.index_id();
    let twins = IndexRef::all_with_id(&index_id)
        .map(|index| QueryConfigRef { index, query: config.query.clone() })
        .filter(|twin| ItemKey::of_query_config(twin).fits_the_table());
    twins.collect()
}

/// What comes next for a key, by the first of its items that the table has (`None` where it has
/// none), and whether one of them is a removed one.
fn next(
    claimant: Option<(&QueryConfigRef, &Item)>,
    removed_is_back: bool,
    last: Option<&Done>,
    stamp: &Stamp,
) -> Next {
    let Some((config, item)) = claimant else {
        return match last {
            Some(Done::Deleted(outcome)) => Next::Nothing(outcome.clone()),
            Some(Done::Written(_)) | None => Next::Delete,
        };
    };
    if removed_is_back && last.is_none() {
        return Next::Nothing(RemovalOutcome::Left);
    }
    match Desired::of_query_config(config, item).map(|desired| desired.entry(stamp)) {
        Ok(entry) if last == Some(&Done::Written(entry.digest())) => {
            Next::Nothing(RemovalOutcome::Written)
        }
        Ok(entry) => Next::Write(entry),
        Err(rejection) => Next::Nothing(RemovalOutcome::Rejected(rejection)),
    }
}

struct Removing<'a, S> {
    invocation: &'a Invocation<'a, S>,
    other_environments: OtherEnvironments,
    removed: BTreeSet<&'a QueryConfigRef>,
    /// The keys, with all query configs that each could mean.
    open: BTreeMap<String, BTreeSet<QueryConfigRef>>,
    last: BTreeMap<String, Done>,
    outcomes: BTreeMap<String, RemovalOutcome>,
}

impl<S: Services> Removing<'_, S> {
    async fn rounds(&mut self) {
        for round in 0..=MAX_ROUNDS {
            if self.open.is_empty() {
                return;
            }
            let keys = self.open.values().flatten().map(ItemKey::of_query_config);
            let items = match read_items(self.invocation, keys).await {
                Ok(items) => items,
                Err(error) => return self.fail_all(&error.into()),
            };
            let (pairs, deletes) = self.look(&items);
            if round == MAX_ROUNDS {
                return self.fail_all(&KeyError::StillChanging);
            }
            self.write(pairs).await;
            self.delete(deletes).await;
        }
    }

    /// Takes out the keys that are done; answers with what is to be written and deleted.
    fn look(&mut self, items: &BTreeMap<ItemKey, Item>) -> (Vec<Pair>, Vec<String>) {
        let stamp = self.invocation.stamp();
        let (mut pairs, mut deletes) = (Vec::new(), Vec::new());
        let Self { open, last, removed, outcomes, .. } = self;
        open.retain(|key, twins| {
            let mut there = twins
                .iter()
                .filter_map(|twin| Some((twin, items.get(&ItemKey::of_query_config(twin))?)));
            let removed_is_back = there.clone().any(|(twin, _)| removed.contains(twin));
            match next(there.next(), removed_is_back, last.get(key), &stamp) {
                Next::Write(entry) => pairs.push(Pair { key: key.clone(), entry }),
                Next::Delete => deletes.push(key.clone()),
                Next::Nothing(outcome) => {
                    outcomes.insert(key.clone(), outcome);
                    return false;
                }
            }
            true
        });
        (pairs, deletes)
    }

    async fn write(&mut self, pairs: Vec<Pair>) {
        let bounds = bulk::Bounds::patient(self.invocation.deadline);
        let failures =
            bulk::put(self.invocation, Namespace::QueryConfigs, pairs.clone(), bounds).await;
        let written = pairs.into_iter().map(|Pair { key, entry }| (key, entry.digest()));
        self.last.extend(written.map(|(key, digest)| (key, Done::Written(digest))));
        self.fail(failures);
    }

    async fn delete(&mut self, mut keys: Vec<String>) {
        if self.other_environments == OtherEnvironments::Unknown {
            self.spare_other_environments(&mut keys).await;
        }
        let until = self.invocation.deadline;
        let named = keys.iter().map(|key| (key.clone(), self.item_of(key))).collect();
        let mut failures =
            bulk::delete(self.invocation, Namespace::QueryConfigs, named, until).await;
        for key in keys {
            let failed = failures.remove(&key).map(|error| RemovalOutcome::Failed(error.into()));
            self.last.insert(key, Done::Deleted(failed.unwrap_or(RemovalOutcome::Deleted)));
        }
    }

    fn item_of(&self, key: &str) -> Option<ItemName> {
        let removed = self.open.get(key)?.iter().find(|twin| self.removed.contains(twin))?;
        Some(removed.clone().into())
    }

    /// Takes out the keys that another environment has written, and those that can't be read.
    async fn spare_other_environments(&mut self, keys: &mut Vec<String>) {
        let unknown = keys.iter().filter(|key| !self.last.contains_key(*key)).cloned().collect();
        let (theirs, failures) = other_environments::find(self.invocation, unknown).await;
        self.open.retain(|key, _| !theirs.contains(key));
        self.fail(failures);
        keys.retain(|key| self.open.contains_key(key));
    }

    fn fail(&mut self, failures: bulk::Failures) {
        for (key, error) in failures {
            self.open.remove(&key);
            self.outcomes.insert(key, RemovalOutcome::Failed(error.into()));
        }
    }

    fn fail_all(&mut self, error: &KeyError) {
        let failed = std::mem::take(&mut self.open).into_keys();
        self.outcomes.extend(failed.map(|key| (key, RemovalOutcome::Failed(error.clone()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{Fakes, pairs};
    use crate::kv::Source;
    use crate::ports::{KvError, KvStore};

    fn config() -> QueryConfigRef {
        let index = IndexRef::parse("a", "b-c").unwrap();
        QueryConfigRef { index, query: "q".into() }
    }

    fn item(more: &str) -> Item {
        let json = format!(r#"{{"pk":{{"S":"a"}},"sk":{{"S":"INDEX#b-c#QUERY#q"}}{more}}}"#);
        Item::parse(serde_json::from_str(&json).unwrap()).unwrap().1
    }

    fn stamp() -> Stamp {
        Stamp {
            exported_at: "t".into(),
            source: Source::Stream,
            environment: "prod".into(),
            changed_at: None,
        }
    }

    fn next_of(item: Option<&Item>, removed_is_back: bool, last: Option<Done>) -> Next {
        let config = config();
        next(item.map(|item| (&config, item)), removed_is_back, last.as_ref(), &stamp())
    }

    fn written(item: &Item) -> Done {
        Done::Written(Desired::of_query_config(&config(), item).unwrap().digest())
    }

    #[test]
    fn a_removed_item_that_is_there_is_left_to_its_own_record() {
        let left = Next::Nothing(RemovalOutcome::Left);
        assert_eq!(next_of(Some(&item("")), true, None), left);
    }

    #[test]
    fn an_item_that_asks_for_the_key_gets_it_until_it_holds_its_value() {
        let (old, new) = (item(r#","boost":{"N":"1"}"#), item(r#","boost":{"N":"2"}"#));
        for last in [None, Some(written(&old)), Some(Done::Deleted(RemovalOutcome::Deleted))] {
            assert!(matches!(next_of(Some(&new), false, last), Next::Write(_)));
        }
        let deleted = Some(Done::Deleted(RemovalOutcome::Deleted));
        assert!(matches!(next_of(Some(&new), true, deleted), Next::Write(_)), "it came back");
        let holds = Next::Nothing(RemovalOutcome::Written);
        assert_eq!(next_of(Some(&new), false, Some(written(&new))), holds);
    }

    #[test]
    fn an_item_that_cannot_be_exported_keeps_the_key_as_it_is() {
        let broken = item(r#","boost":{"Q":1}"#);
        let next = next_of(Some(&broken), false, None);
        assert!(matches!(next, Next::Nothing(RemovalOutcome::Rejected(_))));
    }

    #[test]
    fn without_an_item_the_key_is_deleted_once_and_fails_unless_kv_confirms_it() {
        for last in [None, Some(written(&item("")))] {
            assert_eq!(next_of(None, false, last), Next::Delete);
        }
        let error = KvError::Unsuccessful { retry_after: None };
        for outcome in [RemovalOutcome::Deleted, RemovalOutcome::Failed(error.into())] {
            let last = Some(Done::Deleted(outcome.clone()));
            assert_eq!(next_of(None, false, last), Next::Nothing(outcome));
        }
    }

    #[test]
    fn a_dash_gives_a_key_to_several_query_configs_that_the_table_can_hold() {
        let names = |index: &str, query: String| {
            let index = IndexRef::parse("a", index).unwrap();
            let twins = twins(&QueryConfigRef { index, query });
            twins.iter().map(|twin| twin.index.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names("b-c", "q".into()), ["a/b-c", "a-b/c"]);
        // The sort key of a/b-c would be too long by a byte.
        let query = "q".repeat(1024 - "INDEX#c#QUERY#".len());
        assert_eq!(names("b-c", query), ["a-b/c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_thousand_removals_take_150_requests() {
        let fakes = Fakes::new();
        let index = IndexRef::parse("a", "i").unwrap();
        let configs: Vec<QueryConfigRef> = (0..100_000)
            .map(|n| QueryConfigRef { index: index.clone(), query: n.to_string() })
            .collect();
        let keys: Vec<String> = configs.iter().map(QueryConfigRef::kv_key).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        fakes.put(Namespace::QueryConfigs, &pairs(&keys)).await.unwrap();
        let invocation = fakes.invocation();
        let outcomes = remove(&invocation, &configs, OtherEnvironments::Unknown).await;
        assert!(outcomes.values().all(|outcome| *outcome == RemovalOutcome::Deleted));
        assert_eq!((outcomes.len(), fakes.kv.keys().len()), (100_000, 0));
        let requests = invocation.stats().kv_requests;
        assert!(requests <= 150, "{requests} requests");
    }
}
