//! The services behind the ports, over HTTP and the AWS SDK. They know no use case.

pub mod api_keys;
pub mod aws;
pub mod cloudflare;
pub mod held_secrets;
pub mod http;
pub mod settings_table;
pub mod table_reply;

use std::time::SystemTime;

use self::api_keys::ApiKeysClient;
use self::cloudflare::CloudflareKv;
use self::settings_table::DynamoDbTable;
use crate::ports::{ApiKeyService, Clock, KvStore, Services, SettingsTable};

pub struct RealServices {
    pub kv: CloudflareKv,
    pub api_keys: ApiKeysClient,
    pub table: DynamoDbTable,
}

impl Services for RealServices {
    fn kv(&self) -> &impl KvStore {
        &self.kv
    }

    fn api_keys(&self) -> &impl ApiKeyService {
        &self.api_keys
    }

    fn table(&self) -> &impl SettingsTable {
        &self.table
    }
}

impl Clock for RealServices {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn jitter(&self) -> f64 {
        fastrand::f64()
    }
}

#[cfg(test)]
#[path = "../../tests/support/scripted_aws.rs"]
mod scripted_aws;
