//! The HTTP that all the stand-ins speak: requests and replies as plain values, a server that can
//! also break connections, and a client.

mod server;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

pub use server::{Outcome, Server};

/// A request with its whole body.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    /// The path as it was sent, still percent-encoded.
    pub path: String,
    /// The query as it was sent, without `?`; empty when there is none.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// When its body had been read.
    pub received_at: Instant,
}

impl Request {
    /// A header's value, if the header exists and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }

    /// Whether a text is in its body.
    pub fn names(&self, text: &str) -> bool {
        text.is_empty() || self.body.windows(text.len()).any(|part| part == text.as_bytes())
    }

    /// The operation of an AWS JSON request: `X-Amz-Target` after its last dot.
    pub fn operation(&self) -> Option<&str> {
        self.header("x-amz-target")?.rsplit('.').next()
    }

    /// The path's segments, percent-decoded.
    pub fn segments(&self) -> Vec<String> {
        self.path.trim_start_matches('/').split('/').map(decode).collect()
    }

    /// A query parameter, decoded.
    pub fn param(&self, name: &str) -> Option<String> {
        let mut params = form_urlencoded::parse(self.query.as_bytes());
        params.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

/// Undoes percent-encoding; bytes that are not UTF-8 become replacement characters.
pub fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A reply with its whole body.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    /// All headers but `Content-Length`, which the server adds.
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let reply = Self { status, headers: HeaderMap::new(), body: body.into() };
        reply.with(CONTENT_TYPE.as_str(), content_type)
    }

    pub fn json(status: u16, body: &impl Serialize) -> Self {
        // Only maps whose keys are not strings fail here, and no stand-in returns one.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self::new(status, "application/json", body)
    }

    /// An HTML page, as gateways send it when their backend does not answer.
    pub fn html(status: u16) -> Self {
        let page = format!("<!DOCTYPE html>\n<html><body><h1>Error {status}</h1></body></html>\n");
        Self::new(status, "text/html; charset=UTF-8", page)
    }

    /// The same reply with one header set; a name or value that HTTP does not allow is left out.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            self.headers.insert(name, value);
        }
        self
    }
}

/// A client that keeps its connections.
#[derive(Clone)]
pub struct Client(legacy::Client<HttpConnector, Full<Bytes>>);

impl Default for Client {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(legacy::Client::builder(TokioExecutor::new()).build(connector))
    }
}

impl Client {
    /// Sends one request and reads its reply whole. The error is for people.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: impl Into<Bytes>,
    ) -> Result<Reply, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let mut request = hyper::Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let response = self.0.request(request).await.map_err(|error| describe(url, &error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| describe(url, &error))?.to_bytes();
        Ok(Reply { status: head.status, headers: head.headers, body })
    }
}

fn describe(url: &str, error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.fold(url.to_owned(), |text, cause| format!("{text}: {cause}"))
}
