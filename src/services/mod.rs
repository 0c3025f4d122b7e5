//! The services behind the ports: HTTP clients and the AWS SDK's.

pub mod api_keys;
pub mod cloudflare_kv;
pub mod cloudflare_token;
pub mod cloudflare_wire;
pub mod dry_run;
pub mod http;
pub mod settings_table;

use std::time::SystemTime;

use crate::ports::{self, Services};
use crate::services::api_keys::ApiKeysClient;
use crate::services::cloudflare_kv::CloudflareKv;
use crate::services::dry_run::DryRunKv;
use crate::services::settings_table::DynamoDbTable;

/// The real services.
pub struct RealServices<K> {
    kv: K,
    api_keys: ApiKeysClient,
    table: DynamoDbTable,
    world: SystemWorld,
}

/// With Cloudflare.
pub type CloudflareServices = RealServices<CloudflareKv>;
/// Without Cloudflare.
pub type DryRunServices = RealServices<DryRunKv>;

impl<K> RealServices<K> {
    /// Puts the clients together.
    pub fn new(kv: K, api_keys: ApiKeysClient, table: DynamoDbTable) -> Self {
        Self { kv, api_keys, table, world: SystemWorld }
    }
}

impl<K: ports::KvStore> Services for RealServices<K> {
    type Kv = K;
    type Keys = ApiKeysClient;
    type Table = DynamoDbTable;
    type World = SystemWorld;

    fn kv(&self) -> &K {
        &self.kv
    }

    fn api_keys(&self) -> &ApiKeysClient {
        &self.api_keys
    }

    fn table(&self) -> &DynamoDbTable {
        &self.table
    }

    fn world(&self) -> &SystemWorld {
        &self.world
    }
}

/// The system's clock and randomness.
pub struct SystemWorld;

impl ports::World for SystemWorld {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn chance(&self) -> f64 {
        fastrand::f64()
    }
}
