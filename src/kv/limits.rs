//! Cloudflare KV's limits, from its documentation and its API's schema.

pub const MAX_KEY_BYTES: usize = 512;
pub const MAX_VALUE_BYTES: usize = 25 * 1024 * 1024;
pub const MAX_METADATA_BYTES: usize = 1024;
/// The most pairs or keys in one bulk write or delete.
pub const MAX_BULK_PAIRS: usize = 10_000;
pub const MAX_BULK_GET_KEYS: usize = 100;
pub const MAX_LIST_KEYS: usize = 1_000;
/// A bulk request has to stay below 100 MB. 1 MB of that is kept for the JSON around the pairs.
pub const MAX_BULK_BODY_BYTES: usize = 100_000_000 - 1_000_000;
const _: () = assert!(MAX_BULK_BODY_BYTES < 100_000_000);

/// Checks that KV takes `key`: 1 to 512 bytes, not `.` or `..`. Like the other checks, it returns the reason of
/// a rejection.
pub fn check_key(key: &str) -> Result<(), &'static str> {
    match key {
        "" => Err("gives an empty KV key"),
        "." | ".." => Err("gives a KV key that Cloudflare refuses (. or ..)"),
        _ if key.len() > MAX_KEY_BYTES => Err("gives a KV key of more than 512 bytes"),
        _ => Ok(()),
    }
}

pub fn check_value_size(bytes: usize) -> Result<(), &'static str> {
    if bytes > MAX_VALUE_BYTES { Err("gives a KV value of more than 25 MiB") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_in_bytes() {
        for good in ["a", "...", &"ä".repeat(256)] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", &"ä".repeat(257), &"a".repeat(513)] {
            assert!(check_key(bad).is_err(), "{bad}");
        }
        assert_eq!(check_value_size(26_214_400), Ok(()));
        assert!(check_value_size(26_214_401).is_err());
    }
}
