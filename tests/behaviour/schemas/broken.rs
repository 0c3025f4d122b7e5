//! Values that break one rule each.

use serde_json::Value;

use super::example;
use super::published::{METADATA, published, validator};

/// An example with one change.
#[derive(serde::Deserialize)]
struct Broken {
    rule: String,
    schema: String,
    example: String,
    at: String,
    /// What stands there now; absent if the field is left out.
    #[serde(default, deserialize_with = "present")]
    with: Option<Value>,
}

/// Null is a value like any other.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    serde::Deserialize::deserialize(value).map(Some)
}

#[test]
fn a_value_that_breaks_a_rule_is_refused_for_that_rule_alone() {
    let text = include_str!("../../../schema/broken.json");
    let broken: Vec<Broken> = serde_json::from_str(text).unwrap();
    assert!(broken.len() >= 20);

    for Broken { rule, schema, example: name, at, with } in broken {
        let entry = example(&name).kv;
        let mut value = if schema == METADATA { entry.metadata.clone() } else { entry.json() };
        let validator = validator(&published(&schema));
        assert!(validator.is_valid(&value), "{rule}: {name} was broken before");

        let (parent, field) = at.rsplit_once('/').unwrap();
        let parent = value.pointer_mut(parent).unwrap_or_else(|| panic!("{rule}: no {parent}"));
        let fields = parent.as_object_mut().unwrap();
        match with {
            Some(with) => drop(fields.insert(field.to_owned(), with)),
            None => assert!(fields.remove(field).is_some(), "{rule}: no {at}"),
        }

        let errors: Vec<String> =
            validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!(errors.len(), 1, "{rule}: {errors:?}");
    }
}
