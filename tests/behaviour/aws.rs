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

async fn server(answer: impl Fn() -> Outcome + Send + Sync + 'static) -> (Server, Requests) {
    let requests = Requests::default();
    let log = requests.clone();
    let answer = Arc::new(answer);
    let server = Server::start(0, move |request| {
        log.lock().unwrap().push(request);
        let answer = answer.clone();
        async move { answer() }
    });
    (server.await.unwrap(), requests)
}

type Requests = Arc<Mutex<Vec<Request>>>;

/// Reads a secret from `url` as the function does, without back-off.
async fn read_secret(url: &str) -> Result<String, String> {
    let env = BTreeMap::from([
        ("ENVIRONMENT", "test"),
        ("API_KEYS_URL", "http://127.0.0.1:1/{cell}/{system_account_id}"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "s3cret-key"),
        ("AWS_SESSION_TOKEN", "the-session"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", url),
    ]);
    let config = Config::from_lookup(|name| env.get(name).map(|value| (*value).to_owned()));
    let aws_config = config.unwrap().aws;
    let timeout = Duration::from_secs(20);
    let sdk = aws::sdk_config(&aws_config, AwsHttp(http::client(timeout).unwrap()), timeout);
    let retries = sdk.retry_config().unwrap().clone();
    let retries = retries.with_initial_backoff(Duration::ZERO);
    let sdk = sdk.into_builder().retry_config(retries).build();
    let client = aws::secrets_manager(&aws_config, &sdk);
    let answer = client.get_secret_value().secret_id("s").send().await;
    let answer = answer.map_err(|error| Chain(&AwsError::from(error)).to_string())?;
    Ok(answer.secret_string().unwrap_or_default().to_owned())
}

fn secret() -> Outcome {
    Reply::json(200, &json!({"Name": "s", "SecretString": "tökén"})).into()
}

#[tokio::test]
async fn calls_are_signed_with_the_keys_and_the_session_of_the_environment() {
    let (server, requests) = server(secret).await;

    assert_eq!(read_secret(&server.url()).await.as_deref(), Ok("tökén"));

    let requests = requests.lock().unwrap();
    let authorization = requests[0].header("authorization").unwrap();
    assert!(authorization.contains("Credential=AKIDEXAMPLE/"), "{authorization}");
    assert!(authorization.contains("/eu-west-1/secretsmanager/"), "{authorization}");
    assert!(authorization.contains("x-amz-security-token"), "{authorization}");
    assert_eq!(requests[0].header("x-amz-security-token"), Some("the-session"));
    assert!(requests[0].header("user-agent").unwrap().starts_with("aws-sdk-rust/"));
    assert_eq!(requests.len(), 1);
}

#[tokio::test]
async fn broken_connections_server_errors_and_time_outs_are_tried_three_times() {
    let broken = || Outcome::Drop;
    let failing = || Reply::json(500, &json!({"__type": "InternalServiceError"})).into();
    let truncated = || Outcome::Truncated(Reply::json(200, &json!({"SecretString": "half"})));
    for (what, answer) in
        [("broken", broken as fn() -> Outcome), ("failing", failing), ("truncated", truncated)]
    {
        let (server, requests) = server(answer).await;
        assert!(read_secret(&server.url()).await.is_err(), "{what}");
        assert_eq!(requests.lock().unwrap().len(), 3, "{what}");
    }
}

#[tokio::test]
async fn an_answer_may_take_as_long_as_the_time_out_lets_it() {
    // Longer than the five seconds after which the SDK ends a connection on which nothing moves.
    const SLOW: Duration = Duration::from_secs(8);
    let requests = Requests::default();
    let log = requests.clone();
    let slow = Server::start(0, move |request| {
        log.lock().unwrap().push(request);
        async {
            tokio::time::sleep(SLOW).await;
            secret()
        }
    });
    let slow = slow.await.unwrap();

    assert_eq!(read_secret(&slow.url()).await.as_deref(), Ok("tökén"));

    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_final_and_named_and_what_it_quotes_is_not_shown() {
    let denied = || Reply::json(400, &json!({"__type": "AccessDeniedException"})).into();
    let quoting = || {
        let message = "The canonical request was x-amz-security-token:the-session";
        Reply::json(400, &json!({"__type": "InvalidSignatureException", "message": message})).into()
    };
    for (name, answer) in [
        ("AccessDeniedException", denied as fn() -> Outcome),
        ("InvalidSignatureException", quoting),
    ] {
        let (server, requests) = server(answer).await;

        let error = read_secret(&server.url()).await.unwrap_err();

        assert!(error.contains(name), "{error}");
        assert!(!error.contains("s3cret-key") && !error.contains("the-session"), "{error}");
        assert_eq!(requests.lock().unwrap().len(), 1, "{name}");
    }
}
