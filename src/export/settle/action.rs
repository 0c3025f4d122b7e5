//! What is done to a key next, given what was decided and what was done before. Pure.
//!
//! | decided | last done | then |
//! | --- | --- | --- |
//! | write | that very value was written | nothing |
//! | write | anything else | written |
//! | withhold, keep, or undecided | it was deleted, and its value is known | put back as it was read |
//! | withhold, keep, or undecided | anything else | nothing |
//! | delete, and a shop id has failed that only its value names | | as if it were undecided, for a retry finds the shop id through it |
//! | delete | it was deleted, and KV confirmed it | nothing |
//! | delete | it was deleted, and KV did not confirm it | the key fails |
//! | delete | anything else | deleted |
//! | leave alone | | nothing |
//! | look again | | looked at again in the next round |

use std::collections::BTreeSet;
use std::rc::Rc;

use super::decide::Decision;
use crate::export::error::KeyError;
use crate::index::IndexRef;
use crate::item::ItemKey;
use crate::kv::{Digest, Entry, StoredValue};
use crate::ports::KvError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOutcome {
    /// It holds this index, as the table has it.
    Written(IndexRef),
    Deleted,
    /// It stays as it is: what it is for can't be exported, or nothing of ours is there.
    Left,
    /// It stays though no item asks for it: these items' active aliases point at it.
    Withheld(BTreeSet<ItemKey>),
    Failed(KeyError),
}

#[derive(Debug, Clone, PartialEq)]
pub enum LastStep {
    /// For this index, a value with this digest.
    Written(IndexRef, Digest),
    Deleted {
        /// What the key held, where KV reported it.
        was: Option<StoredValue>,
        /// Why KV did not confirm it; `None` where it did.
        unconfirmed: Option<KvError>,
    },
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Write(Write),
    /// It is deleted; what it holds is kept for a put-back, where it is known.
    Delete(Option<StoredValue>),
    LookAgain,
}

#[derive(Debug, PartialEq)]
pub enum Write {
    Entry(IndexRef, Rc<Entry>),
    /// What was deleted, as it was read.
    PutBack(StoredValue),
}

/// What comes next for a key, and its outcome if nothing else happens. `shop_id_error` says why the shop
/// id has failed that only the key's value names, if there is one and it has.
pub fn next_action(
    decision: Decision,
    shop_id_error: Option<&KeyError>,
    last: Option<&LastStep>,
) -> (KeyOutcome, Option<Action>) {
    let put_back = || put_back(last).map(Action::Write);
    match (decision, shop_id_error) {
        (Decision::Write(index, entry), _) => {
            let written = LastStep::Written(index.clone(), entry.digest());
            let write = Action::Write(Write::Entry(index.clone(), entry));
            (KeyOutcome::Written(index), (last != Some(&written)).then_some(write))
        }
        (Decision::Withhold(protectors), _) => (KeyOutcome::Withheld(protectors), put_back()),
        (Decision::KeepFor(..), _) => (KeyOutcome::Left, put_back()),
        // What was deleted is put back while the record waits for the API key.
        (Decision::Undecided(error), _) => (KeyOutcome::Failed(error.into()), put_back()),
        (Decision::Delete(_), Some(error)) => (KeyOutcome::Failed(error.clone()), put_back()),
        (Decision::Delete(stored), None) => match last {
            Some(LastStep::Deleted { unconfirmed: None, .. }) => (KeyOutcome::Deleted, None),
            Some(LastStep::Deleted { unconfirmed: Some(error), .. }) => {
                (KeyOutcome::Failed(KeyError::DeleteUnconfirmed(error.clone())), None)
            }
            _ => (KeyOutcome::Deleted, Some(Action::Delete(stored))),
        },
        (Decision::LeaveAlone, _) => (KeyOutcome::Left, None),
        (Decision::LookAgain, _) => {
            (KeyOutcome::Failed(KeyError::ChangedMeanwhile), Some(Action::LookAgain))
        }
    }
}

pub fn put_back(last: Option<&LastStep>) -> Option<Write> {
    match last {
        Some(LastStep::Deleted { was: Some(was), .. }) => Some(Write::PutBack(was.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::api_keys::{ApiKeyUnavailable, WhyNoApiKey};
    use crate::item::Rejection;
    use crate::kv::{Source, Stamp};

    fn index() -> IndexRef {
        IndexRef::parse("a", "i").unwrap()
    }

    fn entry(value: &str) -> Rc<Entry> {
        let stamp = Stamp {
            exported_at: "t".into(),
            source: Source::Stream,
            environment: "prod".into(),
            changed_at: None,
        };
        Rc::new(Entry::new(value, &index(), &stamp))
    }

    fn stored() -> StoredValue {
        let value = r#"{"system_account_id":"a","index_name":"i"}"#.to_owned();
        StoredValue { value, metadata: None }
    }

    fn deleted() -> LastStep {
        LastStep::Deleted { was: Some(stored()), unconfirmed: None }
    }

    fn unconfirmed() -> LastStep {
        LastStep::Deleted { was: Some(stored()), unconfirmed: Some(KvError::OutOfTime) }
    }

    fn deleted_unknown() -> LastStep {
        LastStep::Deleted { was: None, unconfirmed: None }
    }

    fn written(value: &str) -> LastStep {
        LastStep::Written(index(), entry(value).digest())
    }

    fn action(decision: Decision, last: Option<LastStep>) -> Option<Action> {
        next_action(decision, None, last.as_ref()).1
    }

    #[test]
    fn a_write_is_made_unless_that_very_value_was_written() {
        let write = || Decision::Write(index(), entry("v2"));
        assert_eq!(action(write(), Some(written("v2"))), None);
        for last in [None, Some(written("v1")), Some(deleted()), Some(unconfirmed())] {
            let expected = Action::Write(Write::Entry(index(), entry("v2")));
            assert_eq!(action(write(), last), Some(expected));
        }
    }

    #[test]
    fn what_should_have_stayed_is_put_back_as_it_was_read() {
        let decisions = || {
            [
                Decision::Withhold(BTreeSet::new()),
                Decision::KeepFor(index(), Rejection::new("x", "is broken")),
                Decision::Undecided(ApiKeyUnavailable {
                    cell: "c".into(),
                    why: WhyNoApiKey::NotAsked,
                }),
            ]
        };
        for last in [deleted(), unconfirmed()] {
            for decision in decisions() {
                let put_back = Action::Write(Write::PutBack(stored()));
                assert_eq!(action(decision, Some(last.clone())), Some(put_back));
            }
        }
        for last in [None, Some(written("v")), Some(deleted_unknown())] {
            for decision in decisions() {
                assert_eq!(action(decision, last.clone()), None);
            }
        }
    }

    #[test]
    fn a_delete_is_sent_once_and_fails_unless_kv_confirms_it() {
        let next = |last: Option<LastStep>| {
            next_action(Decision::Delete(Some(stored())), None, last.as_ref())
        };
        for last in [None, Some(written("v"))] {
            assert_eq!(next(last), (KeyOutcome::Deleted, Some(Action::Delete(Some(stored())))));
        }
        assert_eq!(next(Some(deleted())), (KeyOutcome::Deleted, None));
        let failed = KeyOutcome::Failed(KeyError::DeleteUnconfirmed(KvError::OutOfTime));
        assert_eq!(next(Some(unconfirmed())), (failed, None));
    }

    #[test]
    fn nothing_is_done_to_what_is_left_alone_or_looked_at_again() {
        assert_eq!(next_action(Decision::LeaveAlone, None, None), (KeyOutcome::Left, None));
        let failed = KeyOutcome::Failed(KeyError::ChangedMeanwhile);
        let look_again = next_action(Decision::LookAgain, None, Some(&deleted()));
        assert_eq!(look_again, (failed, Some(Action::LookAgain)));
    }

    #[test]
    fn what_leads_to_a_shop_id_that_has_failed_is_not_deleted_and_put_back() {
        let next = |last: Option<LastStep>| {
            let error = KeyError::StillChanging;
            next_action(Decision::Delete(Some(stored())), Some(&error), last.as_ref())
        };
        let failed = || KeyOutcome::Failed(KeyError::StillChanging);
        assert_eq!(next(None), (failed(), None));
        let put_back = Action::Write(Write::PutBack(stored()));
        assert_eq!(next(Some(deleted())), (failed(), Some(put_back)));
    }
}
