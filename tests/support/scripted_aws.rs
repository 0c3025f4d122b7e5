//! AWS for unit tests: a script says what each request gets.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_types::SdkConfig;
use serde_json::Value;

use super::{aws, http};
use crate::config::AwsConfig;

/// Status and body, or no response at all.
pub type Scripted = Option<(u16, Value)>;

type Script = dyn Fn(usize, Value) -> Scripted + Send + Sync;

#[derive(Clone)]
struct Connector {
    script: Arc<Script>,
    requests: Arc<Mutex<usize>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut requests = self.requests.lock().unwrap();
        let body = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
        let scripted = (self.script)(*requests, body);
        *requests += 1;
        HttpConnectorFuture::new(async move {
            let Some((status, body)) = scripted else { return std::future::pending().await };
            let body = SdkBody::from(body.to_string());
            Ok(HttpResponse::new(status.try_into().unwrap(), body))
        })
    }
}

/// Returns an SDK whose requests get what `script` says of their number and body, and the count of
/// requests.
pub fn sdk(
    script: impl Fn(usize, Value) -> Scripted + Send + Sync + 'static,
) -> (SdkConfig, Arc<Mutex<usize>>) {
    let config = AwsConfig {
        region: "eu-west-1".into(),
        access_key_id: "AKID".into(),
        secret_access_key: "secret-of-the-unit-tests".into(),
        session_token: Some("session-of-the-unit-tests".into()),
        dynamodb_url: None,
        secrets_manager_url: None,
    };
    let timeout = Duration::from_secs(30);
    let real = aws::sdk_config(&config, None, http::client(timeout).unwrap(), timeout);
    let connector = Connector { script: Arc::new(script), requests: Arc::default() };
    let requests = connector.requests.clone();
    let client = http_client_fn(move |_, _| SharedHttpConnector::new(connector.clone()));
    (real.into_builder().http_client(client).build(), requests)
}
