//! The wall clock of a handler.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ecom_settings_exporter::ports::{ApiKeyService, Clock, KvStore, Services, SettingsTable};
use ecom_settings_exporter::services::RealServices;

/// The first back-off of a deployed function. The handler's is a millisecond.
const BACK_OFF: Duration = Duration::from_secs(1);

/// The system's clock, until a test stops it.
#[derive(Clone)]
pub struct WallClock {
    stopped_at: Arc<Mutex<Option<SystemTime>>>,
    kv: testbed::clock::Clock,
}

impl WallClock {
    /// A clock of a handler whose back-offs move KV's clock on.
    pub fn new(kv: testbed::clock::Clock) -> Self {
        Self { stopped_at: Arc::default(), kv }
    }

    pub fn stop_at(&self, time: SystemTime) {
        *self.stopped_at.lock().unwrap() = Some(time);
    }
}

pub struct ClockedServices {
    pub real: RealServices,
    pub clock: WallClock,
}

impl Services for ClockedServices {
    fn kv(&self) -> &impl KvStore {
        self.real.kv()
    }

    fn api_keys(&self) -> &impl ApiKeyService {
        self.real.api_keys()
    }

    fn table(&self) -> &impl SettingsTable {
        self.real.table()
    }
}

impl Clock for ClockedServices {
    fn now(&self) -> SystemTime {
        self.clock.stopped_at.lock().unwrap().unwrap_or_else(|| self.real.now())
    }

    /// Asked for once before each back-off, and after the last try.
    fn jitter(&self) -> f64 {
        self.clock.kv.pass(BACK_OFF);
        self.real.jitter()
    }
}
