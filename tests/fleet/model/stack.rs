//! A deployed function: its process, and what that knows of the limit.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::SystemTime;

use ecom_settings_exporter::config::ExporterConfig;
use ecom_settings_exporter::lambda::Handler;
use ecom_settings_exporter::ports::{ApiKeyError, ApiKeyService, Cause, Clock, RateLimit};
use secrecy::SecretString;

use super::{Cpu, ENVIRONMENT, Gateway, Memory, Work, World, api_key, config, mixed};

/// What one process sees of its world.
pub struct Ports {
    pub world: Rc<World>,
    /// Who makes requests to KV.
    pub name: &'static str,
    /// What the latest answer of KV said is left.
    pub left: Cell<Option<RateLimit>>,
    pub cpu: Cpu,
    chance: Cell<u64>,
}

/// Starts a process of the function.
pub fn process(world: &Rc<World>, name: &'static str) -> Handler<Memory<Ports>> {
    process_with(world, name, 10_000)
}

/// One whose requests to KV hold so many pairs at most.
pub fn process_with(
    world: &Rc<World>,
    name: &'static str,
    bulk_max_pairs: usize,
) -> Handler<Memory<Ports>> {
    let ports = Ports {
        world: Rc::clone(world),
        name,
        left: Cell::new(None),
        cpu: Cpu::new(),
        chance: Cell::new(0),
    };
    Handler::new(Memory(ports), ExporterConfig { bulk_max_pairs, ..config(ENVIRONMENT) })
}

impl Clock for Ports {
    fn now(&self) -> SystemTime {
        self.world.now()
    }

    fn jitter(&self) -> f64 {
        let drawn = mixed(self.chance.get());
        self.chance.set(drawn);
        (drawn % 1_000) as f64 / 1_000.0
    }
}

impl ApiKeyService for Ports {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ApiKeyError> {
        self.world.asked.borrow_mut().api_keys += 1;
        match self.world.gateways.get(cell) {
            Some(Gateway::Hangs) => pending().await,
            Some(Gateway::Fails) => {
                tokio::time::sleep(self.world.pace.api_key).await;
                Err(ApiKeyError::Silent(Cause::new("503")))
            }
            Some(Gateway::RefusesSome) if account.ends_with('0') => {
                Err(ApiKeyError::Refused(Cause::new("403")))
            }
            Some(Gateway::RefusesSome) | None => {
                tokio::time::sleep(self.world.pace.api_key).await;
                self.cpu.work(&self.world.pace, Work::default()).await;
                Ok(api_key(account).into())
            }
        }
    }
}
