//! The AWS SDK's clients, configured by what Lambda puts into the environment. Profiles, files and metadata
//! services are not read: that could only cost time. Requests go over the function's own HTTP client: one TLS
//! stack, one read of the root certificates, and one kind of connection pool.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_types::SdkConfig;
use aws_types::sdk_config::StalledStreamProtectionConfig;
use bytes::Bytes;
use reqwest::{Client, Request, RequestBuilder};
use secrecy::ExposeSecret;

use super::held_secrets::{hold_credential, without_secrets};
use super::http::{NoResponse, send};
use crate::config::AwsConfig;
use crate::ports::ErrorKind;
use crate::text::Chain;

/// Returns the configuration of a client: three tries of at most `attempt_timeout` each, at `url` or else at AWS's own
/// service.
pub fn sdk_config(
    aws: &AwsConfig,
    url: Option<&String>,
    http: Client,
    attempt_timeout: Duration,
) -> SdkConfig {
    let http = AwsHttp(http);
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(attempt_timeout).build();
    hold_credential(&aws.secret_access_key);
    aws.session_token.iter().for_each(hold_credential);
    let credentials = Credentials::new(
        aws.access_key_id.clone(),
        aws.secret_access_key.expose_secret(),
        aws.session_token.as_ref().map(|token| token.expose_secret().to_owned()),
        None,
        "environment",
    );
    let mut config = SdkConfig::builder();
    config.set_endpoint_url(url.cloned());
    config
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(aws.region.clone()))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .http_client(http_client_fn(move |_, _| SharedHttpConnector::new(http.clone())))
        // It watches how a request's body is read. `AwsHttp` takes the body whole, so the protection would end
        // every call that takes more than five seconds.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .retry_config(RetryConfig::standard())
        .timeout_config(timeouts)
        .build()
}

/// The longest response that is read: 16 MB of items, which JSON may make a few times longer.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// The longest error that the SDK gets: it makes several copies of the message.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Sends the requests of AWS clients. The client within and the SDK set the time-outs.
#[derive(Debug, Clone)]
struct AwsHttp(Client);

impl AwsHttp {
    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        // Only what memory holds can be sent. The operations in use stream nothing.
        let body = request.body().bytes().map(Bytes::copy_from_slice);
        let body = body.ok_or_else(|| ConnectorError::user("a streamed request body".into()))?;
        let request = request.try_into_http1x().map_err(unusable)?.map(|_| body);
        let request =
            RequestBuilder::from_parts(self.0, Request::try_from(request).map_err(unusable)?);
        // The SDK tries again after a time-out and an I/O error.
        let response = send(request, MAX_RESPONSE_BYTES).await;
        let mut response = response.map_err(|NoResponse { kind, reason }| match kind {
            ErrorKind::TimedOut => ConnectorError::timeout(reason.into()),
            _ => ConnectorError::io(reason.into()),
        })?;
        if !response.status().is_success() && response.body().len() > MAX_ERROR_BYTES {
            response = response.map(|_| Bytes::new());
        }
        HttpResponse::try_from(response.map(SdkBody::from)).map_err(unusable)
    }
}

/// Returns the error for a request or a response that is no HTTP. Another try can't help.
fn unusable(error: impl Error + Send + Sync + 'static) -> ConnectorError {
    ConnectorError::user(error.into())
}

impl HttpConnector for AwsHttp {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().send(request))
    }
}

/// Takes the body of a call's response, and leaves an empty object to the SDK. A response that is no success
/// stays as it is.
#[derive(Debug, Clone, Default)]
pub struct TakeBody(Arc<OnceLock<SdkBody>>);

impl TakeBody {
    pub fn bytes(&self) -> Option<&[u8]> {
        self.0.get()?.bytes()
    }
}

impl Intercept for TakeBody {
    fn name(&self) -> &'static str {
        "TakeBody"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.response().status().is_success() {
            let body = std::mem::replace(context.response_mut().body_mut(), SdkBody::from("{}"));
            // The SDK can read the empty object, so no second success follows.
            let _ = self.0.set(body);
        }
        Ok(())
    }
}

pub const UNREADABLE: &str = "a response that can't be read";

/// Returns why a call failed. It quotes neither the request nor a response that can't be read, and of what the
/// service says only the beginning, without the secrets that this process has.
pub fn reason<E>(error: SdkError<E>) -> String
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(error) => {
            // A proxy may put anything there, the request included.
            let code = error.err().code().filter(|code| is_identifier(code));
            let code = without_secrets(code.unwrap_or("unknown error"));
            let message = without_secrets(error.err().message().unwrap_or_default());
            format!("{code}: {message}")
        }
        SdkError::TimeoutError(_) => "time-out".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "time-out".to_owned(),
        failed @ SdkError::DispatchFailure(_) => match failed.into_source() {
            Ok(source) => format!("no connection: {}", Chain(&*source)),
            Err(_) => "no connection".to_owned(),
        },
        SdkError::ResponseError(_) => UNREADABLE.to_owned(),
        _ => "the request could not be made".to_owned(),
    }
}

/// Returns whether a code is a name like `ThrottlingException`, and no sentence.
fn is_identifier(code: &str) -> bool {
    code.len() <= 64
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte))
}
