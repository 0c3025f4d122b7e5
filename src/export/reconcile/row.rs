//! What is known of one key: what KV lists under it, and what items ask for. Pure.

use super::listed::{Listed, Writer, classify};
use crate::index::IndexRef;
use crate::kv::{Digest, Metadata};

/// Bytes of a hash that are kept. 96 bits: with ten million keys the odds that any two share them
/// are below one in 10^15.
const HASH_BYTES: usize = 12;

/// The beginning of a SHA-256.
pub type Hash = [u8; HASH_BYTES];

/// What an item asks for under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A value with this digest.
    Value(Digest),
    /// The item can't be exported: what KV holds stays.
    Rejected,
    /// The API key is unavailable: whether KV is right is open.
    Unknown,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// No item asks for it.
    Unclaimed,
    /// Whether it is right is open.
    Unknown,
    /// KV holds what the item asks for.
    Right,
    /// KV holds something else, or nothing.
    Differs,
    /// The item can't be exported.
    Rejected,
}

pub struct Row {
    /// Of the value in KV, by its metadata.
    pub digest: Option<Hash>,
    /// Of the index that KV's metadata names.
    pub named: Option<[u8; 4]>,
    /// The page of the listing.
    pub page: u16,
    /// What the key is if an item asks for it, and if none does; `None` where KV lacks it.
    pub listed: Option<(Listed, Listed)>,
    pub verdict: KeyState,
    /// Whether several items ask for it.
    pub conflicting: bool,
    /// Whether the item that KV names asks for it.
    pub named_claims: bool,
    /// Whether an item asks for it that may be exported.
    pub desired: bool,
}

/// How many keys there are of each class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartCounts {
    /// Asked for by an item that may be exported.
    pub desired: u64,
    /// In KV. A run of one account leaves out other accounts' keys.
    pub listed: u64,
    /// Those of them that are ours.
    pub ours: u64,
    /// Asked for, and not in KV.
    pub missing: u64,
    /// Asked for, with another value in KV.
    pub stale: u64,
    /// Asked for by an item that could be exported, and another environment's.
    pub taken: u64,
    /// Asked for by several items, or another environment's.
    pub conflicting: u64,
    /// Asked for, and whether KV is right is open.
    pub unknown: u64,
    /// Ours, and nobody asks for them.
    pub unclaimed: u64,
    /// Not ours, and nobody asks for them.
    pub foreign: u64,
}

/// A class of keys that may have to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToWrite {
    /// KV lacks the key.
    Missing,
    /// KV holds another value.
    Stale,
    /// Another environment has written it.
    Taken,
    /// KV names another account for it, which may still ask for it.
    Contested,
}

impl Row {
    /// A key that KV lists; `only_account` is that of a run of one account.
    pub fn listed(
        page: u16,
        metadata: Option<&Metadata>,
        environment: &str,
        only_account: Option<&str>,
    ) -> Self {
        let writer = Writer::of(metadata, environment);
        let digest = metadata.and_then(|metadata| metadata.digest);
        Self {
            digest: digest.filter(|_| writer.index().is_some()).map(|digest| short(&digest)),
            named: writer.index().map(index_hash),
            page,
            listed: Some((
                classify(writer, only_account, true),
                classify(writer, only_account, false),
            )),
            ..Self::unlisted()
        }
    }

    /// A key that KV lacks.
    pub fn unlisted() -> Self {
        Self {
            digest: None,
            named: None,
            page: 0,
            listed: None,
            verdict: KeyState::Unclaimed,
            conflicting: false,
            named_claims: false,
            desired: false,
        }
    }

    /// What the listed key is; `None` where KV lacks it.
    pub fn class(&self) -> Option<Listed> {
        let (if_asked_for, if_not) = self.listed?;
        Some(if self.verdict == KeyState::Unclaimed { if_not } else { if_asked_for })
    }

    /// Whether it is ours and no item asks for it.
    pub fn is_unclaimed(&self) -> bool {
        self.class() == Some(Listed::Unclaimed)
    }

    /// Why it is to be written, if it is.
    pub fn to_write(&self) -> Option<ToWrite> {
        match (self.verdict, self.class()) {
            (KeyState::Differs, None) => Some(ToWrite::Missing),
            (KeyState::Differs, Some(Listed::AskedFor)) => Some(ToWrite::Stale),
            (KeyState::Differs, Some(Listed::Taken)) => Some(ToWrite::Taken),
            (_, Some(Listed::Contested)) => Some(ToWrite::Contested),
            _ => None,
        }
    }

    /// Adds it to the counts.
    pub fn count(&self, counts: &mut PartCounts) {
        let class = self.class();
        let is_taken = class == Some(Listed::Taken);
        let is_open = matches!(class, None | Some(Listed::AskedFor));
        counts.desired += u64::from(self.desired);
        counts.listed += u64::from(!matches!(class, None | Some(Listed::OfAnotherAccount)));
        counts.ours += u64::from(self.named.is_some() && class != Some(Listed::OfAnotherAccount));
        counts.conflicting += u64::from(self.conflicting || is_taken);
        counts.unknown += u64::from(self.verdict == KeyState::Unknown && is_open);
        counts.unclaimed += u64::from(class == Some(Listed::Unclaimed));
        counts.foreign += u64::from(class == Some(Listed::Foreign));
        match self.to_write() {
            Some(ToWrite::Missing) => counts.missing += 1,
            Some(ToWrite::Stale) => counts.stale += 1,
            Some(ToWrite::Taken) => counts.taken += 1,
            Some(ToWrite::Contested) | None => {}
        }
    }
}

/// The hash of a key.
pub fn hash(key: &str) -> Hash {
    short(&Digest::of(key.as_bytes()))
}

/// The beginning of a digest.
pub fn short(digest: &Digest) -> Hash {
    let mut short = [0; HASH_BYTES];
    short.copy_from_slice(&digest.as_bytes()[..HASH_BYTES]);
    short
}

/// Tells the claimants of one key from each other.
pub fn index_hash(index: &IndexRef) -> [u8; 4] {
    let digest = Digest::of(index.to_string().as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    [a, b, c, d]
}
