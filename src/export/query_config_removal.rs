//! Removes the keys of query configs that the table no longer has.
//!
//! A dash in a name can give two items one key (`a`/`b-c` and `a-b`/`c`), so the items that the key
//! could also mean are read with it. What was written or deleted is looked at again, for at most
//! [`MAX_ROUNDS`] rounds.
//!
//! | the table has | last done to the key | then |
//! | --- | --- | --- |
//! | the removed item | nothing | left to that item's own stream record |
//! | an item of that key | that very value was written | done |
//! | an item of that key | anything else | written for the first by account and index |
//! | an item of that key that can't be exported | | stays |
//! | none | deleted, and KV confirmed it | done |
//! | none | deleted, and KV did not confirm it | fails |
//! | none | nothing, and it is another environment's | stays |
//! | none | anything else | deleted |

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::MAX_ROUNDS;
use super::bulk;
use super::desired::Desired;
use super::error::KeyError;
use super::invocation::Invocation;
use super::other_environments::{self, Found, OtherEnvironments};
use super::table::read_items;
use crate::index::{IndexRef, ItemName};
use crate::item::{Item, ItemKey, QueryConfigRef, Rejection};
use crate::kv::{Digest, Entry, Pair, Stamp, check_key};
use crate::ports::{KvError, Namespace, Services};

#[derive(Debug, Default)]
pub struct Removal {
    /// Keys that are gone, and stay gone.
    pub deleted: u64,
    /// Keys that hold an item that asks for them.
    pub written: u64,
    pub failed: BTreeMap<String, KeyError>,
    /// Keys of items that can't be exported: they stay as they are.
    pub rejected: BTreeMap<String, Rejection>,
}

#[derive(Debug, Clone, PartialEq)]
enum Done {
    Written(Digest),
    Deleted(Result<(), KvError>),
}

#[derive(Debug, PartialEq)]
enum Next {
    /// Nothing: it is left to another stream record.
    Leave,
    Holds,
    Write(Rc<Entry>),
    Delete,
    /// Nothing: its item can't be exported.
    Reject(Rejection),
    /// Nothing: the delete was sent, and KV confirmed it or not.
    Deleted(Result<(), KvError>),
}

/// Removes the keys of query configs, unless items ask for them.
pub async fn remove<S: Services>(
    invocation: &Invocation<'_, S>,
    configs: &[QueryConfigRef],
    other_environments: OtherEnvironments,
) -> Removal {
    let mut removing = Removing {
        invocation,
        other_environments,
        removed: configs.iter().collect(),
        // Nothing can be under a name that KV can't hold.
        open: configs
            .iter()
            .map(|config| (config.kv_key(), twins(config)))
            .filter(|(key, _)| check_key(key).is_ok())
            .collect(),
        last: BTreeMap::new(),
        removal: Removal::default(),
    };
    removing.rounds().await;
    invocation.write_receipts(Namespace::QueryConfigs);
    removing.removal
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
            Some(Done::Deleted(confirmed)) => Next::Deleted(confirmed.clone()),
            Some(Done::Written(_)) | None => Next::Delete,
        };
    };
    if removed_is_back && last.is_none() {
        return Next::Leave;
    }
    match Desired::of_query_config(config, item).and_then(|desired| desired.entry(stamp)) {
        Ok(entry) if last == Some(&Done::Written(entry.digest())) => Next::Holds,
        Ok(entry) => Next::Write(entry),
        Err(rejection) => Next::Reject(rejection),
    }
}

struct Removing<'a, S> {
    invocation: &'a Invocation<'a, S>,
    other_environments: OtherEnvironments,
    removed: BTreeSet<&'a QueryConfigRef>,
    /// The keys, with all query configs that each could mean.
    open: BTreeMap<String, BTreeSet<QueryConfigRef>>,
    last: BTreeMap<String, Done>,
    removal: Removal,
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
        let Self { open, last, removed, removal, .. } = self;
        open.retain(|key, twins| {
            let mut there = twins
                .iter()
                .filter_map(|twin| Some((twin, items.get(&ItemKey::of_query_config(twin))?)));
            let removed_is_back = there.clone().any(|(twin, _)| removed.contains(twin));
            match next(there.next(), removed_is_back, last.get(key), &stamp) {
                Next::Leave => return false,
                Next::Holds => removal.written += 1,
                Next::Deleted(Ok(())) => removal.deleted += 1,
                Next::Deleted(Err(error)) => drop(removal.failed.insert(key.clone(), error.into())),
                Next::Reject(rejection) => drop(removal.rejected.insert(key.clone(), rejection)),
                Next::Write(entry) => {
                    pairs.push(Pair { key: key.clone(), entry });
                    return true;
                }
                Next::Delete => {
                    deletes.push(key.clone());
                    return true;
                }
            }
            false
        });
        (pairs, deletes)
    }

    async fn write(&mut self, pairs: Vec<Pair>) {
        let bounds = bulk::Bounds::patient(self.invocation.deadline);
        let failures =
            bulk::put(self.invocation, Namespace::QueryConfigs, pairs.clone(), bounds).await;
        for Pair { key, entry } in pairs {
            match failures.get(&key) {
                None => drop(self.last.insert(key, Done::Written(entry.digest()))),
                Some(error) => self.fail(&key, error.clone().into()),
            }
        }
    }

    async fn delete(&mut self, mut keys: Vec<String>) {
        self.spare_other_environments(&mut keys).await;
        let until = self.invocation.deadline;
        let named = keys.iter().map(|key| (key.clone(), self.item_of(key))).collect();
        let mut failures =
            bulk::delete(self.invocation, Namespace::QueryConfigs, named, until).await;
        for key in keys {
            let confirmed = failures.remove(&key).map_or(Ok(()), Err);
            self.last.insert(key, Done::Deleted(confirmed));
        }
    }

    fn item_of(&self, key: &str) -> Option<ItemName> {
        let removed = self.open.get(key)?.iter().find(|twin| self.removed.contains(twin))?;
        Some(removed.clone().into())
    }

    /// Takes out the keys that another environment has written, and those that can't be read.
    async fn spare_other_environments(&mut self, keys: &mut Vec<String>) {
        if self.other_environments == OtherEnvironments::LeftOut {
            return;
        }
        let unknown = keys.iter().filter(|key| !self.last.contains_key(*key)).cloned().collect();
        let Found { theirs, failed } = other_environments::find(self.invocation, unknown).await;
        keys.retain(|key| !failed.contains_key(key) && !theirs.contains(key));
        self.open.retain(|key, _| !theirs.contains(key));
        for (key, error) in failed {
            self.fail(&key, error.into());
        }
    }

    fn fail(&mut self, key: &str, error: KeyError) {
        self.open.remove(key);
        self.removal.failed.insert(key.to_owned(), error);
    }

    fn fail_all(&mut self, error: &KeyError) {
        for key in std::mem::take(&mut self.open).into_keys() {
            self.removal.failed.insert(key, error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{Fakes, pairs};
    use crate::kv::Source;
    use crate::ports::KvStore;

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
        assert_eq!(next_of(Some(&item("")), true, None), Next::Leave);
    }

    #[test]
    fn an_item_that_asks_for_the_key_gets_it_until_it_holds_its_value() {
        let (old, new) = (item(r#","boost":{"N":"1"}"#), item(r#","boost":{"N":"2"}"#));
        for last in [None, Some(written(&old)), Some(Done::Deleted(Ok(())))] {
            assert!(matches!(next_of(Some(&new), false, last), Next::Write(_)));
        }
        let deleted = Some(Done::Deleted(Ok(())));
        assert!(matches!(next_of(Some(&new), true, deleted), Next::Write(_)), "it came back");
        assert_eq!(next_of(Some(&new), false, Some(written(&new))), Next::Holds);
    }

    #[test]
    fn an_item_that_cannot_be_exported_keeps_the_key_as_it_is() {
        let broken = item(r#","boost":{"Q":1}"#);
        assert!(matches!(next_of(Some(&broken), false, None), Next::Reject(_)));
    }

    #[test]
    fn without_an_item_the_key_is_deleted_once_and_fails_unless_kv_confirms_it() {
        for last in [None, Some(written(&item("")))] {
            assert_eq!(next_of(None, false, last), Next::Delete);
        }
        assert_eq!(next_of(None, false, Some(Done::Deleted(Ok(())))), Next::Deleted(Ok(())));
        let unconfirmed = Some(Done::Deleted(Err(KvError::Unsuccessful { retry_after: None })));
        let failed = Next::Deleted(Err(KvError::Unsuccessful { retry_after: None }));
        assert_eq!(next_of(None, false, unconfirmed), failed);
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
        fakes.kv.put(Namespace::QueryConfigs, &pairs(&keys)).await.unwrap();
        let invocation = fakes.invocation();
        let removal = remove(&invocation, &configs, OtherEnvironments::Unknown).await;
        assert_eq!((removal.deleted, fakes.kv.keys().len()), (100_000, 0));
        let requests = invocation.stats().kv_requests;
        assert!(requests <= 150, "{requests} requests");
    }
}
