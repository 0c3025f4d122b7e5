//! The cursors of a listing.

/// The cursor after a key. It is opaque, so that no caller depends on its form.
pub fn after(key: &str) -> String {
    key.bytes().map(|byte| format!("{byte:02x}")).collect()
}

pub fn key(cursor: &str) -> Option<String> {
    let digits = cursor.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    let bytes = digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect::<Option<_>>()?;
    String::from_utf8(bytes).ok()
}
