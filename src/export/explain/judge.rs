//! What a key is: reconcile's word for it, and where its value differs. Pure.
//!
//! | KV holds | items that ask for the key | verdict |
//! | --- | --- | --- |
//! | nothing | none, and aliases point at its index | dangling |
//! | anything | several | conflicting |
//! | a value of another environment | one | conflicting |
//! | anything | one that can't be exported | rejected |
//! | nothing | one | missing |
//! | its value, and its digest in the metadata | one | right |
//! | anything else | one | stale |
//! | ours, of an index whose item can't be exported | none | rejected |
//! | ours, and an alias needs it | none | withheld |
//! | ours | none | orphaned |
//! | a stranger's, another environment's, or ours that names no index | none | foreign |

use serde::Serialize;

use super::gathered::{KeyFacts, Unclaimed, Wanted};
use crate::export::differs::{ApiKeyCheck, differing_paths};
use crate::export::reconcile::listed::{Listed, Writer, classify};
use crate::kv::{Digest, Metadata, Provenance, StoredValue};

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds what the table asks for.
    Right,
    /// KV lacks it.
    Missing,
    /// It holds something else than the table asks for.
    Stale,
    /// It is ours, and no item asks for it.
    Orphaned,
    /// It would be orphaned, but an active alias needs it.
    Withheld,
    /// It isn't ours, and no item asks for it.
    Foreign,
    /// Several items ask for it, or one does and another environment has written it.
    Conflicting,
    /// The item that it is for can't be exported: it stays as it is.
    Rejected,
    /// Active aliases point at its index, and there is neither an item nor the key.
    Dangling,
}

/// A key, judged.
#[derive(Debug)]
pub struct Judged<'a> {
    /// The key and what is known of it.
    pub facts: &'a KeyFacts,
    /// What it is.
    pub verdict: Verdict,
    /// Where its value differs from what the table asks for.
    pub differs: Vec<String>,
    /// When, by what and where it was written.
    pub provenance: Provenance,
    /// Whether another environment wrote it.
    pub of_another_environment: bool,
}

impl Judged<'_> {
    /// Whether all was compared but the API key.
    pub fn is_without_api_key(&self) -> bool {
        matches!(self.facts.wanted, Wanted::ValueWithoutApiKey(_)) && self.facts.stored.is_some()
    }
}

/// Judges a key as the exporter of `environment` sees it.
pub fn judge<'a>(facts: &'a KeyFacts, environment: &str) -> Judged<'a> {
    let metadata = facts.stored.as_ref().and_then(|stored| stored.metadata.as_deref());
    let provenance = metadata.map(|json| Provenance::parse(json.get())).unwrap_or_default();
    let metadata = metadata.and_then(|json| Metadata::parse(json.get()));
    let writer = Writer::of(metadata.as_ref(), environment);
    let differs = facts.stored.as_ref().map(|stored| differences(stored, &facts.wanted));
    let listed =
        facts.stored.is_some().then(|| classify(writer, None, !facts.claimants.is_empty()));
    let is_right = || {
        let digest = metadata.as_ref().and_then(|metadata| metadata.digest);
        let held = facts.stored.as_ref().map(|stored| Digest::of(stored.value.as_bytes()));
        differs.as_ref().is_some_and(Vec::is_empty) && digest.is_some() && digest == held
    };
    let verdict = match (listed, &facts.wanted) {
        (None, Wanted::Unclaimed(_)) => Verdict::Dangling,
        (Some(Listed::Taken), _) => Verdict::Conflicting,
        _ if facts.claimants.len() > 1 => Verdict::Conflicting,
        (_, Wanted::WhatIsThere) => Verdict::Rejected,
        (None, _) => Verdict::Missing,
        (Some(Listed::Unclaimed), Wanted::Unclaimed(unclaimed)) => match unclaimed {
            Unclaimed::Deleted | Unclaimed::OfUnknownQueryConfig => Verdict::Orphaned,
            Unclaimed::Withheld(_) => Verdict::Withheld,
            Unclaimed::KeptForRejected => Verdict::Rejected,
            Unclaimed::LeftAlone => Verdict::Foreign,
        },
        (_, Wanted::Unclaimed(_)) => Verdict::Foreign,
        (Some(_), _) if is_right() => Verdict::Right,
        (Some(_), _) => Verdict::Stale,
    };
    Judged {
        facts,
        verdict,
        differs: differs.unwrap_or_default(),
        provenance,
        of_another_environment: writer == Writer::AnotherEnvironment,
    }
}

fn differences(stored: &StoredValue, wanted: &Wanted) -> Vec<String> {
    match wanted {
        Wanted::Value(wanted) => differing_paths(&stored.value, wanted, ApiKeyCheck::Compared),
        Wanted::ValueWithoutApiKey(wanted) => {
            differing_paths(&stored.value, wanted, ApiKeyCheck::NotCompared)
        }
        Wanted::WhatIsThere | Wanted::Unclaimed(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::IndexRef;
    use crate::kv::metadata::metadata_json;
    use crate::kv::{Source, Stamp};
    use serde_json::value::RawValue;
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
        let metadata = RawValue::from_string(metadata).ok();
        Some(StoredValue { value: value.to_owned(), metadata })
    }

    fn ours() -> Option<StoredValue> {
        written_by("prod", VALUE)
    }

    fn strangers() -> Option<StoredValue> {
        Some(StoredValue { value: VALUE.to_owned(), metadata: None })
    }

    fn verdict(stored: Option<StoredValue>, claimants: &[&str], wanted: Wanted) -> Verdict {
        let claimants: Vec<IndexRef> = claimants.iter().map(|name| index(name)).collect();
        let owner = claimants.first().cloned();
        let key = "k".to_owned();
        judge(&KeyFacts { key, stored, named: None, claimants, owner, wanted }, "prod").verdict
    }

    fn value() -> Wanted {
        Wanted::Value(VALUE.to_owned())
    }

    fn unclaimed(unclaimed: Unclaimed) -> Wanted {
        Wanted::Unclaimed(unclaimed)
    }

    #[test]
    fn row_nothing_is_there_but_an_alias_points_at_it() {
        assert_eq!(verdict(None, &[], unclaimed(Unclaimed::LeftAlone)), Verdict::Dangling);
    }

    #[test]
    fn row_several_items_ask_for_it() {
        for stored in [None, ours(), strangers(), written_by("test", VALUE)] {
            assert_eq!(verdict(stored, &["i", "j"], value()), Verdict::Conflicting);
        }
        assert_eq!(verdict(ours(), &["i", "j"], Wanted::WhatIsThere), Verdict::Conflicting);
    }

    #[test]
    fn row_another_environment_has_what_one_item_asks_for() {
        let theirs = || written_by("test", VALUE);
        assert_eq!(verdict(theirs(), &["i"], value()), Verdict::Conflicting);
        assert_eq!(verdict(theirs(), &["i"], Wanted::WhatIsThere), Verdict::Conflicting);
    }

    #[test]
    fn row_the_item_that_asks_for_it_cannot_be_exported() {
        for stored in [None, ours(), strangers()] {
            assert_eq!(verdict(stored, &["i"], Wanted::WhatIsThere), Verdict::Rejected);
        }
    }

    #[test]
    fn row_it_lacks() {
        assert_eq!(verdict(None, &["i"], value()), Verdict::Missing);
        let without = Wanted::ValueWithoutApiKey(VALUE.to_owned());
        assert_eq!(verdict(None, &["i"], without), Verdict::Missing);
    }

    #[test]
    fn row_it_holds_what_is_asked_for() {
        assert_eq!(verdict(ours(), &["i"], value()), Verdict::Right);
        let without = || Wanted::ValueWithoutApiKey(VALUE.replace(r#""k""#, r#""?""#));
        assert_eq!(verdict(ours(), &["i"], without()), Verdict::Right);
        assert_eq!(verdict(strangers(), &["i"], without()), Verdict::Stale, "no digest");
    }

    #[test]
    fn row_it_holds_something_else() {
        assert_eq!(verdict(written_by("prod", "{}"), &["i"], value()), Verdict::Stale);
        assert_eq!(verdict(strangers(), &["i"], value()), Verdict::Stale, "no digest");
        let changed = ours().map(|stored| StoredValue { value: "{}".into(), ..stored });
        assert_eq!(verdict(changed, &["i"], value()), Verdict::Stale, "the digest is right");
    }

    #[test]
    fn rows_of_keys_that_no_item_asks_for() {
        let withheld = || unclaimed(Unclaimed::Withheld(BTreeSet::new()));
        let rows = [
            (unclaimed(Unclaimed::KeptForRejected), Verdict::Rejected),
            (withheld(), Verdict::Withheld),
            (unclaimed(Unclaimed::Deleted), Verdict::Orphaned),
            (unclaimed(Unclaimed::OfUnknownQueryConfig), Verdict::Orphaned),
            (unclaimed(Unclaimed::LeftAlone), Verdict::Foreign),
        ];
        for (wanted, expected) in rows {
            assert_eq!(verdict(ours(), &[], wanted), expected);
        }
        for stored in [strangers(), written_by("test", VALUE)] {
            for wanted in [unclaimed(Unclaimed::Deleted), withheld()] {
                assert_eq!(verdict(stored.clone(), &[], wanted), Verdict::Foreign);
            }
        }
    }
}
