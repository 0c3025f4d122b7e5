//! The time of the stand-ins.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::sync::lock;

/// The system's clock, until a test moves it, stops it or changes its speed. Clones share it.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Mutex<Time>>);

#[derive(Debug)]
struct Time {
    /// What the clock showed when the system's showed `since`.
    shown: SystemTime,
    since: SystemTime,
    speed: u32,
}

impl Time {
    fn now(&self) -> SystemTime {
        self.shown + self.since.elapsed().unwrap_or_default() * self.speed
    }
}

impl Default for Clock {
    fn default() -> Self {
        let now = SystemTime::now();
        Self(Arc::new(Mutex::new(Time { shown: now, since: now, speed: 1 })))
    }
}

impl Clock {
    pub fn now(&self) -> SystemTime {
        lock(&self.0).now()
    }

    /// From now on, this number of seconds passes in each second; with 0 the clock stands.
    pub fn set_speed(&self, speed: u32) {
        let mut time = lock(&self.0);
        *time = Time { shown: time.now(), since: SystemTime::now(), speed };
    }

    pub fn pass(&self, duration: Duration) {
        lock(&self.0).shown += duration;
    }
}
