//! What requests take, and what the function's work on their answers takes of its share of a CPU.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Times of requests and of the work on them.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A page of a KV listing.
    pub list: Duration,
    /// Any other request to KV.
    pub kv: Duration,
    /// A page of a scan.
    pub page: Duration,
    /// A read of up to 100 items.
    pub get: Duration,
    /// An API key.
    pub api_key: Duration,
    /// The part of a CPU that the function has. Lambda gives one at 1,769 MB, and 256 MB their share.
    pub cpu: f64,
}

/// What the work takes on a whole CPU.
const CPU_OF_A_SETTINGS_ITEM: Duration = Duration::from_micros(25);
const CPU_OF_A_QUERY_CONFIG: Duration = Duration::from_micros(6);
/// An item of which settling asks for a few attributes.
const CPU_OF_A_CLAIM: Duration = Duration::from_micros(5);
const CPU_OF_A_LISTED_KEY: Duration = Duration::from_micros(3);
const CPU_OF_A_REQUEST: Duration = Duration::from_micros(200);

impl Pace {
    /// The template's 256 MB.
    pub const TEMPLATE: Self = Self {
        list: Duration::from_millis(200),
        kv: Duration::from_millis(300),
        page: Duration::from_millis(100),
        get: Duration::from_millis(20),
        api_key: Duration::from_millis(20),
        cpu: 256.0 / 1_769.0,
    };
}

/// What is to be worked on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    pub settings: usize,
    pub query_configs: usize,
    pub claims: usize,
    pub listed_keys: usize,
}

impl Work {
    fn on_a_cpu(self) -> Duration {
        let times = |one: Duration, number: usize| one * u32::try_from(number).expect("a page");
        CPU_OF_A_REQUEST
            + times(CPU_OF_A_SETTINGS_ITEM, self.settings)
            + times(CPU_OF_A_QUERY_CONFIG, self.query_configs)
            + times(CPU_OF_A_CLAIM, self.claims)
            + times(CPU_OF_A_LISTED_KEY, self.listed_keys)
    }
}

/// One process's share of a CPU: everything that it does waits in one line.
pub struct Cpu {
    free_at: Cell<Instant>,
}

impl Cpu {
    pub fn new() -> Self {
        Self { free_at: Cell::new(Instant::now()) }
    }

    /// Waits until the work is done.
    pub async fn work(&self, pace: &Pace, work: Work) {
        let took = work.on_a_cpu().div_f64(pace.cpu);
        let done = self.free_at.get().max(Instant::now()) + took;
        self.free_at.set(done);
        tokio::time::sleep_until(done).await;
    }
}
