//! Wiring: the only file that names all the concrete types.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ecom_settings_exporter::COMMIT;
use ecom_settings_exporter::config::{CloudflareConfig, Config};
use ecom_settings_exporter::lambda::{Answer, Handler};
use ecom_settings_exporter::services::api_keys::ApiKeysClient;
use ecom_settings_exporter::services::aws_http::AwsHttp;
use ecom_settings_exporter::services::cloudflare::token::CloudflareToken;
use ecom_settings_exporter::services::cloudflare::{CloudflareKv, Target};
use ecom_settings_exporter::services::settings_table::DynamoDbTable;
use ecom_settings_exporter::services::{RealServices, aws, http};
use ecom_settings_exporter::telemetry::logging;
use ecom_settings_exporter::telemetry::metrics::Metrics;
use lambda_runtime::layers::TracingLayer;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, Runtime, service_fn};
use serde_json::value::RawValue;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init();
    let config = Config::from_env()
        .inspect_err(|error| tracing::error!(%error, "the configuration is not usable"))?;
    tracing::info!(commit = COMMIT, "start");
    let metrics = Metrics::install(&config.exporter.environment)?;
    let http_timeout = config.exporter.http_timeout;
    let http = http::client(http_timeout)?;
    let sdk = aws::sdk_config(&config.aws, AwsHttp(http.clone()), http_timeout);
    if config.exporter.dry_run {
        tracing::warn!(
            "dry run: CLOUDFLARE_ACCOUNT_ID is absent, so nothing is sent to Cloudflare"
        );
    }
    let target = config.cloudflare.map(|cloudflare| {
        let secrets = aws::secrets_manager(&config.aws, &sdk);
        let CloudflareConfig { settings_url, query_configs_url, token } = cloudflare;
        let token = Arc::new(CloudflareToken::new(token, secrets));
        // Read while the runtime polls for the first event; a failure shows when it is needed.
        let early = token.clone();
        tokio::spawn(async move { drop(early.get(None).await) });
        Target { settings_url, query_configs_url, token }
    });
    let services = RealServices {
        kv: CloudflareKv::new(http.clone(), target),
        api_keys: ApiKeysClient { http, template: config.api_keys_url },
        table: DynamoDbTable { client: aws::dynamodb(&config.aws, &sdk), name: config.table_name },
    };
    run(&Handler::new(services, config.exporter), &metrics).await
}

async fn run(handler: &Handler<RealServices>, metrics: &Metrics) -> Result<(), Error> {
    let service = service_fn(async move |event: LambdaEvent<Box<RawValue>>| {
        let LambdaEvent { payload, context, .. } = event;
        let time_left = time_left(context.deadline);
        let (result, stats) = handler.handle(Box::<str>::from(payload), time_left).await;
        metrics.flush(&context.request_id, &stats);
        result.map_err(|error| Diagnostic {
            error_type: error.error_type().to_owned(),
            error_message: error.message(),
        }) as Result<Answer, Diagnostic>
    });
    Runtime::new(service).layer(TracingLayer::new()).run().await
}

/// How long the invocation has, by the deadline that Lambda gives in milliseconds since the epoch.
fn time_left(deadline_ms: u64) -> Duration {
    // cargo-lambda's emulator gives the time left itself; no deadline is that long ago.
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
