//! What can go wrong at a call.

/// A call that is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    KvWrite,
    KvRead,
    Table,
    ApiKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The invocation dies, with the call done or not.
    Crash {
        done: bool,
    },
    /// The call fails, done or not.
    Fail {
        why: Failure,
        done: bool,
    },
    /// Every second key is done, and the call fails.
    Half {
        why: Failure,
    },
    /// Some keys are listed as unsuccessful, done or not.
    Unsuccessful {
        all: bool,
        done: bool,
    },
    /// No response ever comes.
    Hang {
        done: bool,
    },
    /// The client gives up, and the request lands later.
    Straggles,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Transient,
    /// KV asks to wait this many seconds.
    RateLimited(u64),
    TooMuch,
    Refused,
    RefusedContent,
    Auth,
    NoToken,
    /// The API keys service knows no such account.
    NotFound,
}

pub const WRITE_FAULTS: &[Fault] = &[
    Fault::Crash { done: false },
    Fault::Crash { done: true },
    Fault::Fail { why: Failure::Refused, done: false },
    Fault::Fail { why: Failure::Transient, done: true },
    Fault::Unsuccessful { all: false, done: false },
    Fault::Fail { why: Failure::Transient, done: false },
    Fault::Fail { why: Failure::RateLimited(9), done: false },
    Fault::Fail { why: Failure::RateLimited(65), done: false },
    Fault::Fail { why: Failure::TooMuch, done: false },
    Fault::Fail { why: Failure::TooMuch, done: true },
    Fault::Fail { why: Failure::RefusedContent, done: false },
    Fault::Fail { why: Failure::Auth, done: false },
    Fault::Fail { why: Failure::NoToken, done: false },
    Fault::Half { why: Failure::Transient },
    Fault::Half { why: Failure::TooMuch },
    Fault::Unsuccessful { all: true, done: true },
    Fault::Unsuccessful { all: true, done: false },
    Fault::Hang { done: false },
    Fault::Hang { done: true },
];

pub const READ_FAULTS: &[Fault] = &[
    Fault::Crash { done: false },
    Fault::Fail { why: Failure::Refused, done: false },
    Fault::Fail { why: Failure::Transient, done: false },
    Fault::Fail { why: Failure::RateLimited(9), done: false },
    Fault::Fail { why: Failure::RateLimited(65), done: false },
    Fault::Fail { why: Failure::TooMuch, done: false },
    Fault::Fail { why: Failure::RefusedContent, done: false },
    Fault::Fail { why: Failure::Auth, done: false },
    Fault::Hang { done: false },
];

/// Of the table and the API keys service.
pub const OTHER_FAULTS: &[Fault] = &[
    Fault::Crash { done: false },
    Fault::Fail { why: Failure::Refused, done: false },
    Fault::Fail { why: Failure::Transient, done: false },
    Fault::Hang { done: false },
];
