//! The HTTP client under all clients of services, and what they share.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, StatusCode, redirect};

use crate::COMMIT;
use crate::ports::ErrorKind;
use crate::text::Chain;

const VERSION: &str = concat!("ecom-settings-exporter/", env!("CARGO_PKG_VERSION"));

/// How long connecting may take. It counts as a part of a request's time-out.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept: less than the usual 60 s of load balancers. A connection that the other
/// side has closed would cost a try.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Builds a client whose requests take at most `timeout`, and follow no redirect and no proxy variable.
pub fn client(timeout: Duration) -> reqwest::Result<Client> {
    // The process has one TLS provider. An error only says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(format!("{VERSION} ({COMMIT})"))
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()
}

/// A response, read whole.
pub type Response = http::Response<Bytes>;

/// Why there is no whole response. The request may have been carried out.
#[derive(Debug)]
pub struct NoResponse {
    /// Timed out, or else transient: there was no connection, it broke, or the response is too long.
    pub kind: ErrorKind,
    pub reason: String,
}

impl From<reqwest::Error> for NoResponse {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self { kind: ErrorKind::TimedOut, reason: "time-out".to_owned() };
        }
        // The URL holds names.
        let reason = Chain(&error.without_url()).to_string();
        Self { kind: ErrorKind::Transient, reason }
    }
}

/// Sends a request, and reads a response of up to `max_bytes`.
pub async fn send(request: RequestBuilder, max_bytes: usize) -> Result<Response, NoResponse> {
    let mut response = request.send().await?;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max_bytes {
            let reason = format!("a response of more than {max_bytes} bytes");
            return Err(NoResponse { kind: ErrorKind::Transient, reason });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(http::Response::from(response).map(|_| body.freeze()))
}

/// Returns whether the same request is worth another try.
pub fn is_transient(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

/// The longest wait that a service can ask for. No invocation lasts as long.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Returns `Retry-After` if it is a number of seconds. These services send no dates.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    // A number that does not even fit is a long wait too.
    let wait = seconds.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs);
    is_number.then_some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::process::Command;
    use std::thread;

    /// Answers the first request with `response`. Returns the server's URL.
    fn server(response: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(response.as_bytes()).unwrap();
        });
        url
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}")
    }

    async fn get(url: &str) -> Result<Response, NoResponse> {
        let client = client(Duration::from_secs(20)).unwrap();
        send(client.get(url), 10).await
    }

    #[tokio::test]
    async fn no_response_is_read_beyond_its_bound() {
        assert_eq!(get(&server(ok("0123456789"))).await.unwrap().body(), "0123456789");
        let error = get(&server(ok("0123456789a"))).await.unwrap_err();
        assert_eq!(error.reason, "a response of more than 10 bytes");
    }

    #[tokio::test]
    async fn redirects_are_not_followed() {
        let redirect = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        let response = get(&server(redirect.into())).await.unwrap();
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    }

    #[tokio::test]
    async fn a_broken_connection_tells_no_url() {
        let error = get("http://127.0.0.1:1/s3cret").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Transient);
        assert!(!error.reason.contains("s3cret"), "{error:?}");
    }

    /// Runs itself in a process of its own, with proxy variables and the URL to ask.
    #[tokio::test]
    async fn proxy_variables_are_not_followed() {
        const URL: &str = "URL_OF_THE_SERVER";
        #[expect(clippy::disallowed_methods, reason = "handed over by this very test")]
        if let Ok(url) = std::env::var(URL) {
            assert_eq!(get(&url).await.unwrap().body(), "direct");
            return;
        }
        let proxy = server(ok("proxied"));
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "services::http::tests::proxy_variables_are_not_followed"])
            .env(URL, server(ok("direct")))
            .env("http_proxy", &proxy)
            .env("HTTP_PROXY", &proxy)
            .env("ALL_PROXY", &proxy)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .output()
            .unwrap();
        let printed = String::from_utf8(run.stdout).unwrap();
        assert!(printed.contains("1 passed"), "{printed}");
    }

    #[test]
    fn retry_after_of_any_size_sign_and_shape_is_survived() {
        for (text, seconds) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("0", Some(0)),
            ("3601", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ] {
            let wait = retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
            assert_eq!(wait, seconds.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
