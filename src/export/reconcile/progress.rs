//! How far a chain of runs has come, and the text that carries it from one run to the next. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enum_map::EnumMap;
use serde::{Deserialize, Serialize};

use super::Reconcile;
use super::brakes::{Allowed, Tally};
use super::report::Findings;
use crate::export::judge::KvKey;
use crate::kv::{Digest, Namespace};

/// What every `continue` starts with. It has to change when the fields do.
const VERSION: &str = "7.";

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPart {
    /// Where it ends.
    pub to: Option<KvKey>,
    pub allowed: EnumMap<Namespace, Allowed>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where the next run begins; `None` where the chain has come to its end.
    pub place: Option<Place>,
    pub open: Option<OpenPart>,
    pub tallies: EnumMap<Namespace, Tally>,
    pub findings: Findings,
    /// Whether something was left to the next chain.
    pub left_out: bool,
    /// What is the same in all runs of a chain.
    chain: Chain,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Chain {
    environment: String,
    apply: bool,
    preview: bool,
    system_account_id: Option<String>,
}

impl Chain {
    fn new(request: &Reconcile, environment: &str) -> Self {
        Self {
            environment: environment.to_owned(),
            apply: request.apply,
            preview: request.preview,
            system_account_id: request.system_account_id.clone(),
        }
    }
}

impl Progress {
    pub fn at_start(request: &Reconcile, environment: &str) -> Self {
        let chain = Chain::new(request, environment);
        Self { place: Some(Place::default()), chain, ..Self::default() }
    }

    /// Returns whether it belongs to a chain with these fields.
    pub fn belongs_to(&self, request: &Reconcile, environment: &str) -> bool {
        self.chain == Chain::new(request, environment)
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

fn checksum(bytes: &[u8]) -> String {
    let mut sum = Digest::of(bytes).to_string();
    sum.truncate(CHECKSUM_CHARACTERS);
    sum
}
