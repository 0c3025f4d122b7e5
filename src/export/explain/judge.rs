//! What a key is: reconcile's word for it, and where its value differs. Pure.
//!
//! | items that ask for the key | KV holds | verdict |
//! | --- | --- | --- |
//! | several | anything | conflicting |
//! | one | a value of another environment | conflicting |
//! | one that can't be exported | anything else | rejected |
//! | one | nothing | missing |
//! | one | its value, and its digest in the metadata | right |
//! | one | anything else | stale |
//! | none, and aliases point at its index | nothing | dangling |
//! | none | a stranger's value, another environment's, or one that names no index | foreign |
//! | none | ours, of an index whose item can't be exported | rejected |
//! | none | ours, and an alias needs it | withheld |
//! | none | any other of ours | orphaned |

use serde::Serialize;

use super::{KeyFacts, named_by};
use crate::export::differs::{ApiKeyCheck, differing_paths};
use crate::export::settle::decide::Decision;
use crate::index::IndexRef;
use crate::kv::{Digest, Metadata, StoredValue};

/// What a key is, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyVerdict {
    Conflicting,
    Missing,
    Stale,
    Dangling,
    Withheld,
    Orphaned,
    Rejected,
    Foreign,
    Right,
}

pub struct JudgedKey<'a> {
    pub facts: &'a KeyFacts,
    pub verdict: KeyVerdict,
    /// The index that its value names, or else its metadata.
    pub named: Option<IndexRef>,
    pub differs: Vec<String>,
    /// The metadata, where an exporter wrote it.
    pub metadata: Option<Metadata>,
    /// Whether this environment's exporter wrote it.
    pub is_ours: bool,
}

pub fn judge<'a>(facts: &'a KeyFacts, of_query_config: bool, environment: &str) -> JudgedKey<'a> {
    let stored = facts.stored.as_ref();
    let metadata = stored.and_then(|stored| stored.metadata.as_deref());
    let metadata = metadata.and_then(|json| Metadata::parse(json.get()));
    let is_ours = metadata.as_ref().is_some_and(|metadata| metadata.is_of(environment));
    let of_another_environment = metadata.is_some() && !is_ours;
    let differs = match (stored, &facts.decision, &facts.without_api_key) {
        (Some(stored), Decision::Write(_, entry), _) => {
            differing_paths(&stored.value, &entry.to_stored().value, ApiKeyCheck::Compared)
        }
        (Some(stored), _, Some(value)) => {
            differing_paths(&stored.value, value, ApiKeyCheck::NotCompared)
        }
        _ => Vec::new(),
    };
    let has_its_digest = |stored: &StoredValue| {
        let digest = metadata.as_ref().and_then(|metadata| metadata.digest);
        digest == Some(Digest::of(stored.value.as_bytes()))
    };
    let verdict = match (facts.claimants.len(), stored, &facts.decision) {
        (2.., ..) => KeyVerdict::Conflicting,
        (1, ..) if of_another_environment => KeyVerdict::Conflicting,
        (1, _, Decision::KeepFor(..)) => KeyVerdict::Rejected,
        (1, None, _) => KeyVerdict::Missing,
        (1, Some(stored), _) if differs.is_empty() && has_its_digest(stored) => KeyVerdict::Right,
        (1, Some(_), _) => KeyVerdict::Stale,
        (0, None, _) => KeyVerdict::Dangling,
        (0, Some(_), _) if !is_ours => KeyVerdict::Foreign,
        (0, Some(_), Decision::LeaveAlone) if !of_query_config => KeyVerdict::Foreign,
        (0, Some(_), Decision::KeepFor(..)) => KeyVerdict::Rejected,
        (0, Some(_), Decision::Withhold(_)) => KeyVerdict::Withheld,
        (0, Some(_), _) => KeyVerdict::Orphaned,
    };
    JudgedKey { facts, verdict, named: stored.and_then(named_by), differs, metadata, is_ours }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::api_keys::{ApiKeyUnavailable, WhyNoApiKey};
    use crate::item::Rejection;
    use crate::kv::{Entry, Source, Stamp};
    use std::collections::BTreeSet;
    use std::rc::Rc;

    const VALUE: &str = r#"{"system_account_id":"a","index_name":"i","marqo_api_key":"k"}"#;

    fn index(name: &str) -> IndexRef {
        IndexRef::parse("a", name).unwrap()
    }

    fn entry(environment: &str, value: &str) -> Rc<Entry> {
        let stamp = Stamp {
            exported_at: "2026-11-21T10:00:00.000Z".into(),
            source: Source::Stream,
            environment: environment.into(),
            changed_at: None,
        };
        Rc::new(Entry::new(value, &index("i"), &stamp))
    }

    fn written_by(environment: &str, value: &str) -> Option<StoredValue> {
        Some(entry(environment, value).to_stored())
    }

    fn ours() -> Option<StoredValue> {
        written_by("prod", VALUE)
    }

    fn strangers() -> Option<StoredValue> {
        Some(StoredValue { value: VALUE.to_owned(), metadata: None })
    }

    /// What is asked for.
    enum Due {
        Value,
        WithoutApiKey,
        Other(Decision),
    }

    fn verdict(stored: Option<StoredValue>, claimants: &[&str], due: Due) -> KeyVerdict {
        verdict_in(false, stored, claimants, due)
    }

    fn verdict_in(
        of_query_config: bool,
        stored: Option<StoredValue>,
        claimants: &[&str],
        due: Due,
    ) -> KeyVerdict {
        let claimants: Vec<IndexRef> = claimants.iter().map(|name| index(name)).collect();
        let why = WhyNoApiKey::NotAsked;
        let (decision, without_api_key) = match due {
            Due::Value => (Decision::Write(index("i"), entry("prod", VALUE)), None),
            Due::WithoutApiKey => {
                let undecided = Decision::Undecided(ApiKeyUnavailable { cell: "c".into(), why });
                (undecided, Some(VALUE.replace(r#""k""#, r#""?""#)))
            }
            Due::Other(decision) => (decision, None),
        };
        let key = "k".to_owned();
        let facts = KeyFacts { key, stored, claimants, decision, without_api_key };
        judge(&facts, of_query_config, "prod").verdict
    }

    fn kept_for_rejected() -> Due {
        Due::Other(Decision::KeepFor(index("i"), Rejection::new("x", "is broken")))
    }

    #[test]
    fn row_nothing_is_there_but_an_alias_points_at_it() {
        assert_eq!(verdict(None, &[], Due::Other(Decision::LeaveAlone)), KeyVerdict::Dangling);
    }

    #[test]
    fn row_several_items_ask_for_it() {
        for stored in [None, ours(), strangers(), written_by("test", VALUE)] {
            assert_eq!(verdict(stored, &["i", "j"], Due::Value), KeyVerdict::Conflicting);
        }
        assert_eq!(verdict(ours(), &["i", "j"], kept_for_rejected()), KeyVerdict::Conflicting);
    }

    #[test]
    fn row_another_environment_has_what_one_item_asks_for() {
        let theirs = || written_by("test", VALUE);
        assert_eq!(verdict(theirs(), &["i"], Due::Value), KeyVerdict::Conflicting);
        assert_eq!(verdict(theirs(), &["i"], kept_for_rejected()), KeyVerdict::Conflicting);
    }

    #[test]
    fn row_the_item_that_asks_for_it_cannot_be_exported() {
        for stored in [None, ours(), strangers()] {
            assert_eq!(verdict(stored, &["i"], kept_for_rejected()), KeyVerdict::Rejected);
        }
    }

    #[test]
    fn row_it_lacks() {
        assert_eq!(verdict(None, &["i"], Due::Value), KeyVerdict::Missing);
        assert_eq!(verdict(None, &["i"], Due::WithoutApiKey), KeyVerdict::Missing);
    }

    #[test]
    fn row_it_holds_what_is_asked_for() {
        assert_eq!(verdict(ours(), &["i"], Due::Value), KeyVerdict::Right);
        assert_eq!(verdict(ours(), &["i"], Due::WithoutApiKey), KeyVerdict::Right);
        let stranger = verdict(strangers(), &["i"], Due::WithoutApiKey);
        assert_eq!(stranger, KeyVerdict::Stale, "no digest");
    }

    #[test]
    fn row_it_holds_something_else() {
        assert_eq!(verdict(written_by("prod", "{}"), &["i"], Due::Value), KeyVerdict::Stale);
        assert_eq!(verdict(strangers(), &["i"], Due::Value), KeyVerdict::Stale, "no digest");
        let changed = ours().map(|stored| StoredValue { value: "{}".into(), ..stored });
        assert_eq!(verdict(changed, &["i"], Due::Value), KeyVerdict::Stale, "the digest is right");
    }

    #[test]
    fn rows_of_keys_that_no_item_asks_for() {
        let withheld = || Due::Other(Decision::Withhold(BTreeSet::new()));
        let deleted = || Due::Other(Decision::Delete(ours()));
        let left_alone = || Due::Other(Decision::LeaveAlone);
        let rows = [
            (kept_for_rejected(), KeyVerdict::Rejected),
            (withheld(), KeyVerdict::Withheld),
            (deleted(), KeyVerdict::Orphaned),
            (left_alone(), KeyVerdict::Foreign),
        ];
        for (due, expected) in rows {
            assert_eq!(verdict(ours(), &[], due), expected);
        }
        assert_eq!(verdict_in(true, ours(), &[], left_alone()), KeyVerdict::Orphaned);
        for stored in [strangers(), written_by("test", VALUE)] {
            for due in [deleted(), withheld(), kept_for_rejected()] {
                assert_eq!(verdict(stored.clone(), &[], due), KeyVerdict::Foreign);
            }
        }
    }
}
