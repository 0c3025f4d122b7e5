//! The services behind the ports: HTTP clients and the AWS SDK's.

pub mod api_keys;
pub mod aws;
pub mod aws_http;
pub mod cloudflare_codes;
pub mod cloudflare_kv;
pub mod cloudflare_token;
pub mod cloudflare_wire;
pub mod configured_kv;
pub mod http;
pub mod settings_table;
pub mod table_reply;

use std::time::SystemTime;

use crate::ports::{self, Services};
use crate::services::api_keys::ApiKeysClient;
use crate::services::configured_kv::ConfiguredKv;
use crate::services::settings_table::DynamoDbTable;

/// The real services.
pub struct RealServices {
    kv: ConfiguredKv,
    api_keys: ApiKeysClient,
    table: DynamoDbTable,
    world: SystemWorld,
}

impl RealServices {
    /// Puts the clients together.
    pub fn new(kv: ConfiguredKv, api_keys: ApiKeysClient, table: DynamoDbTable) -> Self {
        Self { kv, api_keys, table, world: SystemWorld }
    }
}

impl Services for RealServices {
    type Kv = ConfiguredKv;
    type Keys = ApiKeysClient;
    type Table = DynamoDbTable;
    type World = SystemWorld;

    fn kv(&self) -> &ConfiguredKv {
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
