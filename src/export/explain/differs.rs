//! The paths at which two values differ, and the values there unless they may be secret. Pure.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::export::judge::Wants;
use crate::text::cut;

const API_KEY: &str = "marqo_api_key";

/// The most paths that a report names; the last of them says that there are more.
const MAX_PATHS: usize = 50;

/// The longest path that is shown whole, in characters. A stranger's value may hold any names.
const MAX_PATH_CHARACTERS: usize = 200;

/// The longest value that is shown whole, in characters of its JSON.
const MAX_VALUE_CHARACTERS: usize = 1_000;

const MASK: &str = "****";

/// Parts of the names that secrets have, in lower case. A value under such a name is not shown, nor what is
/// inside it.
const SECRET_NAMES: &str = "key token secret passw passphrase pwd credential auth bearer cookie private \
                            signature sig=";

/// Fields that may name what the fields beside them contain: `{"name": "X-Token", "value": "…"}`.
const NAMING_FIELDS: [&str; 5] = ["name", "header", "field", "id", "type"];

type Object = Map<String, Value>;

/// A path, with the values there. A value is absent where there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Value>,
}

/// Returns where `held` differs from what an item wants. Nothing differs if they are the same bytes. An API key
/// that is unavailable is not compared, because nobody knows what it should be.
pub fn differences(held: &str, wanted: &str, wants: Wants) -> Vec<Difference> {
    if held == wanted {
        return Vec::new();
    }
    let mask = || Some(MASK.into());
    let whole = Difference { path: "(value)".to_owned(), held: mask(), wanted: mask() };
    let parsed = |text: &str| serde_json::from_str::<Object>(text).ok();
    let (Some(mut held), Some(mut wanted)) = (parsed(held), parsed(wanted)) else {
        return vec![whole];
    };
    let api_keys = [&held, &wanted].map(|fields| fields.get(API_KEY)?.as_str().map(str::to_owned));
    let api_keys = api_keys.into_iter().flatten().filter(|key| !key.is_empty()).collect();
    if wants == Wants::Unavailable {
        held.remove(API_KEY);
        wanted.remove(API_KEY);
    }
    let mut comparison = Comparison { api_keys, found: Vec::new() };
    comparison.compare("", false, Some(&held.into()), Some(&wanted.into()));
    let mut found = comparison.found;
    if found.is_empty() && wants != Wants::Unavailable {
        // The same fields with the same values, written in another way.
        found.push(whole);
    }
    if found.len() > MAX_PATHS {
        found.truncate(MAX_PATHS - 1);
        found.push(Difference { path: "…".to_owned(), held: None, wanted: None });
    }
    found
}

struct Comparison {
    /// The API keys of both values. No text that holds one of them is shown.
    api_keys: Vec<String>,
    /// The differences so far, at most one more than a report names.
    found: Vec<Difference>,
}

impl Comparison {
    /// Compares what stands at a path, which begins with `.` unless it is the whole value's.
    fn compare(&mut self, path: &str, hide: bool, held: Option<&Value>, wanted: Option<&Value>) {
        if self.found.len() > MAX_PATHS || held == wanted {
            return;
        }
        match (held, wanted) {
            (Some(Value::Object(held)), Some(Value::Object(wanted))) => {
                for name in held.keys().chain(wanted.keys()).collect::<BTreeSet<_>>() {
                    let hide = hide || is_secret(name, held) || is_secret(name, wanted);
                    let path = format!("{path}.{name}");
                    self.compare(&path, hide, held.get(name), wanted.get(name));
                }
            }
            (Some(Value::Array(held)), Some(Value::Array(wanted))) => {
                for place in 0..held.len().max(wanted.len()) {
                    let path = format!("{path}[{place}]");
                    self.compare(&path, hide, held.get(place), wanted.get(place));
                }
            }
            _ => {
                let path = path.strip_prefix('.').unwrap_or(path);
                let is_api_key = path != API_KEY && self.holds_an_api_key(path);
                let shown = |value| shortened(self.masked(hide, value));
                self.found.push(Difference {
                    path: if is_api_key { MASK.into() } else { cut(path, MAX_PATH_CHARACTERS) },
                    held: held.map(shown),
                    wanted: wanted.map(shown),
                });
            }
        }
    }

    /// Returns a value without what may be a secret.
    fn masked(&self, hide: bool, value: &Value) -> Value {
        match value {
            _ if hide => MASK.into(),
            Value::Object(fields) => {
                let masked = fields.iter().map(|(name, value)| {
                    let shown = if self.holds_an_api_key(name) { MASK } else { name };
                    (shown.to_owned(), self.masked(is_secret(name, fields), value))
                });
                masked.collect()
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

/// Returns the value, or the beginning of its JSON where that is too long.
fn shortened(value: Value) -> Value {
    let json = value.to_string();
    let short = cut(&json, MAX_VALUE_CHARACTERS);
    if short == json { value } else { short.into() }
}

/// Returns whether the field `name` may hold a secret: its name says so, or a field beside it.
fn is_secret(name: &str, fields: &Object) -> bool {
    let mut naming = NAMING_FIELDS.iter().filter_map(|field| fields.get(*field)?.as_str());
    names_a_secret(name) || naming.any(names_a_secret)
}

/// Returns whether a text may hold a password in a URL, or something like `token=`.
fn may_hold_a_secret(text: &str) -> bool {
    let has = |part| text.contains(part);
    (names_a_secret(text) && (has("=") || has(":") || has("earer "))) || (has("://") && has("@"))
}

fn names_a_secret(text: &str) -> bool {
    let text = text.to_lowercase();
    SECRET_NAMES.split(' ').any(|part| text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Returns each path with the held and the wanted value. `-` stands for none.
    fn differ(held: &Value, wanted: &Value) -> String {
        let differences = differences(&held.to_string(), &wanted.to_string(), Wants::Unmade);
        let shown = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), Value::to_string);
        let lines = differences.iter().map(|Difference { path, held, wanted }| {
            format!("{path}: {} {}", shown(held), shown(wanted))
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_path_leads_to_what_differs_and_shows_both_values_but_none_that_is_absent() {
        for (name, held, wanted, expected) in [
            (
                "fields",
                json!({"a": {"on": true, "same": [1]}, "gone": [1], "n": null, "same": {}}),
                json!({"a": {"on": false, "same": [1]}, "new": {"x": "y"}, "n": 1, "same": {}}),
                r#"a.on: true false; gone: [1] -; n: null 1; new: - {"x":"y"}"#,
            ),
            (
                "lists",
                json!({"x": {"targets": [{"weight": 0.5}, {"weight": 0.5}]}}),
                json!({"x": {"targets": [{"weight": 1.0}]}}),
                r#"x.targets[0].weight: 0.5 1.0; x.targets[1]: {"weight":0.5} -"#,
            ),
            (
                "no secrets",
                json!({"note": "the key of C", "url": "https://h/x"}),
                json!({}),
                r#"note: "the key of C" -; url: "https://h/x" -"#,
            ),
            (
                "types",
                json!({"a": {"b": 1}, "n": 1}),
                json!({"a": [1], "n": 1.0}),
                r#"a: {"b":1} [1]; n: 1 1.0"#,
            ),
        ] {
            assert_eq!(differ(&held, &wanted), expected, "{name}");
        }
    }

    #[test]
    fn what_differs_without_a_path_is_the_value_which_does_not_show() {
        let value = r#"{"CANARY":1,"b":2}"#;
        assert_eq!(differences(value, value, Wants::Unmade), []);
        let other_order = r#"{"b":2,"CANARY":1}"#;
        for held in [other_order, "CANARY", r#"["CANARY"]"#, "", "null", "{", &"[".repeat(9_999)] {
            let mask = Some(MASK.into());
            let whole = Difference { path: "(value)".into(), held: mask.clone(), wanted: mask };
            assert_eq!(differences(held, value, Wants::Unmade), [whole], "{held}");
        }
    }

    #[test]
    fn an_api_key_that_is_unavailable_is_not_compared() {
        let held = r#"{"marqo_api_key":"k","pixel_id":"x"}"#;
        for (pixel_id, wants, expected) in [
            ("x", Wants::Unavailable, None),
            ("y", Wants::Unavailable, Some("pixel_id")),
            ("x", Wants::Unmade, Some("marqo_api_key")),
        ] {
            let wanted = json!({"marqo_api_key": "", "pixel_id": pixel_id}).to_string();
            let found = differences(held, &wanted, wants);
            let paths: Vec<&str> = found.iter().map(|it| &*it.path).collect();
            assert_eq!(paths, Vec::from_iter(expected), "{pixel_id} {wants:?}");
        }
    }

    #[test]
    fn no_secret_is_shown_wherever_it_stands() {
        const CANARY: &str = "CANARY";
        for place in [
            json!({"marqo_api_key": CANARY}),
            json!({"x": {"token": CANARY}}),
            json!({"DB_PASSWORD": {"deep": [CANARY]}}),
            json!({"x": [{"clientSecretOld": CANARY}]}),
            json!({"Secrets": [[{"x": {"y": CANARY}}]]}),
            json!({"apiKey": CANARY}),
            json!({"credentials": {"pin": 4711_4711}}),
            json!({"headers": [{"name": "X-Api-Key", "value": CANARY}]}),
            json!({"name": "X-Api-Key", "value": CANARY}),
            json!({"url": format!("https://me:{CANARY}@example.com/x")}),
            json!({"url": format!("https://example.com/?a=b&access_token={CANARY}")}),
            json!({"x": format!(r#"{{"password":"{CANARY}"}}"#)}),
            json!({"x": format!("Bearer {CANARY}")}),
            json!({"marqo_api_key": CANARY, "x": format!("see {CANARY}!")}),
            json!({"marqo_api_key": CANARY, "x": {CANARY: {"y": 1}}}),
        ] {
            let other = place.to_string().replace(CANARY, "OTHER").replace("47114711", "7");
            let mut more = place.clone();
            more["more"] = json!(1);
            for (held, wanted) in [
                (&place, json!({})),
                (&json!({}), place.clone()),
                (&place, serde_json::from_str(&other).unwrap()),
                (&place, json!({"marqo_api_key": "k", "x": 1, "headers": 1, "url": 1})),
                (&more, json!({"marqo_api_key": [CANARY]})),
            ] {
                let shown = differ(held, &wanted);
                assert!(!shown.contains(CANARY) && !shown.contains("47114711"), "{shown}");
                assert!(shown.contains(MASK), "{shown}");
            }
        }
    }

    #[test]
    fn paths_and_values_are_bounded_in_number_and_length() {
        let fields = |count: usize| -> Value {
            (0..count).map(|n| (format!("f{n:03}"), json!(1))).collect::<Object>().into()
        };
        for (held, wanted, last) in [
            (fields(50), json!({}), "f049"),
            (fields(51), json!({}), "…"),
            (json!({"a": fields(200)}), json!({"a": {}}), "…"),
        ] {
            let found = differences(&held.to_string(), &wanted.to_string(), Wants::Unmade);
            assert_eq!((found.len(), &*found[49].path), (50, last));
        }
        let long = json!({"x".repeat(1_000): "y".repeat(9_999)}).to_string();
        let Difference { path, held, .. } = differences(&long, "{}", Wants::Unmade).remove(0);
        let characters = [&*path, held.unwrap().as_str().unwrap()].map(|it| it.chars().count());
        assert_eq!(characters, [MAX_PATH_CHARACTERS + 1, MAX_VALUE_CHARACTERS + 1]);
    }
}
