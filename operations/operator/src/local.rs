//! The function and its log on the local stack, over HTTP: the AWS CLI is not needed there.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::failure::Failure;
use crate::function::Answer;

/// Where `make local` serves Lambda's API.
const ADDRESS: &str = "http://127.0.0.1:9001";
const FUNCTION: &str = "/2015-03-31/functions/ecom-settings-exporter";

pub struct Local {
    address: String,
}

impl Local {
    /// The stack whose Lambda API is there; by default that of `make local`.
    pub fn at(url: Option<&str>) -> Self {
        let url = url.unwrap_or(ADDRESS).trim_end_matches('/');
        Self { address: url.trim_start_matches("http://").to_owned() }
    }

    pub fn invoke(&self, payload: &Value) -> Result<Answer, Failure> {
        let path = format!("{FUNCTION}/invocations");
        let (head, body) = self.send("POST", &path, &payload.to_string())?;
        let failed = head.to_ascii_lowercase().contains("\r\nx-amz-function-error:");
        Ok(Answer { text: body, failed })
    }

    /// All that the function has printed, line by line.
    pub fn log(&self) -> Result<String, Failure> {
        Ok(self.send("GET", &format!("{FUNCTION}/log"), "")?.1)
    }

    /// A request on a connection of its own. Returns the answer's head and body.
    fn send(&self, method: &str, path: &str, body: &str) -> Result<(String, String), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::because(format!("{}: {error}: is `make local` running?", self.address))
        };
        let mut stream = TcpStream::connect(&self.address).map_err(|error| failed(&error))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len(),
        );
        let mut answer = Vec::new();
        let sent = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
        sent.and_then(|()| stream.read_to_end(&mut answer)).map_err(|error| failed(&error))?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| failed(&"no answer"))?;
        match head.split(' ').nth(1) {
            Some("200") => Ok((head.to_owned(), body.to_owned())),
            _ => Err(failed(&format!("{} {body}", head.lines().next().unwrap_or_default()))),
        }
    }
}
