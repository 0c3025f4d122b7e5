//! How long the changes of a batch took from the table to KV.

use std::time::Duration;

/// The embedded metric format takes 100 values of a metric in a line.
const MAX_VALUES: usize = 100;

/// The lag of each record; of more than 100 records, 100 values that are spread like all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lags(Vec<Duration>);

impl Lags {
    /// Keeps every lag, or the longest of each hundredth of them.
    pub fn of(lags: impl IntoIterator<Item = Duration>) -> Self {
        let mut lags: Vec<Duration> = lags.into_iter().collect();
        lags.sort_unstable();
        if lags.len() > MAX_VALUES {
            let last_of =
                |hundredth: usize| ((hundredth + 1) * lags.len()).div_ceil(MAX_VALUES) - 1;
            lags = (0..MAX_VALUES).map(|hundredth| lags[last_of(hundredth)]).collect();
        }
        Self(lags)
    }

    /// The longest.
    pub fn longest(&self) -> Option<Duration> {
        self.0.last().copied()
    }

    /// All that are kept, ascending.
    pub fn values(&self) -> &[Duration] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        seconds.into_iter().map(Duration::from_secs).collect()
    }

    #[test]
    fn up_to_a_hundred_records_have_a_value_each() {
        let lags = Lags::of(seconds([3, 1, 2]));
        assert_eq!(lags.values(), seconds([1, 2, 3]));
        assert_eq!(lags.longest(), Some(Duration::from_secs(3)));
        assert_eq!(Lags::of(seconds(0..100)).values().len(), 100);
        assert_eq!(Lags::default().longest(), None);
    }

    #[test]
    fn more_records_are_told_by_a_hundred_values_that_include_the_longest() {
        let lags = Lags::of(seconds(1..=1_000));
        assert_eq!(lags.values(), seconds((1..=100).map(|hundredth| hundredth * 10)));
        let lags = Lags::of(seconds(1..=101));
        assert_eq!((lags.values().len(), lags.longest()), (100, Some(Duration::from_secs(101))));
    }
}
