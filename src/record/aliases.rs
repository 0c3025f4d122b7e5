//! `index_aliases` as the search proxy reads it: `analytics` and `doc_reads`, nothing else.
//!
//! A legacy `read_alias` replaces the record's own `doc_reads` unseen. NULL counts as absent
//! throughout. `doc_writes` and unknown blocks are not looked at: they are not exported, and what
//! is wrong in them must not hold up a change that live traffic waits for.

use std::collections::HashMap;

use serde_dynamo::AttributeValue;

use super::{Image, Rejection, json};

/// How far the weights of an enabled `doc_reads` may sum up from 1.0 without a warning.
const WEIGHT_SUM_TOLERANCE: f64 = 0.001;

/// The exported `index_aliases`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Aliases {
    /// The JSON object; `None` where no block is left to export.
    pub json: Option<String>,
    /// What is exported all the same but is worth a look.
    pub warnings: Vec<String>,
}

impl Aliases {
    /// Decodes `index_aliases` and the legacy `read_alias`.
    pub fn decode(image: Image<'_>) -> Result<Self, Rejection> {
        let read_alias = image.optional_string("read_alias")?;
        let aliases = image.optional_map("index_aliases")?;
        let blocks = aliases.as_deref().and_then(as_map);
        let root = Path("index_aliases".into());
        let mut warnings = Vec::new();

        let analytics = match block(blocks, &root, "analytics")? {
            Some((fields, path)) => Some(Analytics::decode(fields, &path)?),
            None => None,
        };
        let doc_reads = match read_alias {
            Some(index_id) => Some(DocReads {
                enabled: true,
                targets: vec![Target { index_id, weight: 1.0, internal: false }],
            }),
            None => match block(blocks, &root, "doc_reads")? {
                Some((fields, path)) => Some(DocReads::decode(fields, &path, &mut warnings)?),
                None => None,
            },
        };

        let mut written = Vec::with_capacity(2);
        written.extend(analytics.map(|analytics| analytics.json()));
        written.extend(doc_reads.map(|doc_reads| doc_reads.json()));
        let json = (!written.is_empty()).then(|| format!("{{{}}}", written.join(",")));
        Ok(Self { json, warnings })
    }
}

struct Analytics {
    enabled: bool,
    index_id: Option<String>,
    internal: bool,
}

impl Analytics {
    fn decode(fields: &Fields, path: &Path) -> Result<Self, Rejection> {
        Ok(Self {
            enabled: flag(fields, path, "enabled")?,
            index_id: string(fields, path, "index_id")?,
            internal: flag(fields, path, "internal")?,
        })
    }

    fn json(&self) -> String {
        let mut index_id = String::from("null");
        if let Some(text) = &self.index_id {
            index_id.clear();
            json::push_string(&mut index_id, text);
        }
        format!(
            r#""analytics":{{"enabled":{},"index_id":{index_id},"internal":{}}}"#,
            self.enabled, self.internal
        )
    }
}

struct DocReads {
    enabled: bool,
    targets: Vec<Target>,
}

struct Target {
    index_id: String,
    weight: f64,
    internal: bool,
}

impl DocReads {
    fn decode(fields: &Fields, path: &Path, warnings: &mut Vec<String>) -> Result<Self, Rejection> {
        let enabled = flag(fields, path, "enabled")?;
        let mut targets = Vec::new();
        if let Some(value) = present(fields, "targets") {
            let path = path.key("targets");
            let AttributeValue::L(list) = value else {
                return Err(path.reject("must be a list (L)"));
            };
            for (position, target) in list.iter().enumerate() {
                targets.push(Target::decode(target, &path.index(position))?);
            }
        }
        if enabled {
            let sum: f64 = targets.iter().map(|target| target.weight).sum();
            if (sum - 1.0).abs() > WEIGHT_SUM_TOLERANCE {
                warnings.push(format!("{path}.targets: the weights sum to {sum}, not to 1.0"));
            }
        }
        Ok(Self { enabled, targets })
    }

    fn json(&self) -> String {
        let targets: Vec<String> = self
            .targets
            .iter()
            .map(|target| {
                let mut index_id = String::new();
                json::push_string(&mut index_id, &target.index_id);
                format!(
                    r#"{{"index_id":{index_id},"internal":{},"weight":{:?}}}"#,
                    target.internal, target.weight
                )
            })
            .collect();
        format!(r#""doc_reads":{{"enabled":{},"targets":[{}]}}"#, self.enabled, targets.join(","))
    }
}

impl Target {
    fn decode(value: &AttributeValue, path: &Path) -> Result<Self, Rejection> {
        let fields = as_map(value).ok_or_else(|| path.reject("must be a map (M)"))?;
        let index_id = string(fields, path, "index_id")?
            .ok_or_else(|| path.key("index_id").reject("is required"))?;
        let weight = match present(fields, "weight") {
            None => 1.0,
            Some(AttributeValue::N(text)) => text
                .parse::<f64>()
                .ok()
                .filter(|weight| (0.0..=1.0).contains(weight))
                // A negative zero would give other bytes for the same weight.
                .map(f64::abs)
                .ok_or_else(|| path.key("weight").reject("must be between 0 and 1"))?,
            Some(_) => return Err(path.key("weight").reject("must be a number (N)")),
        };
        Ok(Self { index_id, weight, internal: flag(fields, path, "internal")? })
    }
}

type Fields = HashMap<String, AttributeValue>;

/// Where in the item a value stands.
struct Path(String);

impl Path {
    fn key(&self, key: &str) -> Self {
        Self(format!("{}.{key}", self.0))
    }

    fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    fn reject(&self, reason: &'static str) -> Rejection {
        Rejection::new(self.0.clone(), reason)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn as_map(value: &AttributeValue) -> Option<&Fields> {
    match value {
        AttributeValue::M(fields) => Some(fields),
        _ => None,
    }
}

fn present<'a>(fields: &'a Fields, name: &str) -> Option<&'a AttributeValue> {
    fields.get(name).filter(|value| !matches!(value, AttributeValue::Null(_)))
}

fn block<'a>(
    blocks: Option<&'a Fields>,
    root: &Path,
    name: &str,
) -> Result<Option<(&'a Fields, Path)>, Rejection> {
    let Some(value) = blocks.and_then(|blocks| present(blocks, name)) else {
        return Ok(None);
    };
    let path = root.key(name);
    let fields = as_map(value).ok_or_else(|| path.reject("must be a map (M)"))?;
    Ok(Some((fields, path)))
}

fn flag(fields: &Fields, path: &Path, name: &str) -> Result<bool, Rejection> {
    match present(fields, name) {
        None => Ok(false),
        Some(AttributeValue::Bool(value)) => Ok(*value),
        Some(_) => Err(path.key(name).reject("must be a boolean (BOOL)")),
    }
}

fn string(fields: &Fields, path: &Path, name: &str) -> Result<Option<String>, Rejection> {
    match present(fields, name) {
        None => Ok(None),
        Some(AttributeValue::S(text)) => Ok(Some(text.clone())),
        Some(_) => Err(path.key(name).reject("must be a string (S)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Cursor;
    use crate::record::image::StreamImage;

    fn decode(image: &str) -> Result<Aliases, Rejection> {
        let image = StreamImage::read(&mut Cursor::new(image)).unwrap();
        Aliases::decode(Image::Stream(&image))
    }

    fn json(image: &str) -> Option<String> {
        decode(image).unwrap().json
    }

    #[test]
    fn absent_flags_are_false_absent_weight_is_one_absent_targets_are_none() {
        assert_eq!(
            json(
                r#"{"index_aliases":{"M":{"doc_reads":{"M":{"targets":{"L":[{"M":{"index_id":{"S":"a-b"}}}]}}},
                    "analytics":{"M":{}}}}}"#
            )
            .unwrap(),
            r#"{"analytics":{"enabled":false,"index_id":null,"internal":false},"doc_reads":{"enabled":false,"targets":[{"index_id":"a-b","internal":false,"weight":1.0}]}}"#
        );
        assert_eq!(
            json(r#"{"index_aliases":{"M":{"doc_reads":{"M":{"enabled":{"BOOL":true}}}}}}"#)
                .unwrap(),
            r#"{"doc_reads":{"enabled":true,"targets":[]}}"#
        );
    }

    #[test]
    fn a_disabled_alias_keeps_its_targets() {
        assert_eq!(
            json(
                r#"{"index_aliases":{"M":{"doc_reads":{"M":{"enabled":{"BOOL":false},"targets":{"L":[
                    {"M":{"index_id":{"S":"a-v1"},"weight":{"N":"0.25"},"internal":{"BOOL":true}}},
                    {"M":{"index_id":{"S":"a-v2"},"weight":{"N":"0.75"}}}]}}}}}}"#
            )
            .unwrap(),
            r#"{"doc_reads":{"enabled":false,"targets":[{"index_id":"a-v1","internal":true,"weight":0.25},{"index_id":"a-v2","internal":false,"weight":0.75}]}}"#
        );
    }

    #[test]
    fn doc_writes_unknown_blocks_and_unknown_attributes_are_left_out_unseen() {
        assert_eq!(
            json(
                r#"{"index_aliases":{"M":{"doc_writes":{"S":"broken"},"shadow":{"M":{}},
                    "analytics":{"M":{"enabled":{"BOOL":true},"index_id":{"S":"a-x"},"sampling":{"N":"1"}}}}}}"#
            )
            .unwrap(),
            r#"{"analytics":{"enabled":true,"index_id":"a-x","internal":false}}"#
        );
        for nothing_left in [
            r#"{}"#,
            r#"{"index_aliases":{"NULL":true}}"#,
            r#"{"index_aliases":{"M":{}}}"#,
            r#"{"index_aliases":{"M":{"doc_writes":{"M":{"enabled":{"BOOL":true}}}}}}"#,
            r#"{"index_aliases":{"M":{"doc_reads":{"NULL":true}}},"read_alias":{"S":""}}"#,
        ] {
            assert_eq!(json(nothing_left), None, "{nothing_left}");
        }
    }

    #[test]
    fn the_legacy_read_alias_wins_over_doc_reads_whatever_that_says() {
        assert_eq!(
            json(
                r#"{"read_alias":{"S":"acct1-v2"},"index_aliases":{"M":{
                    "doc_reads":{"M":{"targets":{"L":[{"M":{"weight":{"N":"7"}}}]}}},
                    "analytics":{"M":{"index_id":{"S":"a-x"}}}}}}"#
            )
            .unwrap(),
            r#"{"analytics":{"enabled":false,"index_id":"a-x","internal":false},"doc_reads":{"enabled":true,"targets":[{"index_id":"acct1-v2","internal":false,"weight":1.0}]}}"#
        );
        assert_eq!(
            json(r#"{"read_alias":{"S":"acct1-v2"}}"#).unwrap(),
            r#"{"doc_reads":{"enabled":true,"targets":[{"index_id":"acct1-v2","internal":false,"weight":1.0}]}}"#
        );
    }

    fn doc_reads(target: &str) -> String {
        format!(
            r#"{{"index_aliases":{{"M":{{"doc_reads":{{"M":{{"enabled":{{"BOOL":true}},"targets":{{"L":[{{"M":{target}}}]}}}}}}}}}}}}"#
        )
    }

    #[test]
    fn a_weight_outside_0_to_1_is_invalid_and_the_bounds_are_not() {
        for bad in ["-0.0001", "1.0001", "7", "1E400", "abc"] {
            let image =
                doc_reads(&format!(r#"{{"index_id":{{"S":"a-b"}},"weight":{{"N":"{bad}"}}}}"#));
            let error = decode(&image).unwrap_err();
            assert_eq!(error.path, "index_aliases.doc_reads.targets[0].weight", "{bad}");
        }
        for (good, written) in [("0", "0.0"), ("1", "1.0"), ("-0", "0.0"), ("0.5", "0.5")] {
            let image =
                doc_reads(&format!(r#"{{"index_id":{{"S":"a-b"}},"weight":{{"N":"{good}"}}}}"#));
            let json = json(&image).unwrap();
            assert!(json.contains(&format!("\"weight\":{written}")), "{json}");
        }
    }

    #[test]
    fn weights_that_do_not_sum_to_one_are_warned_about_only_while_enabled() {
        let image = |enabled: bool, a: &str, b: &str| {
            format!(
                r#"{{"index_aliases":{{"M":{{"doc_reads":{{"M":{{"enabled":{{"BOOL":{enabled}}},"targets":{{"L":[
                    {{"M":{{"index_id":{{"S":"a"}},"weight":{{"N":"{a}"}}}}}},{{"M":{{"index_id":{{"S":"b"}},"weight":{{"N":"{b}"}}}}}}]}}}}}}}}}}}}"#
            )
        };
        let warnings = |image: String| decode(&image).unwrap().warnings.len();
        assert_eq!(warnings(image(true, "0.5", "0.4")), 1);
        assert_eq!(warnings(image(true, "0.5", "0.502")), 1);
        assert_eq!(warnings(image(true, "0.5", "0.5005")), 0);
        assert_eq!(warnings(image(true, "0.5", "0.4995")), 0);
        assert_eq!(warnings(image(false, "0.5", "0.1")), 0);
    }

    #[test]
    fn wrong_types_name_their_path() {
        let rows = [
            (r#"{"index_aliases":{"S":"x"}}"#.to_owned(), "index_aliases"),
            (r#"{"read_alias":{"N":"1"}}"#.to_owned(), "read_alias"),
            (
                r#"{"index_aliases":{"M":{"analytics":{"S":"x"}}}}"#.to_owned(),
                "index_aliases.analytics",
            ),
            (
                r#"{"index_aliases":{"M":{"analytics":{"M":{"enabled":{"S":"true"}}}}}}"#
                    .to_owned(),
                "index_aliases.analytics.enabled",
            ),
            (
                r#"{"index_aliases":{"M":{"doc_reads":{"M":{"targets":{"M":{}}}}}}}"#.to_owned(),
                "index_aliases.doc_reads.targets",
            ),
            (doc_reads(r#"{}"#), "index_aliases.doc_reads.targets[0].index_id"),
            (doc_reads(r#"{"index_id":{"N":"1"}}"#), "index_aliases.doc_reads.targets[0].index_id"),
            (
                doc_reads(r#"{"index_id":{"S":"a"},"internal":{"N":"1"}}"#),
                "index_aliases.doc_reads.targets[0].internal",
            ),
        ];
        for (image, path) in rows {
            assert_eq!(decode(&image).unwrap_err().path, path);
        }
    }
}
