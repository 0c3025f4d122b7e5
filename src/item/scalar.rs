//! DynamoDB's numbers and binaries, which it sends as text.

use std::cmp::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use crate::json::Text;

/// A number that JSON can express.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Number(serde_json::Number);

/// Bytes, written in base64.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binary(Vec<u8>);

impl Number {
    /// Reads a number as DynamoDB writes it; `None` where JSON can't express it.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(integer) = text.parse::<i64>() {
            return Some(Self(integer.into()));
        }
        if let Ok(integer) = text.parse::<u64>() {
            return Some(Self(integer.into()));
        }
        // `from_f64` refuses what JSON can't express: infinities and NaN, which `parse` accepts.
        text.parse().ok().and_then(serde_json::Number::from_f64).map(Self)
    }

    /// The nearest double.
    pub fn as_f64(&self) -> f64 {
        self.0.as_f64().unwrap_or(f64::NAN)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not a number that fits a double"))
    }
}

impl Ord for Number {
    /// By value. The double alone would not tell large integers apart.
    fn cmp(&self, other: &Self) -> Ordering {
        let integer = |Self(number): &Self| number.as_i128();
        let by_double = self.as_f64().total_cmp(&other.as_f64());
        by_double.then_with(|| integer(self).cmp(&integer(other)))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        BASE64.decode(&*text).map(Self).map_err(|_| D::Error::custom("not base64"))
    }
}

impl Binary {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}
