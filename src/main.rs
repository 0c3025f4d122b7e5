//! Wiring: the only file that names all the concrete types.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ecom_settings_exporter::COMMIT;
use ecom_settings_exporter::config::Config;
use ecom_settings_exporter::lambda::Handler;
use ecom_settings_exporter::services::api_keys::ApiKeysClient;
use ecom_settings_exporter::services::cloudflare::CloudflareKv;
use ecom_settings_exporter::services::settings_table::DynamoDbTable;
use ecom_settings_exporter::services::{RealServices, aws, held_secrets, http};
use ecom_settings_exporter::telemetry::{Metrics, logging};
use lambda_runtime::layers::TracingLayer;
use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use serde_json::value::RawValue;
use tokio::task::AbortHandle;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init();
    let config = Config::from_env()
        .inspect_err(|error| tracing::error!(%error, "the configuration is not usable"))?;
    tracing::info!(commit = COMMIT, "start");
    let Config { api_keys_url, cloudflare, aws, exporter } = config;
    let metrics = Metrics::new(&exporter.environment);
    let http = http::client(exporter.http_timeout)?;
    let sdk = |url| aws::sdk_config(&aws, url, http.clone(), exporter.http_timeout);
    let client = aws_sdk_dynamodb::Client::new(&sdk(aws.dynamodb_url.as_ref()));
    let table = DynamoDbTable { client, name: exporter.table_name.clone() };
    let secrets = aws_sdk_secretsmanager::Client::new(&sdk(aws.secrets_manager_url.as_ref()));
    let kv = CloudflareKv::new(http.clone(), cloudflare, secrets);
    let early_reading = kv.read_token_early();
    let api_keys = ApiKeysClient { http, template: api_keys_url };
    let handler = Handler::new(RealServices { kv, api_keys, table }, exporter);
    let service = service_fn(async |event: LambdaEvent<Box<RawValue>>| {
        let LambdaEvent { payload, context, .. } = event;
        let time_left = time_left(context.deadline);
        let (result, stats) = handler.handle(Box::<str>::from(payload), time_left).await;
        // Nothing goes on after the answer, and nothing outlives it.
        early_reading.iter().for_each(AbortHandle::abort);
        held_secrets::forget_api_keys();
        metrics.print(&context.request_id, &stats);
        result
    });
    Runtime::new(service).layer(TracingLayer::new()).run().await
}

/// Returns how long the invocation has, by Lambda's deadline in milliseconds since the epoch.
fn time_left(deadline_ms: u64) -> Duration {
    // cargo-lambda's emulator gives the time left itself. No deadline is that long ago.
    const FIRST_EPOCH_MS: u64 = 1_000_000_000_000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let passed = if deadline_ms < FIRST_EPOCH_MS { Duration::ZERO } else { now };
    Duration::from_millis(deadline_ms).saturating_sub(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_read_as_lambda_and_as_cargo_lambda_give_it() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let in_a_minute = u64::try_from((now + Duration::from_secs(60)).as_millis()).unwrap();
        let left = time_left(in_a_minute);
        assert!(left > Duration::from_secs(30) && left <= Duration::from_secs(60), "{left:?}");
        assert_eq!(time_left(in_a_minute - 120_000), Duration::ZERO);
        assert_eq!(time_left(600_000), Duration::from_secs(600));
    }
}
