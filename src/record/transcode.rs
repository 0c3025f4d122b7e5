//! From DynamoDB JSON straight to canonical JSON: what [`super::json`] gives
//! for the decoded attribute, without holding it in between.
//!
//! That way goes what is written compactly and has the usual types. Any other attribute is decoded,
//! so that there is one place that says what is taken, and as what.

use std::cmp::Ordering;

use serde_dynamo::AttributeValue;

use super::json;
use crate::cursor::{Cursor, Malformed, first_special, plain_bytes};

/// How deep DynamoDB nests attributes; decoding takes some more.
const MAX_DEPTH: usize = 32;

const WORD: usize = size_of::<u64>();

// How attributes start, by their types; with the first byte of the value where a word has room.
const S: u64 = u64::from_le_bytes(*b"{\"S\":\"\0\0");
const N: u64 = u64::from_le_bytes(*b"{\"N\":\"\0\0");
const M: u64 = u64::from_le_bytes(*b"{\"M\":{\0\0");
const L: u64 = u64::from_le_bytes(*b"{\"L\":[\0\0");
const SIX_BYTES: u64 = (1 << 48) - 1;
const BOOL: u64 = u64::from_le_bytes(*b"{\"BOOL\":");
const NULL: u64 = u64::from_le_bytes(*b"{\"NULL\":");

/// The byte of a word that is a string's opening quote.
const OPENING_QUOTE: u64 = 0xff;

/// Transcodes attributes, one after the other.
#[derive(Debug)]
pub struct Transcoder {
    /// The attribute as far as it is written. In bytes: words are copied that may end within a
    /// character.
    json: Vec<u8>,
    /// The entries of the maps that are open, the innermost map's last.
    entries: Vec<Entry>,
}

/// Where an entry of a map stands in what is written.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The first bytes of the key as a number that ascends as they do; tells most keys apart.
    prefix: u64,
    /// Where the entry starts, with its key.
    start: usize,
    key_end: usize,
    /// Behind the comma or brace that follows the entry.
    end: usize,
}

impl Default for Transcoder {
    fn default() -> Self {
        // Grown from nothing, they would take up a tenth of the time.
        Self { json: Vec::with_capacity(2048), entries: Vec::with_capacity(32) }
    }
}

impl Transcoder {
    /// Takes an attribute in DynamoDB JSON and appends it to `out` as canonical JSON.
    ///
    /// An error says nothing but that the attribute is malformed, or a number of it can't be
    /// written; decoding it finds out what and where. `out` then ends with a part of it.
    pub fn push(&mut self, out: &mut String, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        self.json.clear();
        self.entries.clear();
        let text = cursor.rest();
        let Some(rest) = self.attribute(text, 0) else {
            return push_decoded(out, cursor);
        };
        cursor.pass(text.len() - rest.len());
        out.push_str(str::from_utf8(&self.json).map_err(|_| Malformed)?);
        Ok(())
    }

    /// Takes the attribute that `text` starts with and gives what is behind it; nothing if it has
    /// to be decoded. All that follow do the same with what they are for.
    #[inline(always)]
    fn attribute<'t>(&mut self, text: &'t [u8], depth: usize) -> Option<&'t [u8]> {
        let (start, value) = text.split_first_chunk()?;
        let start = u64::from_le_bytes(*start);
        let rest = match start & SIX_BYTES {
            S => self.string(&text[5..])?,
            N => self.number(&text[6..])?,
            M => self.map(&text[6..], depth + 1)?,
            L => self.list(&text[6..], depth + 1)?,
            _ => self.constant(start, value)?,
        };
        rest.strip_prefix(b"}")
    }

    /// A map, from behind its opening brace.
    fn map<'t>(&mut self, mut text: &'t [u8], depth: usize) -> Option<&'t [u8]> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.json.push(b'{');
        if let Some(rest) = text.strip_prefix(b"}") {
            self.json.push(b'}');
            return Some(rest);
        }
        let body = self.json.len();
        let first = self.entries.len();
        let (mut ascending, mut last_prefix) = (true, 0);
        let mut separator = b',';
        while separator == b',' {
            let start = self.json.len();
            let (prefix, value) = self.key(text)?;
            let key_end = self.json.len();
            self.json.push(b':');
            let (next, rest) = self.attribute(value, depth)?.split_first()?;
            (separator, text) = (*next, rest);
            self.json.push(separator);
            self.entries.push(Entry { prefix, start, key_end, end: self.json.len() });
            ascending &= last_prefix < prefix;
            last_prefix = prefix;
        }
        if !ascending {
            self.put_in_order(body, first);
        }
        self.entries.truncate(first);
        (separator == b'}').then_some(text)
    }

    /// Writes the entries from the `first` on again, which stand from `body` on, with their keys
    /// ascending. Of a key that stands twice the last one is kept, as in a decoded map.
    fn put_in_order(&mut self, body: usize, first: usize) {
        let Self { json, entries } = self;
        let entries = &mut entries[first..];
        entries.sort_by(|a, b| a.compare(b, json));
        // So that what follows each of them is a comma.
        replace_last(json, b',');
        let ordered = json.len();
        for (position, entry) in entries.iter().enumerate() {
            let next = entries.get(position + 1);
            if next.is_none_or(|next| entry.compare(next, json).is_ne()) {
                json.extend_from_within(entry.start..entry.end);
            }
        }
        replace_last(json, b'}');
        json.copy_within(ordered.., body);
        json.truncate(body + json.len() - ordered);
    }

    /// A list, from behind its opening bracket.
    fn list<'t>(&mut self, mut text: &'t [u8], depth: usize) -> Option<&'t [u8]> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.json.push(b'[');
        if let Some(rest) = text.strip_prefix(b"]") {
            self.json.push(b']');
            return Some(rest);
        }
        let mut separator = b',';
        while separator == b',' {
            let (next, rest) = self.attribute(text, depth)?.split_first()?;
            (separator, text) = (*next, rest);
            self.json.push(separator);
        }
        (separator == b']').then_some(text)
    }

    /// A key with the colon behind it; its [`Entry::prefix`] comes first.
    #[inline(always)]
    fn key<'t>(&mut self, text: &'t [u8]) -> Option<(u64, &'t [u8])> {
        let (start, _) = text.split_first_chunk()?;
        let start = u64::from_le_bytes(*start);
        let (special, rest) = self.copy(text, OPENING_QUOTE)?;
        let rest = rest.strip_prefix(b":")?;
        // Without escapes, the bytes ascend as the code points do.
        let plain = start as u8 == b'"' && special == b'"';
        plain.then_some((prefix(start), rest))
    }

    /// A string, from its opening quote on.
    #[inline(always)]
    fn string<'t>(&mut self, text: &'t [u8]) -> Option<&'t [u8]> {
        let before = self.json.len();
        match self.copy(text, OPENING_QUOTE)? {
            (b'"', rest) => Some(rest),
            (_, rest) => self.escaped_string(text, before, rest),
        }
    }

    /// A string that is written from `before` on up to a byte that isn't plain, with `rest` behind.
    #[inline(never)]
    fn escaped_string<'t>(
        &mut self,
        text: &'t [u8],
        before: usize,
        mut rest: &'t [u8],
    ) -> Option<&'t [u8]> {
        // These escapes are those of canonical JSON.
        while let (
            Some(b'\\'),
            [letter @ (b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't'), behind @ ..],
        ) = (self.json.last(), rest)
        {
            self.json.push(*letter);
            let (special, next) = self.copy(behind, 0)?;
            if special == b'"' {
                return Some(next);
            }
            rest = next;
        }
        self.json.truncate(before);
        let mut strings = serde_json::Deserializer::from_slice(text).into_iter::<String>();
        let decoded = strings.next()?.ok()?;
        let mut canonical = String::new();
        json::push_string(&mut canonical, &decoded);
        self.json.extend_from_slice(canonical.as_bytes());
        text.get(strings.byte_offset()..)
    }

    /// Copies up to the first byte that isn't plain in a string, that one too; gives it and what is
    /// behind it. The bytes are copied as they are looked at, in words, and those in excess are cut.
    /// The bytes `ignored` of the first word count as plain.
    #[inline(always)]
    fn copy<'t>(&mut self, mut text: &'t [u8], mut ignored: u64) -> Option<(u8, &'t [u8])> {
        loop {
            let (bytes, rest) = match text.split_first_chunk() {
                Some((bytes, rest)) => (*bytes, rest),
                None => (last_word(text), Default::default()),
            };
            self.json.extend_from_slice(&bytes);
            let word = u64::from_le_bytes(bytes);
            let found = first_special(word) & !ignored;
            if found != 0 {
                let bits_before = found.trailing_zeros() & !7;
                let taken = (bits_before / 8) as usize + 1;
                self.json.truncate(self.json.len() - (WORD - taken));
                return Some(((word >> bits_before) as u8, text.get(taken..)?));
            }
            (text, ignored) = (rest, 0);
        }
    }

    /// A number, from behind its opening quote.
    #[inline(always)]
    fn number<'t>(&mut self, text: &'t [u8]) -> Option<&'t [u8]> {
        let (number, rest) = text.split_at(json::plain_number(text));
        match rest.strip_prefix(b"\"") {
            Some(rest) if !number.is_empty() => {
                self.json.extend_from_slice(number);
                Some(rest)
            }
            _ => self.other_number(text),
        }
    }

    /// A number that JSON writes in another way.
    #[inline(never)]
    fn other_number<'t>(&mut self, text: &'t [u8]) -> Option<&'t [u8]> {
        let (number, rest) = text.split_at(plain_bytes(text));
        let mut canonical = String::new();
        json::push_number(&mut canonical, str::from_utf8(number).ok()?).ok()?;
        self.json.extend_from_slice(canonical.as_bytes());
        rest.strip_prefix(b"\"")
    }

    /// The `value` that `start`, the word before it, says to be a BOOL or NULL.
    #[inline(always)]
    fn constant<'t>(&mut self, start: u64, value: &'t [u8]) -> Option<&'t [u8]> {
        match (start, value) {
            (BOOL, [b't', b'r', b'u', b'e', rest @ ..]) => {
                self.json.extend_from_slice(b"true");
                Some(rest)
            }
            (BOOL, [b'f', b'a', b'l', b's', b'e', rest @ ..]) => {
                self.json.extend_from_slice(b"false");
                Some(rest)
            }
            (NULL, [b't', b'r', b'u', b'e', rest @ ..]) => {
                self.json.extend_from_slice(b"null");
                Some(rest)
            }
            _ => None,
        }
    }
}

impl Entry {
    #[inline]
    fn compare(&self, other: &Self, json: &[u8]) -> Ordering {
        // Between their quotes.
        let key = |entry: &Self| &json[entry.start + 1..entry.key_end - 1];
        self.prefix.cmp(&other.prefix).then_with(|| key(self).cmp(key(other)))
    }
}

/// What a key's first word holds of it, up to seven bytes with the opening quote, as a number that
/// ascends as they do.
#[inline(always)]
fn prefix(start: u64) -> u64 {
    let end = first_special(start) & !OPENING_QUOTE;
    let before = (end ^ end.wrapping_sub(1)) >> 8;
    (start & before).swap_bytes()
}

/// The last few bytes of a text, with zeros behind them, which end a string but don't close it.
#[cold]
#[inline(never)]
fn last_word(text: &[u8]) -> [u8; WORD] {
    let mut word = [0; WORD];
    word[..text.len()].copy_from_slice(text);
    word
}

fn replace_last(json: &mut [u8], byte: u8) {
    if let Some(last) = json.last_mut() {
        *last = byte;
    }
}

/// [`Transcoder::push`] for what isn't as it usually is.
#[cold]
#[inline(never)]
fn push_decoded(out: &mut String, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
    let value: AttributeValue = serde_json::from_str(cursor.skip()?).map_err(|_| Malformed)?;
    json::push_attribute(out, &value, "").map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn decoded(dynamodb: &str) -> Option<String> {
        let value: AttributeValue = serde_json::from_str(dynamodb).ok()?;
        let mut out = String::new();
        json::push_attribute(&mut out, &value, "").ok()?;
        Some(out)
    }

    fn transcoded(dynamodb: &str) -> Option<String> {
        transcoded_before(dynamodb, "")
    }

    /// With text behind the attribute, which has to be left there.
    fn transcoded_before(dynamodb: &str, rest: &str) -> Option<String> {
        let text = format!("{dynamodb}{rest}");
        let mut out = String::from("before");
        let mut cursor = Cursor::new(&text);
        Transcoder::default().push(&mut out, &mut cursor).ok()?;
        if rest.is_empty() {
            cursor.end().ok()?;
        } else {
            assert_eq!(cursor.rest(), rest.as_bytes());
        }
        out.strip_prefix("before").map(str::to_owned)
    }

    fn needs_decoding(dynamodb: &str) -> bool {
        Transcoder::default().attribute(dynamodb.as_bytes(), 0).is_none()
    }

    #[test]
    fn the_usual_is_transcoded() {
        for usual in [
            r#"{"S":""}"#,
            r#"{"S":"a\"b\\c\n\/\u00e9ä"}"#,
            r#"{"N":"-12.5"}"#,
            r#"{"N":"1e3"}"#,
            r#"{"BOOL":true}"#,
            r#"{"BOOL":false}"#,
            r#"{"NULL":true}"#,
            r#"{"L":[]}"#,
            r#"{"L":[{"S":"b"},{"N":"1"}]}"#,
            r#"{"M":{}}"#,
            r#"{"M":{"b":{"S":"x"},"a":{"M":{"a_longer_key_2":{"N":"2"},"a_longer_key_1":{"N":"1"}}}}}"#,
            &nested(MAX_DEPTH),
        ] {
            assert!(!needs_decoding(usual), "{usual}");
            assert_eq!(transcoded(usual), Some(decoded(usual).unwrap()));
        }
    }

    #[test]
    fn the_rest_is_decoded() {
        for rare in [
            r#"{"M":{"a":{"S": "x"}}}"#,
            r#" {"S":"x"}"#,
            r#"{"M":{"\u0061":{"S":"x"},"a":{"S":"y"}}}"#,
            r#"{"\u0053":"x"}"#,
            r#"{"NULL":false}"#,
            r#"{"B":"aGk="}"#,
            r#"{"SS":["b","a"]}"#,
            r#"{"NS":["10","9"]}"#,
            r#"{"BS":["/w==","AA=="]}"#,
            r#"{"N":"\u0031"}"#,
            &nested(MAX_DEPTH + 1),
        ] {
            assert!(needs_decoding(rare), "{rare}");
            assert_eq!(transcoded(rare), Some(decoded(rare).unwrap()));
        }
    }

    fn nested(depth: usize) -> String {
        (0..depth).fold(r#"{"S":"x"}"#.to_owned(), |inner, level| match level % 2 {
            0 => format!(r#"{{"L":[{inner}]}}"#),
            _ => format!(r#"{{"M":{{"k":{inner}}}}}"#),
        })
    }

    #[test]
    fn nesting_is_bounded_as_in_decoding() {
        for depth in 0..140 {
            assert_eq!(transcoded(&nested(depth)), decoded(&nested(depth)), "{depth}");
        }
        let deep = format!("{}{}", r#"{"L":["#.repeat(10_000), "]}".repeat(10_000));
        assert_eq!(transcoded(&deep), None);
    }

    #[test]
    fn a_key_that_stands_twice_counts_as_it_does_decoded() {
        for twice in [
            r#"{"M":{"a":{"N":"1"},"b":{"N":"2"},"a":{"N":"3"}}}"#,
            r#"{"M":{"a":{"N":"1"},"a":{"N":"3"}}}"#,
            r#"{"M":{"a_longer_key":{"N":"1"},"a_longer_kex":{"N":"2"},"a_longer_key":{"N":"3"}}}"#,
        ] {
            assert_eq!(transcoded(twice), decoded(twice));
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in [
            r#"{}"#,
            r#"{"Q":1}"#,
            r#"{"S":1}"#,
            r#"{"S":"\ud800"}"#,
            r#"{"S":"\x"}"#,
            "{\"S\":\"\n\"}",
            r#"{"N":"x"}"#,
            r#"{"N":""}"#,
            r#"{"N":1}"#,
            r#"{"B":"*"}"#,
            r#"{"L":{}}"#,
            r#"{"L":[{"S":"a"},]}"#,
            r#"{"L":[{"S":"a"}}}"#,
            r#"{"M":[]}"#,
            r#"{"M":{"a":{"S":"a"},}}"#,
            r#"{"M":{"a":{"S":"a"}]}"#,
            r#"{"S":"a","N":"1"}"#,
            r#"{"S":"a"} x"#,
            "7",
            "",
        ] {
            assert_eq!((transcoded(bad), decoded(bad)), (None, None), "{bad}");
        }
    }

    /// A string in all the ways it may be written.
    fn literal() -> impl Strategy<Value = String> {
        let text = prop_oneof![".*", "[a-z_]{0,30}", r#"["\\/\n\t\x01aä]{0,20}"#, "😀{0,5}"];
        (text, 0..4_u8).prop_map(|(text, way)| match way {
            0 => {
                let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
                format!("\"{}\"", units.collect::<String>())
            }
            1 => serde_json::to_string(&text).unwrap().replace('/', r"\/"),
            _ => serde_json::to_string(&text).unwrap(),
        })
    }

    /// So few that some stand twice; most without escapes, many alike at their starts.
    fn key() -> impl Strategy<Value = String> {
        let plain =
            prop_oneof!["[a-c !#]{0,3}", "[a-b]{6,9}", "attribute_[a-c]{0,2}", "[aä😀あ]{0,4}"];
        prop_oneof![
            15 => plain.prop_map(|key| format!("\"{key}\"")),
            1 => literal(),
        ]
    }

    fn number() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            any::<u64>().prop_map(|n| n.to_string()),
            (-1e30..1e30).prop_map(|n: f64| n.to_string()),
            "-?[0-9]{1,3}",
            "-?[0-9]{1,3}[.][0-9]{1,15}",
            "-?[0-9]{1,38}",
            "-?[0-9]([.][0-9]{1,3})?[eE][-+]?[0-9]{1,2}",
        ]
    }

    /// Attributes as they are written, most of them compactly and of the usual types.
    fn attribute() -> impl Strategy<Value = String> {
        let blob =
            || vec(any::<u8>(), 0..6).prop_map(|bytes| format!("{:?}", BASE64.encode(bytes)));
        let set = |kind: &'static str, elements: BoxedStrategy<String>| {
            vec(elements, 0..4)
                .prop_map(move |elements| format!(r#"{{"{kind}":[{}]}}"#, elements.join(",")))
        };
        let quoted = || number().prop_map(|number| format!("{number:?}"));
        let leaf = prop_oneof![
            20 => literal().prop_map(|text| format!(r#"{{"S":{text}}}"#)),
            20 => quoted().prop_map(|number| format!(r#"{{"N":{number}}}"#)),
            10 => any::<bool>().prop_map(|flag| format!(r#"{{"BOOL":{flag}}}"#)),
            10 => Just(r#"{"NULL":true}"#.to_owned()),
            1 => blob().prop_map(|blob| format!(r#"{{"B":{blob}}}"#)),
            1 => set("SS", literal().boxed()),
            1 => set("NS", quoted().boxed()),
            1 => set("BS", blob().boxed()),
            1 => literal().prop_map(|text| format!("{{ \"S\" : {text} }}\n")),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let entry = (key(), inner.clone()).prop_map(|(key, value)| format!("{key}:{value}"));
            prop_oneof![
                vec(inner, 0..5).prop_map(|list| format!(r#"{{"L":[{}]}}"#, list.join(","))),
                vec(entry, 0..8)
                    .prop_map(|entries| format!(r#"{{"M":{{{}}}}}"#, entries.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn transcoding_gives_what_decoding_gives(
            attribute in attribute(),
            rest in prop_oneof![Just(""), Just("}"), Just(r#","next":{"S":"x"}}}"#), Just(" ]")],
        ) {
            prop_assert_eq!(transcoded_before(attribute.trim_end(), rest), decoded(&attribute));
        }

        #[test]
        fn what_is_cut_or_changed_somewhere_is_answered_as_when_decoded(
            attribute in attribute(),
            place in any::<Index>(),
            instead in prop_oneof![r#"[ \n{}\[\]",:\\SN01.e-]"#, Just(String::new())],
            replaced in 0..2_usize,
        ) {
            let places: Vec<usize> = attribute.char_indices().map(|(place, _)| place).collect();
            let place = *place.get(&places);
            let (before, rest) = attribute.split_at(place);
            prop_assert_eq!(transcoded(before), decoded(before));
            let changed = format!("{before}{instead}{}", rest.chars().skip(replaced).collect::<String>());
            prop_assert_eq!(transcoded(&changed), decoded(&changed));
        }

        #[test]
        fn any_text_is_answered_as_when_decoded(text in r#"[{}\[\]",:SNMLB01a ]{0,24}"#) {
            prop_assert_eq!(transcoded(&text), decoded(&text));
        }
    }
}
