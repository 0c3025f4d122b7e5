//! Locking, waiting and telling, as all the stand-ins do it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

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

/// What is kept and told to whoever listens.
pub struct Kept<T> {
    all: Mutex<Vec<T>>,
    news: broadcast::Sender<T>,
}

impl<T: Clone> Default for Kept<T> {
    fn default() -> Self {
        Self { all: Mutex::default(), news: broadcast::Sender::new(4_096) }
    }
}

impl<T: Clone> Kept<T> {
    pub fn push(&self, one: T) {
        lock(&self.all).push(one.clone());
        // Without a listener, it is only kept.
        let _ = self.news.send(one);
    }

    /// All from a place on.
    pub fn since(&self, place: usize) -> Vec<T> {
        lock(&self.all).iter().skip(place).cloned().collect()
    }

    pub fn len(&self) -> usize {
        lock(&self.all).len()
    }

    pub fn subscribe(&self) -> broadcast::Receiver<T> {
        self.news.subscribe()
    }
}
