//! The requests that a KV stand-in got.

use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KvVerb {
    PutBulk,
    DeleteBulk,
    GetBulk,
    ListKeys,
}

impl KvVerb {
    pub fn writes(self) -> bool {
        matches!(self, Self::PutBulk | Self::DeleteBulk)
    }
}

impl std::fmt::Display for KvVerb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PutBulk => "PUT bulk",
            Self::DeleteBulk => "POST bulk/delete",
            Self::GetBulk => "POST bulk/get",
            Self::ListKeys => "GET keys",
        })
    }
}

/// A request, even if it was refused or hit by a fault.
#[derive(Debug, Clone)]
pub struct KvRequest {
    pub verb: KvVerb,
    pub namespace: String,
    /// The keys that it names, in its order. Empty for a listing and for a malformed body.
    pub keys: Vec<String>,
    pub body_bytes: usize,
    /// When it had been read.
    pub received_at: Instant,
    /// When its reply was ready; `None` while it runs, and if the client gave up.
    pub finished_at: Option<Instant>,
    /// The status of its reply; `None` if the connection was broken.
    pub status: Option<u16>,
}
