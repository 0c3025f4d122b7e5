//! An attribute as its DynamoDB JSON says it, borrowed: for the few that are looked into.

use std::borrow::Cow;

use crate::cursor::{Cursor, Malformed};

/// A DynamoDB attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute<'a> {
    /// S.
    Text(Cow<'a, str>),
    /// N, as it is written.
    Number(Cow<'a, str>),
    /// BOOL.
    Flag(bool),
    /// NULL.
    Null,
    /// M, its entries as they come.
    Map(Fields<'a>),
    /// L.
    List(Vec<Attribute<'a>>),
    /// Binary or a set.
    Other,
}

/// The entries of a map.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, Attribute<'a>)>);

impl<'a> Fields<'a> {
    /// The value of `name`, if it isn't NULL; of two of that name the last one, as in a decoded map.
    pub fn get(&self, name: &str) -> Option<&Attribute<'a>> {
        let (_, value) = self.0.iter().rev().find(|(key, _)| key == name)?;
        Some(value).filter(|value| **value != Attribute::Null)
    }

    /// A map within the map.
    pub fn map(&self, name: &str) -> Option<&Fields<'a>> {
        self.get(name).and_then(Attribute::as_map)
    }

    /// A list within the map; empty where there is none.
    pub fn list(&self, name: &str) -> &[Attribute<'a>] {
        match self.get(name) {
            Some(Attribute::List(list)) => list,
            _ => &[],
        }
    }

    /// A text within the map that isn't empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Attribute::as_text)
    }
}

impl<'a> Attribute<'a> {
    /// Takes an attribute, `{"S":"…"}` and its like.
    pub fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        cursor.enter(b'{')?;
        let kind = cursor.string()?.plain_literal().unwrap_or_default();
        cursor.take(b':')?;
        let attribute = match kind {
            r#""S""# => Self::Text(cursor.string()?.decoded()?),
            r#""N""# => Self::Number(cursor.string()?.decoded()?),
            r#""BOOL""# => Self::Flag(cursor.flag()?),
            r#""NULL""# => {
                cursor.flag()?;
                Self::Null
            }
            r#""M""# => {
                let mut fields = Fields::default();
                cursor.object(|cursor, key| {
                    fields.0.push((key.decoded()?, Self::read(cursor)?));
                    Ok::<(), Malformed>(())
                })?;
                Self::Map(fields)
            }
            r#""L""# => {
                let mut list = Vec::new();
                cursor.array(|cursor| {
                    list.push(Self::read(cursor)?);
                    Ok(())
                })?;
                Self::List(list)
            }
            r#""B""# | r#""SS""# | r#""NS""# | r#""BS""# => {
                cursor.skip()?;
                Self::Other
            }
            _ => return Err(Malformed),
        };
        cursor.leave(b'}')?;
        Ok(attribute)
    }

    /// The entries of a map.
    pub fn as_map(&self) -> Option<&Fields<'a>> {
        match self {
            Self::Map(fields) => Some(fields),
            _ => None,
        }
    }

    /// A text that isn't empty.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Attribute<'_>, Malformed> {
        let mut cursor = Cursor::new(json);
        Attribute::read(&mut cursor).and_then(|attribute| cursor.end().map(|()| attribute))
    }

    #[test]
    fn every_type_is_told_from_the_others() {
        let json = r#"{"M":{"s":{"S":"a\u0062"},"n":{"N":"1.50"},"b":{"BOOL":false},"0":{"NULL":true},
            "l":{"L":[{"S":""},{"M":{}}]},"x":{"SS":["y"]},"y":{"B":"AA=="}}}"#;
        let attribute = read(json).unwrap();
        let fields = attribute.as_map().unwrap();
        assert_eq!(fields.text("s"), Some("ab"));
        assert_eq!(fields.get("n"), Some(&Attribute::Number("1.50".into())));
        assert_eq!(fields.get("b"), Some(&Attribute::Flag(false)));
        assert_eq!((fields.get("0"), fields.get("none")), (None, None));
        assert_eq!(fields.list("l").len(), 2);
        assert_eq!(
            (fields.get("x"), fields.get("y")),
            (Some(&Attribute::Other), Some(&Attribute::Other))
        );
        assert_eq!((fields.text("n"), fields.list("s").len(), fields.map("l")), (None, 0, None));
    }

    #[test]
    fn of_a_name_that_stands_twice_the_last_one_counts() {
        let attribute = read(r#"{"M":{"a":{"S":"first"},"a":{"S":"last"}}}"#).unwrap();
        assert_eq!(attribute.as_map().unwrap().text("a"), Some("last"));
    }

    #[test]
    fn anything_else_is_malformed() {
        for bad in
            ["", "{}", r#"{"Q":"x"}"#, r#"{"S":7}"#, r#"{"S":"a","N":"1"}"#, r#"{"BOOL":"true"}"#]
        {
            assert_eq!(read(bad), Err(Malformed), "{bad}");
        }
    }
}
