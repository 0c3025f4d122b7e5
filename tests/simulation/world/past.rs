//! Values over time: what the table and KV held at every step.

/// A moment. Every change of the table or of KV has its own.
pub type Step = u64;

/// The values of something, each with the step at which it began.
#[derive(Debug, Clone)]
pub struct Past<T>(Vec<(Step, T)>);

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

    /// When the last change came.
    pub fn changed(&self) -> Step {
        self.0.last().map_or(0, |(step, _)| *step)
    }

    /// Each value, with the step at which it began and the step at which it ended.
    pub fn spans(&self) -> impl DoubleEndedIterator<Item = (Step, Step, &T)> {
        self.0.iter().enumerate().map(|(at, (step, value))| {
            (*step, self.0.get(at + 1).map_or(Step::MAX, |(next, _)| *next), value)
        })
    }

    /// The values at all times from `from` on.
    pub fn since(&self, from: Step) -> impl DoubleEndedIterator<Item = &T> {
        self.spans().filter(move |(_, end, _)| *end > from).map(|(_, _, value)| value)
    }

    /// The value at a step; `None` before the first.
    pub fn at(&self, step: Step) -> Option<&T> {
        let after = self.0.partition_point(|(from, _)| *from <= step);
        self.0[..after].last().map(|(_, value)| value)
    }

    /// Whether there was a value all the time since `from`, and it always passed the test.
    pub fn all_since(&self, from: Step, test: impl FnMut(&T) -> bool) -> bool {
        self.0.first().is_some_and(|(first, _)| *first <= from) && self.since(from).all(test)
    }
}
