//! The AWS SDK's requests over the function's own HTTP client: one TLS stack, one read of the root
//! certificates, and one kind of connection pool.

use std::error::Error;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use reqwest::{Client, Request, RequestBuilder};
use serde::{Deserialize, Serialize};

use super::http::{NoResponse, send};
use crate::ports::ErrorKind;

/// The longest response that is read: 16 MB of items, which JSON may make a few times longer.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// The longest error that the SDK gets whole: it makes several copies of the message.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Sends the requests of AWS clients. The client within and the SDK set the time-outs.
#[derive(Debug, Clone)]
pub struct AwsHttp(pub Client);

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
            response = response.map(|body| code_of(&body));
        }
        HttpResponse::try_from(response.map(SdkBody::from)).map_err(unusable)
    }
}

/// Returns an error's body with nothing but its code.
fn code_of(body: &[u8]) -> Bytes {
    #[derive(Deserialize, Serialize)]
    struct Code {
        #[serde(rename = "__type")]
        code: String,
    }
    let code = serde_json::from_slice::<Code>(body).ok();
    code.and_then(|code| serde_json::to_vec(&code).ok()).unwrap_or_default().into()
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
