//! The AWS SDK's requests over the function's own HTTP client: one TLS stack, whose root
//! certificates are read once, and one kind of connection pool.

use std::error::Error;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::http::{LostAnswer, read_body};

/// The longest answer that is read: 16 MB of items, which JSON may make a few times longer.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// The longest error that the SDK gets whole: it makes several copies of the message.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// An HTTP client for the AWS SDK. Time-outs are those of the client within, and the SDK's own.
#[derive(Debug, Clone)]
pub struct AwsHttp(pub reqwest::Client);

impl AwsHttp {
    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        // Only what is held in memory can be sent; the operations in use here stream nothing.
        let body = request.body().bytes().map(Bytes::copy_from_slice);
        let body = body.ok_or_else(|| ConnectorError::user("a streamed request body".into()))?;
        let request = request.try_into_http1x().map_err(unusable)?.map(|_| body);
        let request = reqwest::Request::try_from(request).map_err(unusable)?;
        let response = self.0.execute(request).await.map_err(|error| lost(error.into()))?;
        let status: StatusCode = response.status().as_u16().try_into().map_err(unusable)?;
        let headers = response.headers().clone();
        let mut body = read_body(response, MAX_ANSWER_BYTES).await.map_err(lost)?;
        if !status.is_success() && body.len() > MAX_ERROR_BYTES {
            body = code_of(&body);
        }
        let mut answer = HttpResponse::new(status, SdkBody::from(body));
        for (name, value) in &headers {
            let value = value.to_str().map_err(unusable)?.to_owned();
            answer.headers_mut().append(name.as_str().to_owned(), value);
        }
        Ok(answer)
    }
}

fn code_of(body: &[u8]) -> Bytes {
    #[derive(Deserialize, Serialize)]
    struct Code<'a> {
        #[serde(borrow, rename = "__type")]
        code: &'a RawValue,
    }
    let code = serde_json::from_slice::<Code<'_>>(body).ok();
    code.and_then(|code| serde_json::to_vec(&code).ok()).unwrap_or_default().into()
}

/// A request or an answer that HTTP doesn't know; trying again can't help.
fn unusable(error: impl Error + Send + Sync + 'static) -> ConnectorError {
    ConnectorError::user(error.into())
}

/// The SDK tries again after both.
fn lost(error: LostAnswer) -> ConnectorError {
    match error {
        LostAnswer::TimeOut => ConnectorError::timeout(error.into()),
        LostAnswer::Broken(_) | LostAnswer::TooLong(_) => ConnectorError::io(error.into()),
    }
}

impl HttpConnector for AwsHttp {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().send(request))
    }
}
