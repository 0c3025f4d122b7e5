//! Small worlds: so few options that all of their histories can be played. What may interfere is
//! bounded, and so is what can happen.

/// What may still interfere, and what the world is about.
#[derive(Debug, Clone, Copy)]
pub struct Small {
    pub about: About,
    /// Calls that may be overtaken by all others.
    pub delays: u32,
    /// Events that may happen between two calls.
    pub interruptions: u32,
    /// Answers of KV that may be old.
    pub old_answers: u32,
    /// Deliveries that may come more than a minute late.
    pub waits: u32,
    pub faults: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Two indexes that may share a shop id, and an alias from one to the other.
    Settings,
    /// The same with re-exports.
    ReExports,
    /// Two query configs with one key.
    Twins,
    /// One index in two environments that share KV.
    Environments,
}

impl Small {
    pub const NOTHING: Self = Self {
        about: About::Settings,
        delays: 0,
        interruptions: 0,
        old_answers: 0,
        waits: 0,
        faults: 0,
    };
    pub const ONE_FAULT: Self = Self { faults: 1, ..Self::NOTHING };
    /// One call that others overtake, and one event that comes between two calls.
    pub const ONE_RACE: Self = Self { delays: 1, interruptions: 1, ..Self::NOTHING };
    pub const FAULT_AND_RACE: Self = Self { faults: 1, ..Self::ONE_RACE };
    pub const ONE_OLD_ANSWER: Self = Self { old_answers: 1, ..Self::NOTHING };
    pub const ONE_LATE_DELIVERY: Self = Self { waits: 1, ..Self::NOTHING };
    pub const ALL_ONCE: Self =
        Self { old_answers: 1, waits: 1, about: About::ReExports, ..Self::FAULT_AND_RACE };

    pub fn about(self, about: About) -> Self {
        Self { about, ..self }
    }
}
