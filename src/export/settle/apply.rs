//! Carries out what was decided: writes before deletes, and an index id's key that leads to a shop id
//! last.

use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::time::Instant;
use tracing::{error, warn};

use super::table_view::Held;
use super::{Action, Settling, TIME_FOR_A_WRITE, Verdict};
use crate::export::bulk;
use crate::export::error::KeyError;
use crate::index::IndexRef;
use crate::kv::{Digest, Entry, Pair, StoredValue};
use crate::ports::{Namespace, Services};

/// What was last done to a key.
pub enum Done {
    /// It was written.
    Written {
        /// For this index.
        index: IndexRef,
        /// A value with this digest.
        digest: Digest,
    },
    /// The delete was sent.
    Deleted {
        /// What the key held, where KV told it.
        was: Option<StoredValue>,
        /// Whether KV said that it did it.
        confirmed: bool,
    },
}

/// State of the shop id that only an index id key's value names. The index id's key is deleted last,
/// so that a retry can still find the shop id.
enum LedTo {
    Settled,
    Open,
    Failed,
}

impl<S: Services> Settling<'_, '_, S> {
    pub(super) async fn apply(&mut self, actions: BTreeMap<String, Action>) {
        let mut writes = Vec::new();
        let mut deletes = BTreeMap::new();
        for (key, action) in actions {
            match action {
                Action::Delete(stored) => {
                    deletes.insert(key, stored);
                }
                write => writes.push((key, write)),
            }
        }
        let restores = self.write(writes).await;
        self.write(restores).await;
        let (last, first): (BTreeMap<_, _>, BTreeMap<_, _>) =
            deletes.into_iter().partition(|(key, _)| self.led_to.contains_key(key));
        self.delete(first).await;
        let mut ready = BTreeMap::new();
        for (key, stored) in last {
            match self.state_of_shop_id(&key) {
                LedTo::Settled => {
                    ready.insert(key, stored);
                }
                // The next round looks at both again.
                LedTo::Open => {}
                LedTo::Failed => self.fail(&key, KeyError::ShopIdUnsettled),
            }
        }
        self.delete(ready).await;
    }

    fn state_of_shop_id(&self, index_id: &str) -> LedTo {
        let Some(shop_id) = self.led_to.get(index_id) else { return LedTo::Settled };
        match (self.last.get(shop_id), self.held.get(shop_id)) {
            (_, None) | (Some(Done::Deleted { confirmed: false, .. }), _) => LedTo::Failed,
            (Some(Done::Deleted { confirmed: true, .. }), _) => LedTo::Settled,
            // It stays for another item: nothing needs to be found through this key any more.
            _ if matches!(
                self.verdicts.get(shop_id),
                Some(Verdict::Left | Verdict::Withheld(_))
            ) =>
            {
                LedTo::Settled
            }
            (_, Some(Held::Ours { named, .. })) if named.index.index_id() == index_id => {
                LedTo::Open
            }
            _ => LedTo::Settled,
        }
    }

    /// Writes keys; answers with what has to be put back because a key that was deleted could not be
    /// written for the item that asks for it now.
    pub(super) async fn write(&mut self, writes: Vec<(String, Action)>) -> Vec<(String, Action)> {
        let mut restores = Vec::new();
        if writes.is_empty() {
            return restores;
        }
        let mut pairs = Vec::with_capacity(writes.len());
        for (key, action) in &writes {
            let entry = match action {
                Action::Write(_, entry) => Rc::clone(entry),
                Action::Restore(was) => Rc::new(Entry::restored(was)),
                Action::Delete(_) => continue,
            };
            pairs.push(Pair { key: key.clone(), entry });
        }
        let failures = bulk::put(self.invocation, Namespace::Settings, pairs).await;
        for (key, action) in writes {
            if let Some(error) = failures.get(&key) {
                match action {
                    Action::Restore(_) => error!(
                        key,
                        "a key that was deleted is needed after all, and could not be put back: {error}"
                    ),
                    Action::Write(..) | Action::Delete(_) => {
                        restores.extend(self.restore(&key).map(|restore| (key.clone(), restore)));
                    }
                }
                self.fail(&key, error.clone().into());
                continue;
            }
            match action {
                Action::Write(index, entry) => {
                    let held = self.held_now(entry.to_stored());
                    self.held.insert(key.clone(), held);
                    self.last.insert(key, Done::Written { index, digest: entry.digest() });
                }
                Action::Restore(was) => {
                    warn!(key, "a key that was deleted is needed after all: put back as it was");
                    self.invocation.count(|stats| stats.deletes_restored += 1);
                    self.last.remove(&key);
                    // One that has failed already is not settled any further.
                    if self.held.contains_key(&key) {
                        let held = self.held_now(was);
                        self.held.insert(key, held);
                    }
                }
                Action::Delete(_) => {}
            }
        }
        restores
    }

    fn held_now(&self, stored: StoredValue) -> Held {
        Held::new(stored, &self.invocation.config.environment)
    }

    /// Deletes keys, if there is time for the look after it and for a put-back.
    async fn delete(&mut self, deletes: BTreeMap<String, Option<StoredValue>>) {
        if deletes.is_empty() {
            return;
        }
        if Instant::now() + self.last_look + TIME_FOR_A_WRITE >= self.invocation.deadline {
            for key in deletes.into_keys() {
                self.fail(&key, KeyError::NoTimeToLookAgain);
            }
            return;
        }
        let keys = deletes.keys().cloned().collect();
        let failures = bulk::delete(self.invocation, Namespace::Settings, keys).await;
        for (key, was) in deletes {
            // A delete whose answer was lost may have been done all the same, so it is looked
            // after like the others; only the verdict differs.
            let confirmed = !failures.contains_key(&key);
            self.last.insert(key, Done::Deleted { was, confirmed });
        }
    }
}
