//! What can go wrong at a call. Small worlds have the first faults of each list.

use std::time::Duration;

use ecom_settings_exporter::ports::ErrorKind::{
    self, AuthRejected, RateLimited, Refused, RefusedContent, TimedOut, Transient,
};
use ecom_settings_exporter::ports::ServiceError;

use self::Fault::{Crash, Of};
use crate::memory::Keys::{self, All, EverySecond};
use crate::memory::KvFault::{
    self, Fails, Hangs, IsDoneAndFails, IsDoneAndHangs, IsDoneAndListsAsUnsuccessful,
    ListsAsUnsuccessful,
};
use crate::memory::kv_error;

/// A call that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    KvWrite,
    KvRead,
    Table,
    ApiKey,
}

#[derive(Debug)]
pub enum Fault {
    None,
    /// The invocation dies, with the call done or not.
    Crash {
        done: bool,
    },
    /// The client gives up, and the request lands later.
    Straggles,
    /// As a fault of KV is told; of the other services, only failures and hanging.
    Of(KvFault),
}

fn fails(kind: ErrorKind) -> Fault {
    Of(Fails(kv_error(kind)))
}

fn is_done_and_fails(keys: Keys, kind: ErrorKind) -> Fault {
    Of(IsDoneAndFails(keys, kv_error(kind)))
}

fn is_rate_limited(seconds: u64) -> Fault {
    let asked_wait = Some(Duration::from_secs(seconds));
    Of(Fails(ServiceError { asked_wait, ..kv_error(RateLimited) }))
}

pub const WRITE_FAULTS: &[fn() -> Fault] = &[
    || Crash { done: false },
    || Crash { done: true },
    || fails(Refused),
    || is_done_and_fails(All, Transient),
    || Of(ListsAsUnsuccessful(EverySecond)),
    || fails(Transient),
    || is_rate_limited(9),
    || is_rate_limited(65),
    || fails(TimedOut),
    || is_done_and_fails(All, TimedOut),
    || fails(RefusedContent),
    || fails(AuthRejected),
    || is_done_and_fails(EverySecond, Transient),
    || is_done_and_fails(EverySecond, TimedOut),
    || Of(IsDoneAndListsAsUnsuccessful(All)),
    || Of(ListsAsUnsuccessful(All)),
    || Of(Hangs),
    || Of(IsDoneAndHangs),
];

pub const READ_FAULTS: &[fn() -> Fault] = &[
    || Crash { done: false },
    || fails(Refused),
    || fails(Transient),
    || is_rate_limited(9),
    || is_rate_limited(65),
    || fails(TimedOut),
    || fails(RefusedContent),
    || fails(AuthRejected),
    || Of(Hangs),
];

/// Of the table and the API keys service.
pub const OTHER_FAULTS: &[fn() -> Fault] =
    &[|| Crash { done: false }, || fails(Refused), || fails(Transient), || Of(Hangs)];

impl Fault {
    /// A service that is down for several calls.
    pub fn outage() -> Self {
        fails(Transient)
    }
}
