//! What the error codes of Cloudflare's API mean, in our own words. The messages that come with them may
//! quote what was sent, so they are never read. Pure.

use std::fmt::Write;

/// The largest code: codes have up to five digits. Any larger number is something else.
const CODES: std::ops::RangeInclusive<i64> = 1..=99_999;

/// How many codes of one response are shown.
const SHOWN: usize = 3;

/// Returns codes for the end of a sentence, with their meaning where that is known.
pub fn describe(codes: impl IntoIterator<Item = i64>) -> String {
    let mut text = String::new();
    for code in codes.into_iter().filter(|code| CODES.contains(code)).take(SHOWN) {
        // Writing to a string can't fail.
        let _ = match words(code) {
            Some(words) => write!(text, ", code {code}: {words}"),
            None => write!(text, ", code {code}"),
        };
    }
    text
}

/// Returns the meaning of a code that a KV request can meet, from Cloudflare's list of KV's errors and from
/// what its API returns. Codes that mean one thing to KV and another to the rest of the API are left out, such
/// as 10001, 10007 and 10023.
fn words(code: i64) -> Option<&'static str> {
    Some(match code {
        971 => "too many requests in too short a time",
        6_003 => "invalid request headers: the token may have the wrong form",
        7_000 => "the API has no such address",
        7_003 => "the API has no such address: the account's or the namespace's id is malformed",
        9_109 => "the token is refused",
        10_000 => "the token is refused",
        10_009 => "key not found",
        10_010 => "malformed namespace",
        10_011 => "malformed namespace id",
        10_012 => "malformed body or value",
        10_013 => "namespace not found",
        10_022 => "too many requests",
        10_024 => "the body is too large",
        10_028 => "a limit that is not allowed",
        10_029 => "the request is not as it must be",
        10_030 => "a key is too long",
        10_037 => "the token lacks the permission",
        10_041 => "a cursor that is not valid",
        10_042 => "a key's name is not allowed",
        10_046 => "too many bulk requests",
        10_047 => "a pair's metadata is not as it must be",
        10_048 => "the account's free usage is used up",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_codes_have_words_and_others_stand_alone() {
        assert_eq!(describe([]), "");
        assert_eq!(describe([10_013]), ", code 10013: namespace not found");
        assert_eq!(
            describe([10_001, 971]),
            ", code 10001, code 971: too many requests in too short a time"
        );
        assert_eq!(describe([1, 2, 3, 4]), ", code 1, code 2, code 3");
    }

    #[test]
    fn a_number_that_is_no_code_is_not_shown() {
        assert_eq!(describe([0, -1, 100_000, 4_242_424_242_424_242, i64::MIN, i64::MAX]), "");
    }
}
