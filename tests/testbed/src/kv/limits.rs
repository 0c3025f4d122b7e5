//! Cloudflare's limits.

use serde_json::Value;
use serde_json::value::RawValue;

use super::wire::{BAD_BODY, Refusal};

/// Pairs or keys in a bulk request.
const MAX_PAIRS: usize = 10_000;
/// Bytes of a bulk request.
const MAX_BODY: usize = 100_000_000;
/// Bytes of a key.
const MAX_KEY: usize = 512;
/// Bytes of a value.
const MAX_VALUE: usize = 25 * 1024 * 1024;
/// Bytes of a pair's metadata as JSON.
const MAX_METADATA: usize = 1_024;
/// Keys in a `bulk/get`.
pub const MAX_GET: usize = 100;
/// Bytes of values in the reply to a `bulk/get`.
pub const MAX_GET_BYTES: usize = 25 * 1024 * 1024;

pub fn body(bytes: usize) -> Result<(), Refusal> {
    if bytes > MAX_BODY {
        return Err(Refusal::new(413, BAD_BODY, "body is over 100 MB"));
    }
    Ok(())
}

pub fn count(pairs: usize) -> Result<(), Refusal> {
    if pairs > MAX_PAIRS {
        return Err(Refusal::bad(format!("{pairs} pairs are more than {MAX_PAIRS}")));
    }
    Ok(())
}

pub fn key(key: &str) -> Result<(), Refusal> {
    if key.len() > MAX_KEY {
        let length = key.len();
        let message =
            format!("UTF-8 encoded length of {length} exceeds key length limit of {MAX_KEY}.");
        return Err(Refusal::new(414, BAD_BODY, message));
    }
    if matches!(key, "" | "." | "..") {
        return Err(Refusal::bad(format!("key {key:?} is not allowed")));
    }
    Ok(())
}

pub fn value(value: &str) -> Result<(), Refusal> {
    if value.len() > MAX_VALUE {
        return Err(Refusal::new(413, BAD_BODY, "a value is over 25 MiB"));
    }
    Ok(())
}

/// Checks and parses a pair's metadata.
pub fn metadata(raw: &RawValue) -> Result<Value, Refusal> {
    let value: Value = serde_json::from_str(raw.get())
        .map_err(|error| Refusal::bad(format!("could not parse metadata: {error}")))?;
    // Blanks in what was sent do not count.
    if raw.get().len() > MAX_METADATA && value.to_string().len() > MAX_METADATA {
        return Err(Refusal::bad(format!("metadata is over {MAX_METADATA} bytes")));
    }
    Ok(value)
}
