//! The paths at which two values differ, never what stands there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

const API_KEY: &str = "marqo_api_key";

/// The most paths that a report names; the last of them says that there are more.
const MAX_PATHS: usize = 50;

/// The longest path that is shown whole, in characters. A stranger's value may hold any names.
const MAX_PATH_CHARACTERS: usize = 200;

const MORE: &str = "…";
const WHOLE_VALUE: &str = "(value)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyCheck {
    Compared,
    /// It is not: what it should be is not known.
    NotCompared,
}

/// Returns the paths at which `stored` differs from `wanted`, none where they are the same bytes.
pub fn differing_paths(stored: &str, wanted: &str, api_key: ApiKeyCheck) -> Vec<String> {
    if stored == wanted {
        return Vec::new();
    }
    let parsed = |text: &str| serde_json::from_str::<BTreeMap<String, Value>>(text).ok();
    let (Some(mut stored), Some(mut wanted)) = (parsed(stored), parsed(wanted)) else {
        return vec![WHOLE_VALUE.to_owned()];
    };
    if api_key == ApiKeyCheck::NotCompared {
        stored.remove(API_KEY);
        wanted.remove(API_KEY);
    }
    let mut paths = Vec::new();
    for name in stored.keys().chain(wanted.keys()).collect::<BTreeSet<_>>() {
        compare(name, stored.get(name), wanted.get(name), &mut paths);
    }
    if paths.is_empty() && api_key == ApiKeyCheck::Compared {
        // The same fields with the same values, written in another way.
        return vec![WHOLE_VALUE.to_owned()];
    }
    if paths.len() > MAX_PATHS {
        paths.truncate(MAX_PATHS - 1);
        paths.push(MORE.to_owned());
    }
    paths
}

/// Adds the paths below `path` at which two values differ, up to one more than a report names.
fn compare(path: &str, stored: Option<&Value>, wanted: Option<&Value>, paths: &mut Vec<String>) {
    if paths.len() > MAX_PATHS || stored == wanted {
        return;
    }
    match (stored, wanted) {
        (Some(Value::Object(stored)), Some(Value::Object(wanted))) => {
            for name in stored.keys().chain(wanted.keys()).collect::<BTreeSet<_>>() {
                let path = format!("{path}.{name}");
                compare(&path, stored.get(name), wanted.get(name), paths);
            }
        }
        (Some(Value::Array(stored)), Some(Value::Array(wanted))) => {
            for place in 0..stored.len().max(wanted.len()) {
                let path = format!("{path}[{place}]");
                compare(&path, stored.get(place), wanted.get(place), paths);
            }
        }
        _ => paths.push(cut(path, MAX_PATH_CHARACTERS)),
    }
}

/// A text that may be anybody's, shortened.
pub fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn differ(stored: Value, wanted: Value) -> Vec<String> {
        differing_paths(&stored.to_string(), &wanted.to_string(), ApiKeyCheck::Compared)
    }

    #[test]
    fn a_path_leads_through_maps_and_lists_to_what_differs() {
        assert_eq!(
            differ(
                json!({"search_config": {"limit": 1, "same": [1]}, "pixel_id": "x", "gone": {}}),
                json!({"search_config": {"limit": 2, "same": [1]}, "pixel_id": "y", "new": null}),
            ),
            ["gone", "new", "pixel_id", "search_config.limit"]
        );
        let targets =
            |weights: &[f64]| weights.iter().map(|weight| json!({"weight": weight})).collect();
        let reads = |weights: &[f64]| {
            let targets: Vec<Value> = targets(weights);
            json!({"index_aliases": {"doc_reads": {"targets": targets}}})
        };
        assert_eq!(
            differ(reads(&[0.5, 0.5]), reads(&[1.0])),
            ["index_aliases.doc_reads.targets[0].weight", "index_aliases.doc_reads.targets[1]"]
        );
        assert_eq!(differ(json!({"a": {"b": 1}}), json!({"a": [1]})), ["a"]);
        assert_eq!(differ(json!({"a": 1}), json!({"a": 1.0})), ["a"]);
    }

    #[test]
    fn what_differs_without_a_path_is_the_value() {
        let both = [r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#];
        assert_eq!(differing_paths(both[0], both[1], ApiKeyCheck::Compared), ["(value)"]);
        assert_eq!(differing_paths(both[0], both[0], ApiKeyCheck::Compared), [""; 0]);
        for stranger in ["", "null", "7", "[1]", "{", &"[".repeat(9_999)] {
            assert_eq!(
                differing_paths(stranger, "{}", ApiKeyCheck::Compared),
                ["(value)"],
                "{stranger}"
            );
        }
    }

    #[test]
    fn an_api_key_that_is_not_known_is_not_compared() {
        let value = |api_key: &str, pixel: &str| {
            json!({"marqo_api_key": api_key, "pixel_id": pixel}).to_string()
        };
        let differ =
            |stored: &str, wanted: &str| differing_paths(stored, wanted, ApiKeyCheck::NotCompared);
        assert_eq!(differ(&value("k", "x"), &value("?", "x")), [""; 0]);
        assert_eq!(differ(&value("k", "x"), &value("?", "y")), ["pixel_id"]);
        assert_eq!(
            differing_paths(&value("k", "x"), &value("?", "x"), ApiKeyCheck::Compared),
            ["marqo_api_key"]
        );
    }

    #[test]
    fn paths_are_bounded_in_number_and_length() {
        let many: serde_json::Map<_, _> =
            (0..200).map(|n| (format!("f{n:03}"), json!(1))).collect();
        let paths = differ(json!(many), json!({}));
        assert_eq!((paths.len(), paths[48].as_str(), paths[49].as_str()), (50, "f048", "…"));
        let nested = differ(json!({"a": many}), json!({"a": {}}));
        assert_eq!((nested.len(), nested[49].as_str()), (50, "…"));
        let fifty = many.iter().take(50).map(|(name, value)| (name.clone(), value.clone()));
        assert_eq!(differ(fifty.collect(), json!({}))[49], "f049");
        let long = differ(json!({"x".repeat(1_000): 1}), json!({}));
        assert_eq!(long[0].chars().count(), 201);
    }
}
