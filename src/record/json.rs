//! Canonical JSON of DynamoDB attributes: the same attributes always give the same bytes.
//!
//! Keys ascend by code point, sets become ascending arrays, binary becomes base64, an integer of
//! 64 bits stays an integer and any other number is the nearest double. Not covered by plain
//! deserialization, because serde's data model can't tell a set from a list.

use std::cmp::Ordering;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_dynamo::AttributeValue;

use super::Rejection;
use crate::cursor::{plain_bytes, specials};

/// How each byte of a JSON string is escaped that needs it: by the letter given, or, for `u`, by its
/// number.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        escapes[control] = b'u';
        control += 1;
    }
    escapes[0x08] = b'b';
    escapes[0x09] = b't';
    escapes[0x0a] = b'n';
    escapes[0x0c] = b'f';
    escapes[0x0d] = b'r';
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes
};

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let (plain, rest) = text.split_at(plain_bytes(text.as_bytes()));
    out.push_str(plain);
    if !rest.is_empty() {
        push_escaped(out, rest);
    }
    out.push('"');
}

/// Appends `text` as it stands between the quotes of a JSON string.
///
/// Where the value is JSON itself, escapes stand a few bytes apart. So words are written whole, and
/// behind each escape the rest of its word again: in a buffer, as that is no string in between.
#[inline(never)]
pub fn push_escaped(out: &mut String, mut text: &str) {
    const STRETCH: usize = 256;
    let mut buffer = [0; STRETCH * LONGEST_ESCAPE + SLOT];
    while !text.is_empty() {
        let (stretch, rest) = text.split_at(text.floor_char_boundary(STRETCH));
        let length = escape(&mut buffer, stretch.as_bytes());
        // Text that is cut between characters, with ASCII put in: it still is text.
        out.push_str(str::from_utf8(&buffer[..length]).unwrap_or_default());
        text = rest;
    }
}

const LONGEST_ESCAPE: usize = r"\u0000".len();
const WORD: usize = size_of::<u64>();

/// A word with all of its bytes escaped, and what is written in excess behind the last one.
const SLOT: usize = 3 * WORD;

/// Writes `bytes` to the start of `out` and gives the length of what they have become.
fn escape(out: &mut [u8], bytes: &[u8]) -> usize {
    let mut length = 0;
    let (words, rest) = bytes.as_chunks();
    for word in words {
        let slot = out[length..].first_chunk_mut();
        length += match slot.and_then(|slot| escape_word(slot, *word)) {
            Some(written) => written,
            None => escape_bytes(&mut out[length..], word),
        };
    }
    length + escape_bytes(&mut out[length..], rest)
}

/// [`escape`] for eight bytes, unless one of them is escaped by its number.
#[inline]
fn escape_word(slot: &mut [u8; SLOT], bytes: [u8; WORD]) -> Option<usize> {
    slot[..WORD].copy_from_slice(&bytes);
    let word = u64::from_le_bytes(bytes);
    let mut found = specials(word);
    let mut escapes = 0;
    while found != 0 {
        let bits_before = found.trailing_zeros() & !7;
        let rest = word >> bits_before;
        let letter = ESCAPES[(rest & 0xff) as usize];
        if letter == b'u' {
            return None;
        }
        let place = (bits_before / 8) as usize + escapes;
        let [backslash, rest_of_word @ ..] =
            slot.get_mut(place..)?.first_chunk_mut::<{ 1 + WORD }>()?;
        *backslash = b'\\';
        *rest_of_word = rest.to_le_bytes();
        rest_of_word[0] = letter;
        escapes += 1;
        found &= found - 1;
    }
    Some(WORD + escapes)
}

#[inline(never)]
fn escape_bytes(out: &mut [u8], bytes: &[u8]) -> usize {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut length = 0;
    for byte in bytes {
        let digit = DIGITS[usize::from(byte & 0xf)];
        let escape: &[u8] = match ESCAPES[usize::from(*byte)] {
            0 => &[*byte],
            b'u' => &[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), digit],
            letter => &[b'\\', letter],
        };
        out[length..length + escape.len()].copy_from_slice(escape);
        length += escape.len();
    }
    length
}

/// Appends `value` as JSON. `path` names it in a [`Rejection`].
pub fn push_attribute(
    out: &mut String,
    value: &AttributeValue,
    path: &str,
) -> Result<(), Rejection> {
    push(out, value).map_err(|error| {
        let mut full = path.to_owned();
        for step in error.steps.iter().rev() {
            match step {
                Step::Key(key) => {
                    full.push('.');
                    full.push_str(key);
                }
                Step::Index(index) => full.push_str(&format!("[{index}]")),
            }
        }
        Rejection::new(full, NUMBER_EXPECTED)
    })
}

/// Reads a DynamoDB number as [`push_attribute`] writes it.
pub fn number(text: &str) -> Option<serde_json::Number> {
    if let Ok(integer) = text.parse::<i64>() {
        return Some(integer.into());
    }
    if let Ok(integer) = text.parse::<u64>() {
        return Some(integer.into());
    }
    // `from_f64` refuses what JSON can't express: infinities and NaN, which `parse` accepts.
    text.parse().ok().and_then(serde_json::Number::from_f64)
}

const NUMBER_EXPECTED: &str = "must be a number that fits a double";

/// A number that can't be written; the steps that lead to it, innermost first, so that the path
/// costs nothing unless it is needed.
pub struct BadNumber {
    steps: Vec<Step>,
}

enum Step {
    Key(String),
    Index(usize),
}

impl BadNumber {
    fn within(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

fn push(out: &mut String, value: &AttributeValue) -> Result<(), BadNumber> {
    match value {
        AttributeValue::S(text) => push_string(out, text),
        AttributeValue::N(text) => push_number(out, text)?,
        AttributeValue::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        AttributeValue::Null(_) => out.push_str("null"),
        AttributeValue::B(bytes) => push_base64(out, bytes),
        AttributeValue::M(map) => {
            #[expect(clippy::disallowed_methods, reason = "sorted in the next line")]
            let mut entries: Vec<(&String, &AttributeValue)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (position, (key, value)) in entries.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                push_string(out, key);
                out.push(':');
                push(out, value).map_err(|error| error.within(Step::Key(key.clone())))?;
            }
            out.push('}');
        }
        AttributeValue::L(values) => push_array(out, values, push)?,
        AttributeValue::Ss(texts) => {
            let mut texts: Vec<&String> = texts.iter().collect();
            texts.sort_unstable();
            push_array(out, &texts, |out, text| {
                push_string(out, text);
                Ok(())
            })?;
        }
        AttributeValue::Ns(numbers) => {
            let mut numbers: Vec<&String> = numbers.iter().collect();
            numbers.sort_by(|a, b| compare_numbers(a, b));
            push_array(out, &numbers, |out, number| push_number(out, number))?;
        }
        AttributeValue::Bs(blobs) => {
            let mut blobs: Vec<&Vec<u8>> = blobs.iter().collect();
            blobs.sort_unstable();
            push_array(out, &blobs, |out, bytes| {
                push_base64(out, bytes);
                Ok(())
            })?;
        }
    }
    Ok(())
}

fn push_array<T>(
    out: &mut String,
    values: &[T],
    mut push_one: impl FnMut(&mut String, &T) -> Result<(), BadNumber>,
) -> Result<(), BadNumber> {
    out.push('[');
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        push_one(out, value).map_err(|error| error.within(Step::Index(position)))?;
    }
    out.push(']');
    Ok(())
}

/// Appends a DynamoDB number.
pub fn push_number(out: &mut String, text: &str) -> Result<(), BadNumber> {
    if !text.is_empty() && plain_number(text.as_bytes()) == text.len() {
        out.push_str(text);
        return Ok(());
    }
    let number = number(text).ok_or(BadNumber { steps: Vec::new() })?;
    // A string takes whatever is written to it.
    let _ = write!(out, "{number}");
    Ok(())
}

/// How many of the first bytes are a number that is written in the one way that JSON has for it, as
/// far as that is easily told; zero if they are none.
#[inline]
pub fn plain_number(bytes: &[u8]) -> usize {
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let integer = digits(&bytes[sign..]);
    let point = sign + integer;
    let leading_zero = bytes.get(sign) == Some(&b'0');
    if bytes.get(point) != Some(&b'.') {
        // 18 digits fit an i64.
        let plain = if leading_zero { point == 1 } else { matches!(integer, 1..=18) };
        return if plain { point } else { 0 };
    }
    let fraction = &bytes[point + 1..];
    let fraction = &fraction[..digits(fraction)];
    let plain_integer = match integer {
        0 => false,
        // Far enough below one, a double is written with an exponent.
        1 if leading_zero => !fraction.starts_with(b"00"),
        _ => !leading_zero,
    };
    // A double keeps 15 digits, so none of these are more than it takes to tell the double from any
    // other.
    let plain =
        plain_integer && integer + fraction.len() <= 15 && matches!(fraction, [.., b'1'..=b'9']);
    if plain { point + 1 + fraction.len() } else { 0 }
}

/// How many of the first bytes are digits.
#[inline]
fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Appends binary as a base64 string.
fn push_base64(out: &mut String, bytes: &[u8]) {
    out.push('"');
    BASE64.encode_string(bytes, out);
    out.push('"');
}

/// Ascending by value. The double alone would not tell large integers apart, and DynamoDB's 38
/// digits fit an `i128`; the text settles what is left, so that the order is total.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    let double = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN);
    let integer = |text: &str| text.parse::<i128>().ok();
    double(a).total_cmp(&double(b)).then_with(|| integer(a).cmp(&integer(b))).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(dynamodb: &str) -> String {
        let value: AttributeValue = serde_json::from_str(dynamodb).unwrap();
        let mut out = String::new();
        push_attribute(&mut out, &value, "x").unwrap();
        out
    }

    fn n(text: &str) -> String {
        json(&format!(r#"{{"N":"{text}"}}"#))
    }

    #[test]
    fn integers_of_64_bits_stay_integers_and_the_rest_are_doubles() {
        assert_eq!(n("0"), "0");
        assert_eq!(n("-9223372036854775808"), "-9223372036854775808");
        assert_eq!(n("18446744073709551615"), "18446744073709551615");
        assert_eq!(n("18446744073709551616"), "1.8446744073709552e+19");
        assert_eq!(n("-9223372036854775809"), "-9.223372036854776e+18");
        assert_eq!(n("0.1"), "0.1");
        assert_eq!(n("3.14159265358979323846"), "3.141592653589793");
        assert_eq!(n("1E+125"), "1e+125");
    }

    #[test]
    fn what_is_no_number_is_rejected_with_its_path() {
        for bad in ["1e999", "inf", "NaN", "", "abc"] {
            let value: AttributeValue = serde_json::from_str(&format!(
                r#"{{"M":{{"a":{{"L":[{{"S":"ok"}},{{"N":"{bad}"}}]}}}}}}"#
            ))
            .unwrap();
            let error = push_attribute(&mut String::new(), &value, "search_config").unwrap_err();
            assert_eq!(error.path, "search_config.a[1]");
        }
    }

    #[test]
    fn keys_ascend_by_code_point_and_nulls_inside_maps_stay() {
        assert_eq!(
            json(
                r#"{"M":{"b":{"NULL":true},"a":{"BOOL":true},"Z":{"S":"x"},"ä":{"L":[]},"😀":{"M":{}},"\uffee":{"N":"1"}}}"#
            ),
            "{\"Z\":\"x\",\"a\":true,\"b\":null,\"ä\":[],\"\u{ffee}\":1,\"😀\":{}}"
        );
    }

    #[test]
    fn sets_ascend_and_binary_is_base64() {
        assert_eq!(json(r#"{"SS":["b","a","B"]}"#), r#"["B","a","b"]"#);
        assert_eq!(
            json(r#"{"NS":["10","9","-1","0.5","9007199254740993","9007199254740992"]}"#),
            "[-1,0.5,9,10,9007199254740992,9007199254740993]"
        );
        assert_eq!(json(r#"{"B":"aGk="}"#), r#""aGk=""#);
        assert_eq!(json(r#"{"BS":["/w==","AA==","AP8="]}"#), r#"["AA==","AP8=","/w=="]"#);
        assert_eq!(json(r#"{"L":[{"S":"b"},{"S":"a"}]}"#), r#"["b","a"]"#);
    }

    proptest! {
        #[test]
        fn strings_are_written_as_serde_json_writes_them(text in ".*") {
            let mut out = String::new();
            push_string(&mut out, &text);
            prop_assert_eq!(out, serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn escapes_of_every_kind_too(text in r#"[\x00-\x7f"\\äあ\x00\n"]{0,70}|["\\]{0,40}|\x01{0,40}|["a\x01あ]{200,600}"#) {
            let mut out = String::new();
            push_string(&mut out, &text);
            prop_assert_eq!(out, serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn numbers_are_written_as_they_are_read(text in prop_oneof![
            "-?[0-9]{1,20}",
            "[-+]?[0-9]{0,3}",
            "-?[0-9]{0,18}[.]?[0-9]{0,18}",
            "-?[0-9]{1,3}[.][0-9]{1,15}",
            "-?0[.]0{0,6}[0-9]{0,3}",
            "[-+.e0-9]{0,8}",
        ]) {
            let mut out = String::new();
            let written = push_number(&mut out, &text).is_ok().then_some(out);
            prop_assert_eq!(written, number(&text).map(|number| number.to_string()));
        }

        #[test]
        fn number_order_is_total(numbers in proptest::collection::vec(
            prop_oneof![any::<i64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|n| n.to_string()), "[0-9a-z.-]{0,4}"], 0..40)) {
            let mut sorted = numbers;
            sorted.sort_by(|a, b| compare_numbers(a, b));
            prop_assert!(sorted.windows(2).all(|w| compare_numbers(&w[0], &w[1]) != Ordering::Greater));
        }
    }
}
