//! Cloudflare KV's limits, from its documentation and its API's schema.

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 512;
/// The largest value, in bytes: 25 MiB.
pub const MAX_VALUE_BYTES: usize = 25 * 1024 * 1024;
/// The largest metadata of a key, in bytes of JSON.
pub const MAX_METADATA_BYTES: usize = 1024;
/// The most pairs or keys in one bulk write or delete.
pub const MAX_BULK_PAIRS: usize = 10_000;
/// The most keys in one `bulk/get`.
pub const MAX_BULK_GET_KEYS: usize = 100;
/// A bulk request has to stay below 100 MB; the rest is room for what frames it.
pub const MAX_BULK_BODY_BYTES: usize = 100_000_000 - 1_000_000;

/// Whether KV takes `key`: 1 to 512 bytes, not `.` or `..`.
pub fn check_key(key: &str) -> Result<(), &'static str> {
    match key {
        "" => Err("gives an empty KV key"),
        "." | ".." => Err("gives a KV key that Cloudflare refuses (. or ..)"),
        _ if key.len() > MAX_KEY_BYTES => Err("gives a KV key of more than 512 bytes"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_limits_are_in_bytes() {
        assert!(check_key("a").is_ok());
        assert!(check_key("...").is_ok());
        assert!(check_key(&"ä".repeat(256)).is_ok());
        for bad in ["", ".", "..", &"ä".repeat(257), &"a".repeat(513)] {
            assert!(check_key(bad).is_err(), "{bad}");
        }
    }
}
