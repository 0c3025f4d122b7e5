//! `index_aliases` as the search proxy reads it: `analytics` and `doc_reads`, nothing else.
//!
//! A legacy `read_alias` replaces the record's own `doc_reads` unseen. NULL counts as absent
//! throughout. `doc_writes` and unknown blocks are not looked at: they are not exported, and what
//! is wrong in them must not hold up a change that live traffic waits for.

use std::fmt::{self, Write as _};

use super::attribute::{Attribute, Fields};
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
    pub fn decode(image: &Image<'_>) -> Result<Self, Rejection> {
        let read_alias = image.optional_string("read_alias")?;
        let blocks = image.optional_map("index_aliases")?.unwrap_or_default();
        let mut warnings = Vec::new();
        let analytics = match block(&blocks, "analytics")? {
            Some(block) => Some(Analytics::decode(&block)?),
            None => None,
        };
        let doc_reads = match read_alias {
            Some(index_id) => Some(DocReads {
                enabled: true,
                targets: vec![Target { index_id, weight: 1.0, internal: false }],
            }),
            None => match block(&blocks, "doc_reads")? {
                Some(block) => Some(DocReads::decode(&block, &mut warnings)?),
                None => None,
            },
        };
        // An alias block of one or two targets, as most are.
        let mut json = String::with_capacity(256);
        if let Some(analytics) = analytics {
            json.push('{');
            analytics.push(&mut json);
        }
        if let Some(doc_reads) = doc_reads {
            json.push(if json.is_empty() { '{' } else { ',' });
            doc_reads.push(&mut json);
        }
        if json.is_empty() {
            return Ok(Self { json: None, warnings });
        }
        json.push('}');
        Ok(Self { json: Some(json), warnings })
    }
}

struct Analytics {
    enabled: bool,
    index_id: Option<String>,
    internal: bool,
}

impl Analytics {
    fn decode(block: &Block<'_>) -> Result<Self, Rejection> {
        Ok(Self {
            enabled: block.flag("enabled")?,
            index_id: block.string("index_id")?,
            internal: block.flag("internal")?,
        })
    }

    fn push(&self, out: &mut String) {
        out.push_str(r#""analytics":{"enabled":"#);
        push_flag(out, self.enabled);
        out.push_str(r#","index_id":"#);
        match &self.index_id {
            Some(index_id) => json::push_string(out, index_id),
            None => out.push_str("null"),
        }
        out.push_str(r#","internal":"#);
        push_flag(out, self.internal);
        out.push('}');
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
    fn decode(block: &Block<'_>, warnings: &mut Vec<String>) -> Result<Self, Rejection> {
        let enabled = block.flag("enabled")?;
        let targets = match block.fields.get("targets") {
            None => Vec::new(),
            Some(Attribute::List(list)) => list
                .iter()
                .enumerate()
                .map(|(position, target)| {
                    Target::decode(target, Path::Index(&block.path.key("targets"), position))
                })
                .collect::<Result<Vec<Target>, Rejection>>()?,
            Some(_) => return Err(block.path.key("targets").reject("must be a list (L)")),
        };
        if enabled {
            let sum: f64 = targets.iter().map(|target| target.weight).sum();
            if (sum - 1.0).abs() > WEIGHT_SUM_TOLERANCE {
                let path = block.path.key("targets");
                warnings.push(format!("{path}: the weights sum to {sum}, not to 1.0"));
            }
        }
        Ok(Self { enabled, targets })
    }

    fn push(&self, out: &mut String) {
        out.push_str(r#""doc_reads":{"enabled":"#);
        push_flag(out, self.enabled);
        out.push_str(r#","targets":["#);
        for (position, target) in self.targets.iter().enumerate() {
            if position > 0 {
                out.push(',');
            }
            out.push_str(r#"{"index_id":"#);
            json::push_string(out, &target.index_id);
            out.push_str(r#","internal":"#);
            push_flag(out, target.internal);
            // A string takes whatever is written to it.
            let _ = write!(out, r#","weight":{:?}}}"#, target.weight);
        }
        out.push_str("]}");
    }
}

impl Target {
    fn decode(value: &Attribute<'_>, path: Path<'_>) -> Result<Self, Rejection> {
        let fields = value.as_map().ok_or_else(|| path.reject("must be a map (M)"))?;
        let block = Block { fields, path };
        let index_id = block
            .string("index_id")?
            .ok_or_else(|| block.path.key("index_id").reject("is required"))?;
        let weight = match fields.get("weight") {
            None => 1.0,
            Some(Attribute::Number(text)) => text
                .parse::<f64>()
                .ok()
                .filter(|weight| (0.0..=1.0).contains(weight))
                // A negative zero would give other bytes for the same weight.
                .map(f64::abs)
                .ok_or_else(|| block.path.key("weight").reject("must be between 0 and 1"))?,
            Some(_) => return Err(block.path.key("weight").reject("must be a number (N)")),
        };
        Ok(Self { index_id, weight, internal: block.flag("internal")? })
    }
}

/// A map, and where in the item it stands.
struct Block<'a> {
    fields: &'a Fields<'a>,
    path: Path<'a>,
}

impl Block<'_> {
    fn flag(&self, name: &str) -> Result<bool, Rejection> {
        match self.fields.get(name) {
            None => Ok(false),
            Some(Attribute::Flag(value)) => Ok(*value),
            Some(_) => Err(self.path.key(name).reject("must be a boolean (BOOL)")),
        }
    }

    fn string(&self, name: &str) -> Result<Option<String>, Rejection> {
        match self.fields.get(name) {
            None => Ok(None),
            Some(Attribute::Text(text)) => Ok(Some(text.clone().into_owned())),
            Some(_) => Err(self.path.key(name).reject("must be a string (S)")),
        }
    }
}

/// Where in the item a value stands; written out only where something is wrong with it.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root(&'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

const INDEX_ALIASES: Path<'static> = Path::Root("index_aliases");

impl<'a> Path<'a> {
    fn key(&'a self, key: &'a str) -> Self {
        Self::Key(self, key)
    }

    fn reject(&self, reason: &'static str) -> Rejection {
        Rejection::new(self.to_string(), reason)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Key(within, key) => write!(f, "{within}.{key}"),
            Self::Index(within, index) => write!(f, "{within}[{index}]"),
        }
    }
}

fn block<'a>(blocks: &'a Fields<'a>, name: &'static str) -> Result<Option<Block<'a>>, Rejection> {
    let path = Path::Key(&INDEX_ALIASES, name);
    match blocks.get(name) {
        None => Ok(None),
        Some(Attribute::Map(fields)) => Ok(Some(Block { fields, path })),
        Some(_) => Err(path.reject("must be a map (M)")),
    }
}

fn push_flag(out: &mut String, flag: bool) {
    out.push_str(if flag { "true" } else { "false" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Cursor;

    fn decode(image: &str) -> Result<Aliases, Rejection> {
        Aliases::decode(&Image::read(&mut Cursor::new(image)).unwrap())
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
