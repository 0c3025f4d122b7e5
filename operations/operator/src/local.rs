//! The function and its log on the local stack, over HTTP: the AWS CLI is not needed there.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::{Failure, failed};

/// The stack whose Lambda API has this URL.
pub struct Local(pub String);

impl Local {
    /// Returns what the function answers, and whether that is an error.
    pub fn invoke(&self, payload: &Value) -> Result<(String, bool), Failure> {
        let (head, text) = self.send("POST", "invocations", &payload.to_string())?;
        Ok((text, head.to_ascii_lowercase().contains("\r\nx-amz-function-error:")))
    }

    /// All that the function has printed.
    pub fn log(&self) -> Result<String, Failure> {
        Ok(self.send("GET", "log", "")?.1)
    }

    /// Sends a request on a connection of its own. Returns the head and the body of the response.
    fn send(&self, method: &str, of: &str, body: &str) -> Result<(String, String), Failure> {
        let (address, length) = (self.0.trim_start_matches("http://"), body.len());
        let failed = |error: &dyn Display| {
            failed(format_args!("The local stack, {address}: {error}. `make local` starts it."))
        };
        let request = format!(
            "{method} /2015-03-31/functions/ecom-settings-exporter/{of} HTTP/1.1\r\nHost: {address}\
             \r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}",
        );
        let mut response = Vec::new();
        let mut stream = TcpStream::connect(address).map_err(|error| failed(&error))?;
        let sent = stream.write_all(request.as_bytes());
        sent.and_then(|()| stream.read_to_end(&mut response)).map_err(|error| failed(&error))?;
        let response = String::from_utf8_lossy(&response);
        let (head, body) = response.split_once("\r\n\r\n").ok_or_else(|| failed(&"no response"))?;
        match head.split(' ').nth(1) {
            Some("200") => Ok((head.to_owned(), body.to_owned())),
            _ => Err(failed(&format_args!("{} {body}", head.lines().next().unwrap_or_default()))),
        }
    }
}
