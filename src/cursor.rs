//! A cursor over JSON text: reads a large event once, and copies nothing that can be borrowed.
//!
//! It is made for what is well-formed and compact, as Lambda delivers it; what it refuses, its
//! callers give to serde_json, which is slower and says what is wrong.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// How deep objects and arrays may be nested; serde_json's bound.
const MAX_DEPTH: usize = 127;

/// The text isn't what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// A JSON string as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    literal: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// The string with its quotes, if it is written without escapes.
    #[inline]
    pub fn plain_literal(self) -> Option<&'a str> {
        (!self.escaped).then_some(self.literal)
    }

    /// The string that is meant.
    #[inline]
    pub fn decoded(self) -> Result<Cow<'a, str>, Malformed> {
        if self.escaped {
            return serde_json::from_str(self.literal).map(Cow::Owned).map_err(|_| Malformed);
        }
        Ok(Cow::Borrowed(&self.literal[1..self.literal.len() - 1]))
    }
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// The next byte behind any blanks; the cursor stays before it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        match self.text.as_bytes().get(self.at) {
            Some(byte) if *byte > b' ' => Some(*byte),
            _ => self.peek_behind_blanks(),
        }
    }

    #[cold]
    #[inline(never)]
    fn peek_behind_blanks(&mut self) -> Option<u8> {
        while let Some(byte) = self.text.as_bytes().get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Takes `byte`.
    #[inline]
    pub fn take(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.took(byte) { Ok(()) } else { Err(Malformed) }
    }

    /// Takes a string. Most are so short that a call would cost a third of what they do.
    #[inline(always)]
    pub fn string(&mut self) -> Result<Text<'a>, Malformed> {
        self.take(b'"')?;
        let start = self.at - 1;
        self.at += plain_bytes(self.rest());
        let escaped = self.rest().first() != Some(&b'"');
        if escaped {
            self.pass_escapes()?;
        }
        self.at += 1;
        let literal = self.text.get(start..self.at).ok_or(Malformed)?;
        Ok(Text { literal, escaped })
    }

    /// From the first escape to the quote that ends the string.
    #[cold]
    #[inline(never)]
    fn pass_escapes(&mut self) -> Result<(), Malformed> {
        while self.rest().first() == Some(&b'\\') {
            self.at += 2;
            self.at += plain_bytes(self.rest());
        }
        if self.rest().first() == Some(&b'"') { Ok(()) } else { Err(Malformed) }
    }

    /// What isn't taken yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Goes on behind a value whose `bytes` the caller has read in [`Self::rest`].
    #[inline]
    pub fn pass(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Takes an object; `each` takes the value of each key.
    #[inline]
    pub fn object<E: From<Malformed>>(
        &mut self,
        mut each: impl FnMut(&mut Self, Text<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.enter(b'{')?;
        let mut more = self.peek() != Some(b'}');
        while more {
            let key = self.string()?;
            self.take(b':')?;
            each(self, key)?;
            more = self.took(b',');
        }
        Ok(self.leave(b'}')?)
    }

    /// Takes an array; `each` takes each element.
    pub fn array(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.enter(b'[')?;
        let mut more = self.peek() != Some(b']');
        while more {
            each(self)?;
            more = self.took(b',');
        }
        self.leave(b']')
    }

    /// Takes true or false.
    pub fn flag(&mut self) -> Result<bool, Malformed> {
        self.peek();
        let flag = self.rest().starts_with(b"true");
        if !flag && !self.rest().starts_with(b"false") {
            return Err(Malformed);
        }
        self.at += if flag { "true".len() } else { "false".len() };
        Ok(flag)
    }

    /// Takes whatever value comes, however deep it is nested, and gives its text.
    pub fn skip(&mut self) -> Result<&'a str, Malformed> {
        self.peek();
        let rest = self.text.get(self.at..).ok_or(Malformed)?;
        let mut json = serde_json::Deserializer::from_str(rest);
        let raw = <&'a RawValue>::deserialize(&mut json).map_err(|_| Malformed)?.get();
        self.at += raw.len();
        Ok(raw)
    }

    /// The text from here to where `end` has come.
    pub fn text_to(&self, end: &Self) -> &'a str {
        self.text.get(self.at..end.at).unwrap_or_default().trim_ascii_start()
    }

    /// Refuses anything but blanks up to the end.
    pub fn end(&mut self) -> Result<(), Malformed> {
        if self.peek().is_none() { Ok(()) } else { Err(Malformed) }
    }

    #[inline]
    fn took(&mut self, byte: u8) -> bool {
        // Before the blanks are looked for, of which compact JSON has none.
        let found = self.text.as_bytes().get(self.at) == Some(&byte) || self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// Takes the bracket that opens an object or array, for one that is taken piece by piece.
    pub fn enter(&mut self, bracket: u8) -> Result<(), Malformed> {
        self.take(bracket)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(Malformed) } else { Ok(()) }
    }

    /// Takes the bracket that closes what was entered.
    pub fn leave(&mut self, bracket: u8) -> Result<(), Malformed> {
        self.take(bracket)?;
        self.depth -= 1;
        Ok(())
    }
}

/// How many of the first bytes need no escape in a JSON string: eight at a time.
#[inline]
pub fn plain_bytes(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks();
    let mut plain = 0;
    for word in words {
        let found = first_special(u64::from_le_bytes(*word));
        if found != 0 {
            return plain + found.trailing_zeros() as usize / 8;
        }
        plain += word.len();
    }
    plain + plain_bytes_one_by_one(rest)
}

#[inline(never)]
fn plain_bytes_one_by_one(bytes: &[u8]) -> usize {
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    bytes.iter().position(special).unwrap_or(bytes.len())
}

/// The high bit of each of eight bytes that needs an escape in a JSON string.
#[inline]
pub fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // A byte whose high bit is set keeps it unless it was below what is taken away.
    let high = word | HIGHS;
    // With this bit turned, the quote comes right behind the control characters.
    let control_or_quote = (high ^ (ONES * 0x02)) - ONES * 0x21;
    let backslash = (high ^ (ONES * 0x5c)) - ONES;
    !(control_or_quote & backslash) & !word & HIGHS
}

/// [`specials`] for where only the first counts; those behind it may be wrong.
#[inline]
pub fn first_special(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // Only a byte that is found borrows from the next.
    let control_or_quote = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    (control_or_quote | backslash) & !word & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        match cursor.peek() {
            Some(b'{') => cursor.object(|cursor, key| {
                key.decoded()?;
                walk(cursor)
            }),
            Some(b'[') => cursor.array(walk),
            Some(b'"') => cursor.string()?.decoded().map(drop),
            _ => cursor.skip().map(drop),
        }
    }

    fn walked(text: &str) -> bool {
        let mut cursor = Cursor::new(text);
        walk(&mut cursor).and_then(|()| cursor.end()).is_ok()
    }

    #[test]
    fn nesting_is_bounded_where_it_is_entered_and_not_where_it_is_skipped() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for depth in [127, 128] {
            let taken = serde_json::from_str::<serde_json::Value>(&nested(depth)).is_ok();
            assert_eq!((walked(&nested(depth)), taken), (depth == 127, depth == 127));
        }
        assert!(!walked(&"[{\"a\":".repeat(100_000)));
        let deep = nested(10_000);
        let mut cursor = Cursor::new(&deep);
        assert_eq!(cursor.skip(), Ok(&*deep));
        assert_eq!(cursor.end(), Ok(()));
    }

    proptest! {
        #[test]
        fn takes_what_serde_json_takes(
            text in prop_oneof![".*", r#"[\[\]{}",:\\a1e. n\x01äu0]{0,20}"#, r#"(\[|\{"a":|"[^"]*"|,|\]|\}|1){0,12}"#],
        ) {
            let valid = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            prop_assert_eq!(walked(&text), valid);
        }

        #[test]
        fn strings_mean_what_serde_json_reads(meant in ".*", rest in ".*") {
            let literal = serde_json::to_string(&meant).unwrap();
            let text = format!("{literal}{rest}");
            let mut cursor = Cursor::new(&text);
            let string = cursor.string().unwrap();
            prop_assert_eq!(string.decoded().unwrap(), meant);
            prop_assert!(string.plain_literal().is_none_or(|plain| plain == literal));
            prop_assert_eq!(&text[cursor.at..], rest);
        }

        #[test]
        fn plain_bytes_end_at_the_first_that_needs_an_escape(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), 0x1e..0x24_u8, 0x20..0x7f_u8], 0..40),
        ) {
            let expected = bytes.iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\');
            prop_assert_eq!(plain_bytes(&bytes), expected.unwrap_or(bytes.len()));
            for word in bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)) {
                prop_assert_eq!(first_special(word).trailing_zeros(), specials(word).trailing_zeros());
            }
        }
    }
}
