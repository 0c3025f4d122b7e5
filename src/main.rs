//! Wiring: the only file that names all the concrete types.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ecom_settings_exporter::config::{CloudflareConfig, Config};
use ecom_settings_exporter::handler::{Answer, Handler};
use ecom_settings_exporter::services::RealServices;
use ecom_settings_exporter::services::api_keys::ApiKeysClient;
use ecom_settings_exporter::services::aws;
use ecom_settings_exporter::services::aws_http::AwsHttp;
use ecom_settings_exporter::services::cloudflare_kv::CloudflareKv;
use ecom_settings_exporter::services::cloudflare_token::CloudflareToken;
use ecom_settings_exporter::services::configured_kv::ConfiguredKv;
use ecom_settings_exporter::services::http;
use ecom_settings_exporter::services::settings_table::DynamoDbTable;
use lambda_runtime::layers::TracingLayer;
use lambda_runtime::tower::util::MapRequestLayer;
use lambda_runtime::{Diagnostic, Error, LambdaEvent, LambdaInvocation, Runtime, service_fn};

mod logging;
mod metrics;
mod xray;

use metrics::Metrics;
use xray::XRay;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init();
    let config = Config::from_env().inspect_err(|error| tracing::error!("{error}"))?;
    let telemetry = Telemetry {
        metrics: Metrics::install(&config.environment)?,
        xray: XRay::connect(config.xray_daemon.as_deref()),
    };
    let http = http::client(config.limits.http_timeout)?;
    let sdk = aws::sdk_config(&config.aws, AwsHttp::new(http.clone()), config.limits.http_timeout);
    let api_keys = ApiKeysClient::new(http.clone(), config.api_keys_url);
    let table = DynamoDbTable::new(aws::dynamodb(&config.aws, &sdk), config.table_name);
    let kv = match config.cloudflare {
        None => {
            tracing::warn!(
                "dry run: CLOUDFLARE_ACCOUNT_ID is absent, so nothing is sent to Cloudflare"
            );
            ConfiguredKv::DryRun
        }
        Some(CloudflareConfig { settings_url, query_configs_url, token }) => {
            let secrets = || aws::secrets_manager(&config.aws, &sdk);
            let token = Arc::new(CloudflareToken::new(token, secrets));
            // Read while the runtime polls for the first event; a failure shows when it is needed.
            let early = token.clone();
            tokio::spawn(async move { drop(early.current().await) });
            let kv = CloudflareKv::new(http, token, settings_url, query_configs_url);
            ConfiguredKv::Cloudflare(kv)
        }
    };
    let handler = Handler::new(RealServices::new(kv, api_keys, table), config.limits);
    run(handler, telemetry).await
}

struct Telemetry {
    metrics: Metrics,
    xray: XRay,
}

async fn run(handler: Handler<RealServices>, telemetry: Telemetry) -> Result<(), Error> {
    let (handler, telemetry) = (&handler, &telemetry);
    // The runtime gets null to parse and the handler the event's bytes, so that an event of 6 MB is
    // gone through once. Invocations come one at a time.
    let payload = &Cell::new(Bytes::new());
    let service = service_fn(async move |event: LambdaEvent<()>| {
        let context = event.context;
        let time_left = time_left(context.deadline);
        let (result, tally) = handler.handle(payload.take(), time_left).await;
        telemetry.metrics.flush(&context.request_id, &tally);
        telemetry.xray.send(context.xray_trace_id.as_deref(), &tally.spans);
        result.map_err(|error| Diagnostic {
            error_type: error.error_type().to_owned(),
            error_message: error.to_string(),
        }) as Result<Answer, Diagnostic>
    });
    let keep_payload = move |mut invocation: LambdaInvocation| {
        payload.set(std::mem::replace(&mut invocation.body, Bytes::from_static(b"null")));
        invocation
    };
    Runtime::new(service)
        .layer(MapRequestLayer::new(keep_payload))
        .layer(TracingLayer::new())
        .run()
        .await
}

/// How long the invocation has, by the deadline that Lambda gives in milliseconds since the epoch.
fn time_left(deadline_ms: u64) -> Duration {
    // cargo-lambda's emulator gives the time left itself; no deadline is that long ago.
    const FIRST_EPOCH_MS: u64 = 1_000_000_000_000;
    let given = Duration::from_millis(deadline_ms);
    if deadline_ms < FIRST_EPOCH_MS {
        return given;
    }
    given.saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
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
