//! The AWS SDK's clients, from what Lambda puts into the function's environment.
//!
//! The SDK's own chain of profiles, files and metadata services is left out: in Lambda the
//! credentials are always in the environment, and looking elsewhere could only cost time.

use std::time::Duration;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_types::SdkConfig;
use aws_types::sdk_config::StalledStreamProtectionConfig;
use secrecy::ExposeSecret;

use super::aws_http::AwsHttp;
use super::held_secrets::{hold, without_secrets};
use crate::config::AwsConfig;

/// What both clients share: three tries, each of `attempt_timeout` at the most.
pub fn sdk_config(aws: &AwsConfig, http: AwsHttp, attempt_timeout: Duration) -> SdkConfig {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(attempt_timeout).build();
    hold(&aws.secret_access_key);
    aws.session_token.iter().for_each(hold);
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
        .http_client(http)
        // It watches how the request's body is read. `AwsHttp` takes the body whole, so it would end every
        // call that takes longer than five seconds.
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

/// What an AWS service said, or why it could not: without the request, which holds names.
pub fn describe<E: ProvideErrorMetadata>(error: &SdkError<E>) -> String {
    match error {
        SdkError::ServiceError(service) => {
            let error = service.err();
            // A proxy may put anything there, the request included.
            let code = error.code().filter(|code| is_identifier(code)).unwrap_or("unknown error");
            let message = error.message().unwrap_or_default();
            format!("{}: {}", without_secrets(code), without_secrets(message))
        }
        SdkError::TimeoutError(_) => "time-out".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "time-out".to_owned(),
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(error) => format!("no connection: {error}"),
            None => "no connection".to_owned(),
        },
        SdkError::ResponseError(_) => "an answer that can't be read".to_owned(),
        _ => "the request could not be made".to_owned(),
    }
}

/// Whether a code is one of a service's: `ThrottlingException`, not a sentence.
fn is_identifier(code: &str) -> bool {
    code.len() <= 64
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte))
}
