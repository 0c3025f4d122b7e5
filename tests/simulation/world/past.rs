//! Values over time: what the table and KV held at every step.

/// A moment. Every change of the table or of KV has its own.
pub type Step = u64;

/// The values of something, each with the step at which it began.
#[derive(Debug, Clone)]
pub struct Past<T>(Vec<(Step, T)>);

/// When something has to be true of a past.
#[derive(Debug, Clone, Copy)]
pub enum When {
    AlwaysSince(Step),
    EverSince(Step),
}

impl<T> Default for Past<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Past<T> {
    pub fn push(&mut self, step: Step, value: T) {
        self.0.push((step, value));
    }

    pub fn last(&self) -> Option<&T> {
        self.0.last().map(|(_, value)| value)
    }

    /// Each value, with the step at which it began and the step at which it ended.
    pub fn spans(&self) -> impl DoubleEndedIterator<Item = (Step, Step, &T)> {
        self.0.iter().enumerate().map(|(at, (step, value))| {
            (*step, self.0.get(at + 1).map_or(Step::MAX, |(next, _)| *next), value)
        })
    }

    /// The values at all times from `from` on.
    pub fn since(&self, from: Step) -> impl DoubleEndedIterator<Item = &T> {
        let after = self.0.partition_point(|(began, _)| *began <= from);
        self.0[after.saturating_sub(1)..].iter().map(|(_, value)| value)
    }

    /// The value at a step; `None` before the first.
    pub fn at(&self, step: Step) -> Option<&T> {
        let after = self.0.partition_point(|(from, _)| *from <= step);
        self.0[..after].last().map(|(_, value)| value)
    }

    /// Whether the test was true then. Before the first value, nothing is.
    pub fn was(&self, when: When, test: impl Fn(&T) -> bool) -> bool {
        match when {
            When::AlwaysSince(from) => self.at(from).is_some() && self.since(from).all(test),
            When::EverSince(from) => self.since(from).any(test),
        }
    }
}
