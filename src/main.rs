//! Wiring: the only file that names all the concrete types.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use ecom_settings_exporter::config::Config;
use ecom_settings_exporter::handler::{Answer, Handler};
use ecom_settings_exporter::ports::Services;
use ecom_settings_exporter::services::RealServices;
use ecom_settings_exporter::services::api_keys::ApiKeysClient;
use ecom_settings_exporter::services::cloudflare_kv::CloudflareKv;
use ecom_settings_exporter::services::cloudflare_token::CloudflareToken;
use ecom_settings_exporter::services::dry_run::DryRunKv;
use ecom_settings_exporter::services::http;
use ecom_settings_exporter::services::settings_table::DynamoDbTable;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use serde_json::value::RawValue;

mod logging;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init();
    let config = Config::from_env().inspect_err(|error| tracing::error!("{error}"))?;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(config.limits.http_timeout)
        .build();
    let aws = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(
            aws_smithy_http_client::Builder::new()
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .build_https(),
        )
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts)
        .load()
        .await;
    let http = http::client(config.limits.http_timeout)?;
    let api_keys = ApiKeysClient::new(http.clone(), config.api_keys_url);
    let table = DynamoDbTable::new(aws_sdk_dynamodb::Client::new(&aws), config.table_name);
    match config.cloudflare {
        None => {
            tracing::warn!(
                "dry run: CLOUDFLARE_ACCOUNT_ID is absent, so nothing is sent to Cloudflare"
            );
            let services = RealServices::new(DryRunKv, api_keys, table);
            run(Handler::new(services, config.limits)).await
        }
        Some(cloudflare) => {
            let token = Arc::new(CloudflareToken::new(cloudflare.token, || {
                aws_sdk_secretsmanager::Client::new(&aws)
            }));
            // Read while the runtime polls for the first event; a failure shows when it is needed.
            let early = token.clone();
            tokio::spawn(async move { drop(early.current().await) });
            let kv = CloudflareKv::new(
                http,
                token,
                cloudflare.settings_url,
                cloudflare.query_configs_url,
            );
            run(Handler::new(RealServices::new(kv, api_keys, table), config.limits)).await
        }
    }
}

async fn run<S: Services>(handler: Handler<S>) -> Result<(), Error> {
    let handler = &handler;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Box<RawValue>>| {
        let time_left = time_left(event.context.deadline);
        let (result, _) = handler.handle(event.payload.get(), time_left).await;
        result.map_err(|error| Diagnostic {
            error_type: error.error_type().to_owned(),
            error_message: error.to_string(),
        }) as Result<Answer, Diagnostic>
    }))
    .await
}

/// How long the invocation has, by the deadline that Lambda gives in milliseconds since the epoch.
fn time_left(deadline_ms: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(deadline_ms).saturating_sub(now)
}
