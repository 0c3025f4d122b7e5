//! The services behind the ports: HTTP clients and the AWS SDK's. They know no use case.

pub mod api_keys;
pub mod aws;
pub mod aws_http;
pub mod cloudflare;
pub mod held_secrets;
pub mod http;
pub mod settings_table;
pub mod table_reply;

use std::sync::Arc;
use std::time::SystemTime;

use crate::ports::{Clock, ServiceCalls, Services};
use crate::services::api_keys::ApiKeysClient;
use crate::services::cloudflare::dry_run::KvOrDryRun;
use crate::services::cloudflare::token::CloudflareToken;
use crate::services::settings_table::DynamoDbTable;

/// The real services.
pub struct RealServices {
    /// Cloudflare KV.
    pub kv: KvOrDryRun,
    /// The API keys service.
    pub api_keys: ApiKeysClient,
    /// The settings table.
    pub table: DynamoDbTable,
    /// The token that `kv` sends; none in a dry run.
    pub token: Option<Arc<CloudflareToken>>,
}

impl Services for RealServices {
    type Kv = KvOrDryRun;
    type ApiKeys = ApiKeysClient;
    type Table = DynamoDbTable;
    type Clock = SystemClock;

    fn kv(&self) -> &KvOrDryRun {
        &self.kv
    }

    fn api_keys(&self) -> &ApiKeysClient {
        &self.api_keys
    }

    fn table(&self) -> &DynamoDbTable {
        &self.table
    }

    fn clock(&self) -> &SystemClock {
        &SystemClock
    }

    fn take_secret_calls(&self) -> ServiceCalls {
        self.token.as_ref().map(|token| token.take_calls()).unwrap_or_default()
    }
}

/// The system's clock and randomness.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn jitter(&self) -> f64 {
        fastrand::f64()
    }
}
