//! Where probes go, by curl: it speaks TLS and signs for AWS.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What the probes of a place may take.
const REQUESTS: usize = 100;
const TIME: Duration = Duration::from_secs(150);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    StandIn,
    Wrangler,
    Service,
}

/// A variable of the environment that is not empty.
#[expect(clippy::disallowed_methods, reason = "the places of probes are in no configuration")]
pub fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A KV namespace or a table.
pub struct Place {
    pub is: Where,
    /// The table's name.
    pub table: String,
    address: String,
    /// curl's configuration with the credentials, which no list of processes shows.
    credentials: String,
    requests: AtomicUsize,
    began: Instant,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub headers: String,
    pub body: Value,
}

impl Place {
    /// The namespace at an address.
    pub fn kv(is: Where, address: &str, token: Option<&str>) -> Self {
        let credentials =
            token.map(|token| format!("header = \"Authorization: Bearer {token}\"\n"));
        Self::at(is, address, "", credentials.unwrap_or_default())
    }

    /// A table with the keys `pk` and `sk`.
    pub fn table(is: Where, address: &str, table: &str, region: &str, user: &str) -> Self {
        let mut credentials =
            format!("aws-sigv4 = \"aws:amz:{region}:dynamodb\"\nuser = \"{user}\"\n");
        if let Some(token) = given("AWS_SESSION_TOKEN").filter(|_| is == Where::Service) {
            let _ = writeln!(credentials, "header = \"X-Amz-Security-Token: {token}\"");
        }
        Self::at(is, address, table, credentials)
    }

    fn at(is: Where, address: &str, table: &str, credentials: String) -> Self {
        Self {
            is,
            table: table.to_owned(),
            address: address.trim_end_matches('/').to_owned(),
            credentials,
            requests: AtomicUsize::new(0),
            began: Instant::now(),
        }
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// A request with a JSON body.
    pub fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send_to(&format!("{}{path}", self.address), method, &self.credentials, body)
    }

    /// A request to the same account without its token.
    pub fn send_with_wrong_token(&self, path: &str) -> Answer {
        let wrong = "header = \"Authorization: Bearer wrong\"\n";
        self.send_to(&format!("{}{path}", self.address), "GET", wrong, "")
    }

    /// A request to the namespace beside this one that is not there.
    pub fn send_elsewhere(&self, path: &str) -> Answer {
        let (beside, _) = self.address.rsplit_once('/').unwrap_or_default();
        let address = format!("{beside}/00000000000000000000000000000000{path}");
        self.send_to(&address, "GET", &self.credentials, "")
    }

    /// One operation of DynamoDB.
    pub fn operation(&self, name: &str, body: &Value) -> Answer {
        let target = format!("header = \"X-Amz-Target: DynamoDB_20120810.{name}\"\n");
        let config = target + &self.credentials;
        self.send_to(&format!("{}/", self.address), "POST", &config, &body.to_string())
    }

    fn send_to(&self, address: &str, method: &str, config: &str, body: &str) -> Answer {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        assert!(number < REQUESTS, "more than {REQUESTS} requests");
        assert!(self.began.elapsed() < TIME, "more than {TIME:?}");
        let content_type = if self.table.is_empty() { "json" } else { "x-amz-json-1.0" };
        let file = format!("{}/probe-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        let file = format!(
            "{file}-{}-{number}",
            self.address.replace(|c: char| !c.is_alphanumeric(), "-")
        );
        std::fs::write(&file, body).unwrap();
        let mut curl = Command::new("curl");
        curl.args(["--config", "-", "--silent", "--show-error", "--include", "--max-time", "60"]);
        curl.args(["--request", method, "--header", "Expect:", "--header"]);
        curl.arg(format!("Content-Type: application/{content_type}"));
        if method != "GET" {
            curl.args(["--data-binary", &format!("@{file}")]);
        }
        let curl = curl.arg(address).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut curl = curl.expect("a probe needs curl");
        curl.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        let output = curl.wait_with_output().unwrap();
        let _ = std::fs::remove_file(&file);
        let text = String::from_utf8_lossy(&output.stdout);
        let (headers, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or_else(|| panic!("{method} {address}: no answer")),
            headers: headers.to_lowercase(),
            body: serde_json::from_str(body).unwrap_or_default(),
        }
    }
}

impl Answer {
    /// The code of Cloudflare's error.
    pub fn code(&self) -> Option<u64> {
        self.body["errors"][0]["code"].as_u64()
    }

    /// An error with this answer, where something does not hold.
    pub fn holds(&self, holds: bool) -> Result<(), String> {
        let said: String = self.body.to_string().chars().take(300).collect();
        if holds { Ok(()) } else { Err(format!("({}: {said})", self.status)) }
    }
}
