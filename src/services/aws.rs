//! The AWS SDK's clients, configured by what Lambda puts into the environment. Profiles, files and metadata
//! services are not read: that could only cost time.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use aws_types::SdkConfig;
use aws_types::sdk_config::StalledStreamProtectionConfig;
use secrecy::ExposeSecret;

use super::aws_http::AwsHttp;
use super::held_secrets::{hold_credential, without_secrets};
use crate::config::AwsConfig;

/// Returns what both clients share: three tries of at most `attempt_timeout` each.
pub fn sdk_config(aws: &AwsConfig, http: AwsHttp, attempt_timeout: Duration) -> SdkConfig {
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
    SdkConfig::builder()
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

pub fn dynamodb(aws: &AwsConfig, config: &SdkConfig) -> aws_sdk_dynamodb::Client {
    let mut config = aws_sdk_dynamodb::config::Builder::from(config);
    config.set_endpoint_url(aws.dynamodb_url.clone());
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

pub fn secrets_manager(aws: &AwsConfig, config: &SdkConfig) -> aws_sdk_secretsmanager::Client {
    let mut config = aws_sdk_secretsmanager::config::Builder::from(config);
    config.set_endpoint_url(aws.secrets_manager_url.clone());
    aws_sdk_secretsmanager::Client::from_conf(config.build())
}

/// Takes the body of a call's response, and leaves an empty object to the SDK. A response that is no success
/// stays as it is.
#[derive(Debug, Clone, Default)]
pub struct TakeBody(Arc<Mutex<Option<SdkBody>>>);

impl TakeBody {
    pub fn taken(&self) -> Option<SdkBody> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
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
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
        Ok(())
    }
}

/// Why a call to AWS failed. It quotes neither the request nor a response that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// The beginning of what the service says, without the secrets that this process has.
    #[error("{code}: {message}")]
    Service { code: String, message: String },
    #[error("time-out")]
    TimeOut,
    #[error("no connection")]
    NoConnection(#[source] BoxError),
    #[error("a response that can't be read")]
    Unreadable,
    #[error("keys are left unprocessed again and again")]
    Unprocessed,
    #[error("the request could not be made")]
    NotMade,
}

impl<E> From<SdkError<E>> for AwsError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        match error {
            SdkError::ServiceError(error) => {
                // A proxy may put anything there, the request included.
                let code = error.err().code().filter(|code| is_identifier(code));
                Self::Service {
                    code: without_secrets(code.unwrap_or("unknown error")),
                    message: without_secrets(error.err().message().unwrap_or_default()),
                }
            }
            SdkError::TimeoutError(_) => Self::TimeOut,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::TimeOut,
            failed @ SdkError::DispatchFailure(_) => {
                failed.into_source().map_or(Self::NotMade, Self::NoConnection)
            }
            SdkError::ResponseError(_) => Self::Unreadable,
            _ => Self::NotMade,
        }
    }
}

/// Returns whether a code is a name like `ThrottlingException`, and no sentence.
fn is_identifier(code: &str) -> bool {
    code.len() <= 64
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte))
}
