//! Locking, waiting and keeping, as all the stand-ins do it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks even after a panic in another thread, so that the first failure of a test stays visible.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits, unless the duration is zero: a timer costs a millisecond even then.
pub async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

/// What is kept in the order in which it came.
pub struct Kept<T>(Mutex<Vec<T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Kept<T> {
    pub fn push(&self, one: T) {
        lock(&self.0).push(one);
    }

    /// All from a place on.
    pub fn since(&self, place: usize) -> Vec<T> {
        lock(&self.0).iter().skip(place).cloned().collect()
    }

    pub fn len(&self) -> usize {
        lock(&self.0).len()
    }
}
