//! What the HTTP clients share: how they are built, and what a response says about trying again.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode, redirect};
use tokio::time::Instant;

use crate::COMMIT;
use crate::ports::RateLimit;

const VERSION: &str = concat!("ecom-settings-exporter/", env!("CARGO_PKG_VERSION"));

/// How long connecting may take; a part of a request's time-out.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Less than load balancers' usual 60 s: a connection that was closed meanwhile would cost a try.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Builds a client whose requests take `timeout` at the most and follow no redirects.
pub fn client(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    // The one TLS provider of the process; an error says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(format!("{VERSION} ({COMMIT})"))
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

/// The longest wait that a service can ask for: none of the work here lasts as long.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// `Retry-After` in seconds; the form with a date is not in use by these services.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// The longest that Cloudflare's limit of requests takes to be reset.
const MAX_RESET: Duration = Duration::from_secs(300);

/// `Ratelimit: "default";r=50;t=30`: how many requests are left, and the seconds until the reset.
pub fn rate_limit(headers: &HeaderMap) -> Option<RateLimit> {
    let parameters = headers.get("ratelimit")?.to_str().ok()?.split(';').map(str::trim);
    let value = |name: &str| parameters.clone().find_map(|parameter| parameter.strip_prefix(name));
    let number = |name: &str| value(name)?.parse::<u64>().ok();
    let until_reset = Duration::from_secs(number("t=")?).min(MAX_RESET);
    Some(RateLimit { left: number("r=")?, resets_at: Instant::now() + until_reset })
}

/// Why a request has no whole answer: it may have been carried out.
#[derive(Debug, thiserror::Error)]
pub enum LostAnswer {
    #[error("time-out")]
    TimeOut,
    /// There was no connection, or it broke.
    #[error(transparent)]
    Broken(reqwest::Error),
    #[error("an answer of more than {0} bytes")]
    TooLong(usize),
}

impl From<reqwest::Error> for LostAnswer {
    fn from(error: reqwest::Error) -> Self {
        // The URL holds names.
        let error = error.without_url();
        if error.is_timeout() { Self::TimeOut } else { Self::Broken(error) }
    }
}

pub async fn read_body(mut response: Response, limit: usize) -> Result<Bytes, LostAnswer> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Err(LostAnswer::TooLong(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
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

    #[tokio::test(start_paused = true)]
    async fn the_rate_limit_is_read_and_its_reset_is_bounded() {
        let headers = |value: &str| {
            HeaderMap::from_iter([("ratelimit".parse().unwrap(), value.parse().unwrap())])
        };
        let limit = |left, seconds| {
            let resets_at = Instant::now() + Duration::from_secs(seconds);
            Some(RateLimit { left, resets_at })
        };
        assert_eq!(rate_limit(&headers(r#""default";r=50;t=30"#)), limit(50, 30));
        assert_eq!(rate_limit(&headers(r#""x"; t=7 ; r=0"#)), limit(0, 7));
        let most = format!("r={0};t={0}", u64::MAX);
        assert_eq!(rate_limit(&headers(&most)), limit(u64::MAX, 300));
        for none in ["", "r=1", "t=1", "r=-1;t=1", "r=1;t=soon", "r=18446744073709551616;t=1"] {
            assert_eq!(rate_limit(&headers(none)), None, "{none}");
        }
        assert_eq!(rate_limit(&HeaderMap::new()), None);
    }

    #[test]
    fn retry_after_is_read_in_seconds() {
        let headers = |value: &str| HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("18446744073709551615")), Some(MAX_RETRY_AFTER));
        for none in
            ["soon", "-1", "1.5", "", "18446744073709551616", "Wed, 21 Oct 2026 07:28:00 GMT"]
        {
            assert_eq!(retry_after(&headers(none)), None, "{none}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
