//! The wall clock of a handler.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ecom_settings_exporter::ports::{Clock, Services};
use ecom_settings_exporter::services::{RealServices, SystemClock};

/// The system's clock, until a test stops it.
#[derive(Clone, Default)]
pub struct WallClock(Arc<Mutex<Option<SystemTime>>>);

impl WallClock {
    /// Stops it at this time.
    pub fn stop_at(&self, time: SystemTime) {
        *self.0.lock().unwrap() = Some(time);
    }
}

impl Clock for WallClock {
    fn now(&self) -> SystemTime {
        self.0.lock().unwrap().unwrap_or_else(|| SystemClock.now())
    }

    fn jitter(&self) -> f64 {
        SystemClock.jitter()
    }
}

/// The real services with that clock.
pub struct ClockedServices {
    pub real: RealServices,
    pub clock: WallClock,
}

impl Services for ClockedServices {
    type Kv = <RealServices as Services>::Kv;
    type ApiKeys = <RealServices as Services>::ApiKeys;
    type Table = <RealServices as Services>::Table;
    type Clock = WallClock;

    fn kv(&self) -> &Self::Kv {
        self.real.kv()
    }

    fn api_keys(&self) -> &Self::ApiKeys {
        self.real.api_keys()
    }

    fn table(&self) -> &Self::Table {
        self.real.table()
    }

    fn clock(&self) -> &WallClock {
        &self.clock
    }

    fn take_secret_readings(&self) -> Vec<Duration> {
        self.real.take_secret_readings()
    }
}
