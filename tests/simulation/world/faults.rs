//! What can go wrong at a call. Small worlds have the first faults of each list.

use std::time::Duration;

use ecom_settings_exporter::ports::{Cause, KvError};

use self::Fault::{Crash, Of};
use crate::memory::Keys::{All, EverySecond};
use crate::memory::KvFault::{
    self, Fails, Hangs, IsDoneAndFails, IsDoneAndHangs, IsDoneAndListsAsUnsuccessful,
    ListsAsUnsuccessful,
};

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

pub fn cause() -> Cause {
    Cause::new("scripted")
}

fn transient() -> KvError {
    KvError::Transient(cause())
}

fn rate_limited(seconds: u64) -> KvError {
    KvError::RateLimited(Cause { asked_wait: Some(Duration::from_secs(seconds)), ..cause() })
}

fn too_much() -> KvError {
    KvError::TimedOut(cause())
}

pub const WRITE_FAULTS: &[fn() -> Fault] = &[
    || Crash { done: false },
    || Crash { done: true },
    || Of(Fails(KvError::Refused(cause()))),
    || Of(IsDoneAndFails(All, transient())),
    || Of(ListsAsUnsuccessful(EverySecond)),
    || Of(Fails(transient())),
    || Of(Fails(rate_limited(9))),
    || Of(Fails(rate_limited(65))),
    || Of(Fails(too_much())),
    || Of(IsDoneAndFails(All, too_much())),
    || Of(Fails(KvError::RefusedContent(cause()))),
    || Of(Fails(KvError::AuthRejected(cause()))),
    || Of(IsDoneAndFails(EverySecond, transient())),
    || Of(IsDoneAndFails(EverySecond, too_much())),
    || Of(IsDoneAndListsAsUnsuccessful(All)),
    || Of(ListsAsUnsuccessful(All)),
    || Of(Hangs),
    || Of(IsDoneAndHangs),
];

pub const READ_FAULTS: &[fn() -> Fault] = &[
    || Crash { done: false },
    || Of(Fails(KvError::Refused(cause()))),
    || Of(Fails(transient())),
    || Of(Fails(rate_limited(9))),
    || Of(Fails(rate_limited(65))),
    || Of(Fails(too_much())),
    || Of(Fails(KvError::RefusedContent(cause()))),
    || Of(Fails(KvError::AuthRejected(cause()))),
    || Of(Hangs),
];

/// Of the table and the API keys service.
pub const OTHER_FAULTS: &[fn() -> Fault] = &[
    || Crash { done: false },
    || Of(Fails(KvError::Refused(cause()))),
    || Of(Fails(transient())),
    || Of(Hangs),
];

impl Fault {
    /// A service that is down for several calls.
    pub fn outage() -> Self {
        Of(Fails(transient()))
    }
}
