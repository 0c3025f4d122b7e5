//! How far a chain of runs has come, and the text that carries it from one run to the next. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enum_map::EnumMap;
use serde::{Deserialize, Serialize};

use super::Reconcile;
use super::brakes::Tally;
use super::report::{Changes, Findings};
use crate::export::judge::KvKey;
use crate::kv::{Digest, Namespace};

/// What every `continue` starts with. It has to change when the fields do.
const VERSION: &str = "10.";

/// Characters of the checksum that tells whether a `continue` is whole.
const CHECKSUM_CHARACTERS: usize = 16;

/// Where a part begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub key: KvKey,
    /// A cursor of the listing that leads to that key's page; `None` from the beginning.
    pub cursor: Option<String>,
}

/// A part that was compared and counted, and is still to be repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPart {
    /// Where it ends.
    pub to: Option<KvKey>,
    /// What the brakes have let through of it and what is still to be done.
    pub allowed: EnumMap<Namespace, Changes>,
    /// Keys that could not be judged.
    pub unjudged: EnumMap<Namespace, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where the next run begins.
    pub place: Place,
    pub open: Option<OpenPart>,
    pub tallies: EnumMap<Namespace, Tally>,
    pub findings: Findings,
    /// Whether something was left to the next chain.
    pub left_out: bool,
    /// The fields of the request that are the same in all runs of the chain.
    chain: String,
}

impl Progress {
    pub fn at_start(request: &Reconcile, environment: &str) -> Self {
        Self { chain: chain(request, environment), ..Self::default() }
    }

    /// Returns whether a request may continue this chain.
    pub fn belongs_to(&self, request: &Reconcile, environment: &str) -> bool {
        self.chain == chain(request, environment)
    }

    pub fn to_text(&self) -> String {
        // Numbers and strings can always be written.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{VERSION}{}.{}", checksum(&json), URL_SAFE_NO_PAD.encode(json))
    }

    /// Returns `None` where the text isn't ours, or was cut.
    pub fn parse(text: &str) -> Option<Self> {
        let (sum, json) = text.strip_prefix(VERSION)?.split_once('.')?;
        let json = URL_SAFE_NO_PAD.decode(json).ok()?;
        (sum == checksum(&json)).then(|| serde_json::from_slice(&json).ok())?
    }
}

fn chain(request: &Reconcile, environment: &str) -> String {
    let Reconcile { apply, preview, system_account_id, .. } = request;
    format!("{environment} {apply} {preview} {system_account_id:?}")
}

fn checksum(bytes: &[u8]) -> String {
    let mut sum = Digest::of(bytes).to_string();
    sum.truncate(CHECKSUM_CHARACTERS);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::reconcile::Change;

    const ENVIRONMENT: &str = "prod";

    fn repair() -> Reconcile {
        Reconcile { apply: true, ..Reconcile::default() }
    }

    /// The progress of a chain that has come to a key of any characters.
    fn progress(name: &str) -> Progress {
        let mut progress = Progress::at_start(&repair(), ENVIRONMENT);
        let key = KvKey { namespace: Namespace::QueryConfigs, name: name.to_owned() };
        progress.place = Place { key: key.clone(), cursor: Some(name.to_owned()) };
        let mut allowed = EnumMap::<Namespace, Changes>::default();
        allowed[Namespace::Settings][Change::Delete] = 7;
        progress.open = Some(OpenPart { to: Some(key), allowed, unjudged: EnumMap::default() });
        progress.tallies[Namespace::Settings].ours = 3;
        progress.findings.refused[Change::Rewrite] = 5;
        progress
    }

    #[test]
    fn a_text_is_read_as_it_was_written_and_refused_wherever_it_is_cut_or_changed() {
        for name in ["", "\"'\\", "a\nb\r\t\0", "ключ 🗝 ’", &"\u{10ffff}".repeat(128)] {
            let text = progress(name).to_text();
            assert_eq!(Progress::parse(&text), Some(progress(name)));
            assert!((0..text.len()).all(|at| Progress::parse(&text[..at]).is_none()), "{name:?}");
            assert!((1..text.len()).all(|at| Progress::parse(&text[at..]).is_none()), "{name:?}");
            for at in 0..text.len() {
                let mut changed = text.clone();
                changed.replace_range(at..=at, if text[at..].starts_with('A') { "B" } else { "A" });
                assert_eq!(Progress::parse(&changed), None, "{name:?} changed at {at}");
            }
        }
    }

    #[test]
    fn a_chain_belongs_to_requests_with_the_same_fields_in_the_same_environment() {
        let mut raised = repair();
        raised.raised[Change::Delete] = 9;
        let of_account = Reconcile { system_account_id: Some("a".to_owned()), ..repair() };
        let preview = Reconcile { preview: true, ..Reconcile::default() };
        for (name, request, environment, belongs) in [
            ("the same", repair(), ENVIRONMENT, true),
            ("other brakes", raised, ENVIRONMENT, true),
            ("an audit", Reconcile::default(), ENVIRONMENT, false),
            ("one account", of_account, ENVIRONMENT, false),
            ("a preview", preview, ENVIRONMENT, false),
            ("another environment", repair(), "dev", false),
        ] {
            assert_eq!(progress("k").belongs_to(&request, environment), belongs, "{name}");
        }
    }
}
