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

use super::{Due, KeyFacts, named_by};
use crate::export::differs::{ApiKeyCheck, differing_paths};
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

impl JudgedKey<'_> {
    /// Whether the API key that it should hold is not known.
    pub fn lacks_api_key(&self) -> bool {
        matches!(self.facts.due, Due::Value(_, ApiKeyCheck::NotCompared))
    }
}

pub fn judge<'a>(facts: &'a KeyFacts, environment: &str) -> JudgedKey<'a> {
    let stored = facts.stored.as_ref();
    let metadata = stored.and_then(|stored| stored.metadata.as_deref());
    let metadata = metadata.and_then(|json| Metadata::parse(json.get()));
    let is_ours = metadata.as_ref().is_some_and(|metadata| metadata.is_of(environment));
    let of_another_environment = metadata.is_some() && !is_ours;
    let differs = match (stored, &facts.due) {
        (Some(stored), Due::Value(value, api_key)) => {
            differing_paths(&stored.value, value, *api_key)
        }
        _ => Vec::new(),
    };
    let has_its_digest = |stored: &StoredValue| {
        let digest = metadata.as_ref().and_then(|metadata| metadata.digest);
        digest == Some(Digest::of(stored.value.as_bytes()))
    };
    let verdict = match (facts.claimants.len(), stored, &facts.due) {
        (2.., ..) => KeyVerdict::Conflicting,
        (1, ..) if of_another_environment => KeyVerdict::Conflicting,
        (1, _, Due::KeptForRejected) => KeyVerdict::Rejected,
        (1, None, _) => KeyVerdict::Missing,
        (1, Some(stored), _) if differs.is_empty() && has_its_digest(stored) => KeyVerdict::Right,
        (1, Some(_), _) => KeyVerdict::Stale,
        (0, None, _) => KeyVerdict::Dangling,
        (0, Some(_), _) if !is_ours => KeyVerdict::Foreign,
        (0, Some(_), Due::LeftAlone | Due::Value(..)) => KeyVerdict::Foreign,
        (0, Some(_), Due::KeptForRejected) => KeyVerdict::Rejected,
        (0, Some(_), Due::Withheld(_)) => KeyVerdict::Withheld,
        (0, Some(_), Due::Deleted | Due::DeletedUnlessRejected | Due::OfUnknownQueryConfig) => {
            KeyVerdict::Orphaned
        }
    };
    JudgedKey { facts, verdict, named: stored.and_then(named_by), differs, metadata, is_ours }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::metadata::metadata_json;
    use crate::kv::{Source, Stamp};
    use std::collections::BTreeSet;

    const VALUE: &str = r#"{"system_account_id":"a","index_name":"i","marqo_api_key":"k"}"#;

    fn index(name: &str) -> IndexRef {
        IndexRef::parse("a", name).unwrap()
    }

    fn written_by(environment: &str, value: &str) -> Option<StoredValue> {
        let stamp = Stamp {
            exported_at: "2026-11-21T10:00:00.000Z".into(),
            source: Source::Stream,
            environment: environment.into(),
            changed_at: None,
        };
        let metadata = metadata_json(Digest::of(value.as_bytes()), &index("i"), &stamp);
        let metadata = serde_json::from_str(&metadata).ok();
        Some(StoredValue { value: value.to_owned(), metadata })
    }

    fn ours() -> Option<StoredValue> {
        written_by("prod", VALUE)
    }

    fn strangers() -> Option<StoredValue> {
        Some(StoredValue { value: VALUE.to_owned(), metadata: None })
    }

    fn verdict(stored: Option<StoredValue>, claimants: &[&str], due: Due) -> KeyVerdict {
        let claimants: Vec<IndexRef> = claimants.iter().map(|name| index(name)).collect();
        let claimant = claimants.first().cloned();
        let key = "k".to_owned();
        judge(&KeyFacts { key, stored, claimants, claimant, due }, "prod").verdict
    }

    fn value() -> Due {
        Due::Value(VALUE.to_owned(), ApiKeyCheck::Compared)
    }

    fn value_without_api_key() -> Due {
        let value = VALUE.replace(r#""k""#, r#""?""#);
        Due::Value(value, ApiKeyCheck::NotCompared)
    }

    #[test]
    fn row_nothing_is_there_but_an_alias_points_at_it() {
        assert_eq!(verdict(None, &[], Due::LeftAlone), KeyVerdict::Dangling);
    }

    #[test]
    fn row_several_items_ask_for_it() {
        for stored in [None, ours(), strangers(), written_by("test", VALUE)] {
            assert_eq!(verdict(stored, &["i", "j"], value()), KeyVerdict::Conflicting);
        }
        assert_eq!(verdict(ours(), &["i", "j"], Due::KeptForRejected), KeyVerdict::Conflicting);
    }

    #[test]
    fn row_another_environment_has_what_one_item_asks_for() {
        let theirs = || written_by("test", VALUE);
        assert_eq!(verdict(theirs(), &["i"], value()), KeyVerdict::Conflicting);
        assert_eq!(verdict(theirs(), &["i"], Due::KeptForRejected), KeyVerdict::Conflicting);
    }

    #[test]
    fn row_the_item_that_asks_for_it_cannot_be_exported() {
        for stored in [None, ours(), strangers()] {
            assert_eq!(verdict(stored, &["i"], Due::KeptForRejected), KeyVerdict::Rejected);
        }
    }

    #[test]
    fn row_it_lacks() {
        assert_eq!(verdict(None, &["i"], value()), KeyVerdict::Missing);
        assert_eq!(verdict(None, &["i"], value_without_api_key()), KeyVerdict::Missing);
    }

    #[test]
    fn row_it_holds_what_is_asked_for() {
        assert_eq!(verdict(ours(), &["i"], value()), KeyVerdict::Right);
        assert_eq!(verdict(ours(), &["i"], value_without_api_key()), KeyVerdict::Right);
        let stranger = verdict(strangers(), &["i"], value_without_api_key());
        assert_eq!(stranger, KeyVerdict::Stale, "no digest");
    }

    #[test]
    fn row_it_holds_something_else() {
        assert_eq!(verdict(written_by("prod", "{}"), &["i"], value()), KeyVerdict::Stale);
        assert_eq!(verdict(strangers(), &["i"], value()), KeyVerdict::Stale, "no digest");
        let changed = ours().map(|stored| StoredValue { value: "{}".into(), ..stored });
        assert_eq!(verdict(changed, &["i"], value()), KeyVerdict::Stale, "the digest is right");
    }

    #[test]
    fn rows_of_keys_that_no_item_asks_for() {
        let withheld = || Due::Withheld(BTreeSet::new());
        let rows = [
            (Due::KeptForRejected, KeyVerdict::Rejected),
            (withheld(), KeyVerdict::Withheld),
            (Due::Deleted, KeyVerdict::Orphaned),
            (Due::OfUnknownQueryConfig, KeyVerdict::Orphaned),
            (Due::LeftAlone, KeyVerdict::Foreign),
        ];
        for (due, expected) in rows {
            assert_eq!(verdict(ours(), &[], due), expected);
        }
        for stored in [strangers(), written_by("test", VALUE)] {
            for due in [Due::Deleted, withheld(), Due::KeptForRejected] {
                assert_eq!(verdict(stored.clone(), &[], due), KeyVerdict::Foreign);
            }
        }
    }
}
