//! What a listed key is to a run, by who wrote it and whether an item asks for it. Pure.

use crate::index::IndexRef;
use crate::kv::Metadata;

/// Who wrote a listed key, by its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer<'a> {
    /// This environment's exporter, for this index.
    Ours(&'a IndexRef),
    /// Another environment's exporter.
    AnotherEnvironment,
    /// Nobody's exporter, or one that wrote no metadata.
    Stranger,
}

impl<'a> Writer<'a> {
    /// Who wrote a key, as the exporter of `environment` sees it.
    pub fn of(metadata: Option<&'a Metadata>, environment: &str) -> Self {
        match metadata {
            None => Self::Stranger,
            Some(metadata) if metadata.is_of(environment) => Self::Ours(&metadata.index),
            Some(_) => Self::AnotherEnvironment,
        }
    }

    /// The index that it was written for, if it is ours.
    pub fn index(self) -> Option<&'a IndexRef> {
        match self {
            Self::Ours(index) => Some(index),
            Self::AnotherEnvironment | Self::Stranger => None,
        }
    }
}

/// What a listed key is to this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// None of its business: it is limited to one account, which neither has nor wants the key.
    OfAnotherAccount,
    /// Asked for, and another environment has it.
    Taken,
    /// Asked for by the one account, and KV names another account for it.
    Contested,
    /// Asked for: its value is compared.
    AskedFor,
    /// Ours, and no item asks for it.
    Unclaimed,
    /// A stranger's or another environment's, and no item asks for it.
    Foreign,
}

/// Classifies a listed key; `only_account` is that of a run of one account.
pub fn classify(writer: Writer<'_>, only_account: Option<&str>, asked_for: bool) -> Listed {
    let of_another_account = only_account
        .is_some_and(|account| writer.index().is_none_or(|index| index.account != account));
    match (writer, asked_for) {
        (_, false) if of_another_account => Listed::OfAnotherAccount,
        (Writer::AnotherEnvironment, true) => Listed::Taken,
        (Writer::Ours(_), true) if of_another_account => Listed::Contested,
        (_, true) => Listed::AskedFor,
        (Writer::Ours(_), false) => Listed::Unclaimed,
        (Writer::AnotherEnvironment | Writer::Stranger, false) => Listed::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(account: &str) -> IndexRef {
        IndexRef::parse(account, "i").unwrap()
    }

    #[test]
    fn a_key_that_is_asked_for_is_compared_unless_another_environment_has_it() {
        let ours = index("a");
        for (writer, listed) in [
            (Writer::Ours(&ours), Listed::AskedFor),
            (Writer::Stranger, Listed::AskedFor),
            (Writer::AnotherEnvironment, Listed::Taken),
        ] {
            assert_eq!(classify(writer, None, true), listed);
            assert_eq!(classify(writer, Some("a"), true), listed);
        }
    }

    #[test]
    fn a_key_that_no_item_asks_for_is_foreign_unless_it_is_ours() {
        let ours = index("a");
        assert_eq!(classify(Writer::Ours(&ours), None, false), Listed::Unclaimed);
        assert_eq!(classify(Writer::Ours(&ours), Some("a"), false), Listed::Unclaimed);
        for writer in [Writer::Stranger, Writer::AnotherEnvironment] {
            assert_eq!(classify(writer, None, false), Listed::Foreign);
        }
    }

    #[test]
    fn a_run_of_one_account_contests_another_ones_key_and_passes_over_the_rest() {
        let other = index("b");
        assert_eq!(classify(Writer::Ours(&other), Some("a"), true), Listed::Contested);
        for writer in [Writer::Ours(&other), Writer::Stranger, Writer::AnotherEnvironment] {
            assert_eq!(classify(writer, Some("a"), false), Listed::OfAnotherAccount);
        }
    }

    #[test]
    fn metadata_says_who_wrote_a_key() {
        let metadata = |environment: Option<&str>| Metadata {
            index: index("a"),
            environment: environment.map(str::to_owned),
            digest: None,
        };
        for ours in [metadata(None), metadata(Some("prod"))] {
            assert_eq!(Writer::of(Some(&ours), "prod"), Writer::Ours(&index("a")));
        }
        assert_eq!(Writer::of(Some(&metadata(Some("test"))), "prod"), Writer::AnotherEnvironment);
        assert_eq!(Writer::of(None, "prod"), Writer::Stranger);
    }
}
