//! Locking and waiting, as all the stand-ins do it.

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
