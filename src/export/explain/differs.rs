//! The paths at which two values differ, and the values there unless they may be secret. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::export::reconcile::cut;

const API_KEY: &str = "marqo_api_key";

/// The most paths that a report names; the last of them says that there are more.
const MAX_PATHS: usize = 50;

/// The longest path that is shown whole, in characters. A stranger's value may hold any names.
const MAX_PATH_CHARACTERS: usize = 200;

/// The longest value that is shown whole, in characters of its JSON.
const MAX_VALUE_CHARACTERS: usize = 1_000;

const MORE: &str = "…";
const WHOLE_VALUE: &str = "(value)";
const MASK: &str = "****";

/// Parts of the names that secrets have, in lower case. A value under such a name is not shown, nor what is
/// inside it.
const SECRET_NAMES: [&str; 12] = [
    "key",
    "token",
    "secret",
    "passw",
    "passphrase",
    "pwd",
    "credential",
    "auth",
    "bearer",
    "cookie",
    "private",
    "signature",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyCheck {
    Compared,
    /// It is not compared, because nobody knows what it should be.
    NotCompared,
}

/// A path, with the values there. A value is absent where there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Value>,
}

impl Difference {
    /// Returns a difference that shows no value.
    fn masked(path: &str) -> Self {
        let mask = || Some(MASK.into());
        Self { path: path.to_owned(), held: mask(), wanted: mask() }
    }
}

/// Returns where `held` differs from `wanted`, nothing where they are the same bytes.
pub fn differences(held: &str, wanted: &str, check: ApiKeyCheck) -> Vec<Difference> {
    if held == wanted {
        return Vec::new();
    }
    let parsed = |text: &str| serde_json::from_str::<BTreeMap<String, Value>>(text).ok();
    let (Some(mut held), Some(mut wanted)) = (parsed(held), parsed(wanted)) else {
        return vec![Difference::masked(WHOLE_VALUE)];
    };
    let api_keys = [&held, &wanted].into_iter().filter_map(|value| value.get(API_KEY)?.as_str());
    let api_keys = api_keys.filter(|key| !key.is_empty()).map(str::to_owned).collect();
    if check == ApiKeyCheck::NotCompared {
        held.remove(API_KEY);
        wanted.remove(API_KEY);
    }
    let mut comparison = Comparison { api_keys, found: Vec::new() };
    for name in held.keys().chain(wanted.keys()).collect::<BTreeSet<_>>() {
        comparison.compare(name, is_secret(name), held.get(name), wanted.get(name));
    }
    let mut found = comparison.found;
    if found.is_empty() && check == ApiKeyCheck::Compared {
        // The same fields with the same values, written in another way.
        return vec![Difference::masked(WHOLE_VALUE)];
    }
    if found.len() > MAX_PATHS {
        found.truncate(MAX_PATHS - 1);
        found.push(Difference { path: MORE.to_owned(), held: None, wanted: None });
    }
    found
}

struct Comparison {
    /// The API keys of both values. No text that holds one of them is shown.
    api_keys: Vec<String>,
    /// Up to one more than a report names.
    found: Vec<Difference>,
}

impl Comparison {
    fn compare(&mut self, path: &str, hide: bool, held: Option<&Value>, wanted: Option<&Value>) {
        if self.found.len() > MAX_PATHS || held == wanted {
            return;
        }
        match (held, wanted) {
            (Some(Value::Object(held)), Some(Value::Object(wanted))) => {
                let hide = hide || [held, wanted].into_iter().any(names_a_secret);
                for name in held.keys().chain(wanted.keys()).collect::<BTreeSet<_>>() {
                    let path = format!("{path}.{name}");
                    self.compare(&path, hide || is_secret(name), held.get(name), wanted.get(name));
                }
            }
            (Some(Value::Array(held)), Some(Value::Array(wanted))) => {
                for place in 0..held.len().max(wanted.len()) {
                    let path = format!("{path}[{place}]");
                    self.compare(&path, hide, held.get(place), wanted.get(place));
                }
            }
            _ => self.found.push(Difference {
                path: if path != API_KEY && self.holds_an_api_key(path) {
                    MASK.into()
                } else {
                    cut(path, MAX_PATH_CHARACTERS)
                },
                held: held.map(|value| self.shown(hide, value)),
                wanted: wanted.map(|value| self.shown(hide, value)),
            }),
        }
    }

    /// Returns a value without what may be a secret. One that is too long becomes the beginning of its JSON.
    fn shown(&self, hide: bool, value: &Value) -> Value {
        let shown = self.masked(hide, value);
        let json = shown.to_string();
        let short = cut(&json, MAX_VALUE_CHARACTERS);
        if short == json { shown } else { short.into() }
    }

    fn masked(&self, hide: bool, value: &Value) -> Value {
        match value {
            _ if hide => MASK.into(),
            Value::Object(fields) => {
                let hide = names_a_secret(fields);
                let masked = fields.iter().map(|(name, value)| {
                    let shown = if self.holds_an_api_key(name) { MASK } else { name };
                    (shown.to_owned(), self.masked(hide || is_secret(name), value))
                });
                masked.collect::<serde_json::Map<_, _>>().into()
            }
            Value::Array(values) => values.iter().map(|value| self.masked(false, value)).collect(),
            Value::String(text) if self.holds_an_api_key(text) || may_hold_a_secret(text) => {
                MASK.into()
            }
            value => value.clone(),
        }
    }

    fn holds_an_api_key(&self, text: &str) -> bool {
        self.api_keys.iter().any(|api_key| text.contains(api_key))
    }
}

/// Returns whether a text may hold a password in a URL, or something like `token=`.
fn may_hold_a_secret(text: &str) -> bool {
    let has = |part| text.contains(part);
    (is_secret(text) && (has("=") || has(":") || has("earer "))) || (has("://") && has("@"))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// Returns whether a field says that the fields beside it hold a secret: `{"name": "X-Token", "value": "…"}`.
fn names_a_secret(fields: &serde_json::Map<String, Value>) -> bool {
    let names = ["name", "header", "field", "id", "type"].into_iter();
    names.filter_map(|name| fields.get(name)?.as_str()).any(is_secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn differing_paths(held: &str, wanted: &str, check: ApiKeyCheck) -> Vec<String> {
        differences(held, wanted, check).into_iter().map(|difference| difference.path).collect()
    }

    fn differ(held: Value, wanted: Value) -> Vec<String> {
        differing_paths(&held.to_string(), &wanted.to_string(), ApiKeyCheck::Compared)
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

    fn values(held: Value, wanted: Value) -> Value {
        let both = [held.to_string(), wanted.to_string()];
        let shown = differences(&both[0], &both[1], ApiKeyCheck::Compared);
        serde_json::to_value(shown).unwrap()
    }

    #[test]
    fn both_values_are_shown_and_one_that_is_absent_is_not() {
        assert_eq!(
            values(
                json!({"a": {"on": true}, "gone": [1], "n": null}),
                json!({"a": {"on": false}, "new": {"x": "y"}, "n": 1})
            ),
            json!([
                {"path": "a.on", "held": true, "wanted": false},
                {"path": "gone", "held": [1]},
                {"path": "n", "held": null, "wanted": 1},
                {"path": "new", "wanted": {"x": "y"}},
            ])
        );
        let long = values(json!({"a": "x".repeat(9_999)}), json!({"a": 1}));
        assert_eq!(long[0]["held"].as_str().unwrap().chars().count(), MAX_VALUE_CHARACTERS + 1);
    }

    #[test]
    fn no_secret_is_shown_wherever_it_stands() {
        const CANARY: &str = "CANARY";
        for (name, place) in [
            ("the API key", json!({"marqo_api_key": CANARY})),
            ("a token", json!({"x": {"token": CANARY}})),
            ("a password", json!({"DB_PASSWORD": {"deep": [CANARY]}})),
            ("part of a name", json!({"x": [{"clientSecretOld": CANARY}]})),
            ("below a name", json!({"Secrets": [[{"x": {"y": CANARY}}]]})),
            ("another key", json!({"apiKey": CANARY})),
            ("no text", json!({"credentials": {"pin": 4711_4711}})),
            ("beside its name", json!({"headers": [{"name": "X-Api-Key", "value": CANARY}]})),
            ("in a URL", json!({"url": format!("https://me:{CANARY}@example.com/x")})),
            (
                "in a query",
                json!({"url": format!("https://example.com/?a=b&access_token={CANARY}")}),
            ),
            ("in JSON in a text", json!({"x": format!(r#"{{"password":"{CANARY}"}}"#)})),
            ("in a header", json!({"x": format!("Bearer {CANARY}")})),
            (
                "the API key in a text",
                json!({"marqo_api_key": CANARY, "x": format!("see {CANARY}!")}),
            ),
            ("the API key as a name", json!({"marqo_api_key": CANARY, "x": {CANARY: {"y": 1}}})),
        ] {
            let mut other = place.clone();
            other["more"] = json!(1);
            let mut same_names =
                json!(place.to_string().replace(CANARY, "OTHER").replace("47114711", "7"));
            same_names = serde_json::from_str(same_names.as_str().unwrap()).unwrap();
            for (held, wanted) in [
                (place.clone(), json!({})),
                (json!({}), place.clone()),
                (place.clone(), same_names),
                (place.clone(), json!({"marqo_api_key": "k", "x": 1, "headers": 1, "url": 1})),
                (other, json!({"marqo_api_key": [CANARY]})),
            ] {
                let shown = values(held, wanted).to_string();
                assert!(!shown.contains(CANARY) && !shown.contains("47114711"), "{name}: {shown}");
                assert!(shown.contains(MASK), "{name}: {shown}");
            }
        }
        // A text of somebody else's, and the same fields in another order.
        for strange in [CANARY, "[\"CANARY\"]", "\"CANARY\"", "{\"b\":2,\"CANARY\":1}"] {
            let shown = differences(strange, "{\"CANARY\":1,\"b\":2}", ApiKeyCheck::Compared);
            assert_eq!(shown, [Difference::masked(WHOLE_VALUE)], "{strange}");
        }
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
