//! How AWS is called: signed with the keys of Lambda's environment, and with errors told apart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecom_settings_exporter::config::Config;
use ecom_settings_exporter::error_chain::Chain;
use ecom_settings_exporter::services::aws::AwsError;
use ecom_settings_exporter::services::aws_http::AwsHttp;
use ecom_settings_exporter::services::{aws, http};
use serde_json::json;
use testbed::http::{Outcome, Reply, Request, Server};

/// Reads a secret as the function does, without back-off, from a service that answers like this after so
/// many seconds. Returns the requests too.
async fn read_secret(
    answer: impl Fn() -> Outcome + Send + Sync + 'static,
    seconds: u64,
) -> (Result<String, String>, Vec<Request>) {
    let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
    let (log, answer) = (requests.clone(), Arc::new(answer));
    let server = Server::start(0, move |request| {
        log.lock().unwrap().push(request);
        let answer = answer.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            answer()
        }
    });
    let url = server.await.unwrap();
    let env = BTreeMap::from([
        ("ENVIRONMENT", "test"),
        ("API_KEYS_URL", "http://127.0.0.1:1/{cell}/{system_account_id}"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "s3cret-key"),
        ("AWS_SESSION_TOKEN", "the-session"),
    ]);
    let endpoint = url.url();
    let config = Config::from_lookup(|name| match name {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER" => Some(endpoint.clone()),
        name => env.get(name).map(|value| (*value).to_owned()),
    });
    let config = config.unwrap().aws;
    let timeout = Duration::from_secs(20);
    let sdk = aws::sdk_config(&config, AwsHttp(http::client(timeout).unwrap()), timeout);
    let retries = sdk.retry_config().unwrap().clone().with_initial_backoff(Duration::ZERO);
    let sdk = sdk.into_builder().retry_config(retries).build();
    let answer = aws::secrets_manager(&config, &sdk).get_secret_value().secret_id("s").send().await;
    let answer = answer.map_err(|error| Chain(&AwsError::from(error)).to_string());
    let secret = answer.map(|answer| answer.secret_string().unwrap_or_default().to_owned());
    let requests = requests.lock().unwrap().clone();
    (secret, requests)
}

fn secret() -> Outcome {
    Reply::json(200, &json!({"Name": "s", "SecretString": "tökén"})).into()
}

#[tokio::test]
async fn a_call_is_signed_and_may_take_longer_than_the_5_s_after_which_the_sdk_gives_up() {
    let (secret, requests) = read_secret(secret, 8).await;

    assert_eq!(secret.as_deref(), Ok("tökén"));
    let [request] = &requests[..] else { panic!("{requests:?}") };
    let authorization = request.header("authorization").unwrap();
    assert!(authorization.contains("Credential=AKIDEXAMPLE/"), "{authorization}");
    assert!(authorization.contains("/eu-west-1/secretsmanager/"), "{authorization}");
    assert!(authorization.contains("x-amz-security-token"), "{authorization}");
    assert_eq!(request.header("x-amz-security-token"), Some("the-session"));
}
