//! Rows of a table in a test.

use std::fmt::Display;

/// Names a row while the test looks at it. If the test fails there, its output says so.
#[must_use]
pub fn row(name: impl Display) -> Row {
    Row(name.to_string())
}

pub struct Row(String);

impl Drop for Row {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the row: {}", self.0);
        }
    }
}
