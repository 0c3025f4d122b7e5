//! What the HTTP clients share: how they are built, and what a response says about trying again.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{StatusCode, redirect};

const USER_AGENT: &str = concat!("ecom-settings-exporter/", env!("CARGO_PKG_VERSION"));

/// How long connecting may take; a part of a request's time-out.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections are dropped before load balancers do it (60 s is their usual time): one that
/// was closed while the function was frozen would cost a try.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Builds a client whose requests take `timeout` at the most and follow no redirects.
pub fn client(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    // The one TLS provider of the process; an error says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .timeout(timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .redirect(redirect::Policy::none())
        .build()
}

/// The statuses that are worth trying again as they are.
pub fn is_transient(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}

/// `Retry-After` in seconds; the form with a date is not in use by these services.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What went wrong with a request, without its URL, which holds names, and without its body.
pub fn describe(error: &reqwest::Error) -> String {
    use std::error::Error;
    let what = if error.is_timeout() {
        "time-out"
    } else if error.is_connect() {
        "no connection"
    } else if error.is_body() || error.is_decode() {
        "the connection broke within the response"
    } else {
        "the request failed"
    };
    let mut text = what.to_owned();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_is_an_allow_list() {
        let transient: Vec<u16> = (100..600)
            .filter(|status| StatusCode::from_u16(*status).is_ok_and(is_transient))
            .collect();
        assert_eq!(transient, [&[408, 429][..], &(500..600).collect::<Vec<u16>>()].concat());
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let headers = |value: &str| HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("soon")), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
