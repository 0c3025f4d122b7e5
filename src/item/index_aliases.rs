//! `index_aliases` as the search proxy reads it: `analytics` and `doc_reads`, nothing else.
//!
//! A legacy `read_alias` replaces the record's own `doc_reads`, which is then not looked at. NULL
//! counts as absent throughout. `doc_writes` and unknown blocks are not looked at either: they are
//! not exported, and what is wrong in them must not hold up a change that live traffic waits for.

use serde::Serialize;

use super::Rejection;
use super::fields::Fields;
use crate::json::Json;

/// How far the weights of an enabled `doc_reads` may sum up from 1.0 without a warning: 0.001, and what
/// adding decimal fractions up in binary may be off.
const WEIGHT_SUM_TOLERANCE: f64 = 0.001 + 1e-9;

/// The exported `index_aliases`: its blocks and their fields ascend by name.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct IndexAliases {
    #[serde(skip_serializing_if = "Option::is_none")]
    analytics: Option<Analytics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    doc_reads: Option<DocReads>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Analytics {
    enabled: bool,
    index_id: Option<String>,
    internal: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct DocReads {
    enabled: bool,
    targets: Vec<Target>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    index_id: String,
    internal: bool,
    weight: f64,
}

impl IndexAliases {
    pub fn decode(item: &Fields<'_>) -> Result<Self, Rejection> {
        let read_alias = item.non_empty_string("read_alias")?;
        let aliases = item.map("index_aliases", |blocks| {
            let analytics = blocks.map("analytics", Analytics::decode)?;
            let doc_reads = match read_alias {
                Some(_) => None,
                None => blocks.map("doc_reads", DocReads::decode)?,
            };
            Ok(Self { analytics, doc_reads })
        })?;
        let mut aliases = aliases.unwrap_or_default();
        if let Some(index_id) = read_alias {
            aliases.doc_reads = Some(DocReads::legacy(index_id));
        }
        Ok(aliases)
    }

    /// `None` if nothing is left to export.
    pub fn to_json(&self) -> Option<Json> {
        let is_empty = self.analytics.is_none() && self.doc_reads.is_none();
        Json::of(self).ok().filter(|_| !is_empty)
    }

    /// What is exported all the same but is worth a look.
    pub fn warning(&self) -> Option<String> {
        let doc_reads = self.doc_reads.as_ref().filter(|doc_reads| doc_reads.enabled)?;
        let enabled = doc_reads.targets.iter().filter(|target| target.enabled != Some(false));
        let sum: f64 = enabled.map(|target| target.weight).sum();
        ((sum - 1.0).abs() > WEIGHT_SUM_TOLERANCE).then(|| {
            format!("index_aliases.doc_reads.targets: the weights sum to {sum}, not to 1.0")
        })
    }
}

impl Analytics {
    fn decode(block: &Fields<'_>) -> Result<Self, Rejection> {
        Ok(Self {
            enabled: block.boolean("enabled")?.unwrap_or(false),
            index_id: block.string("index_id")?.map(str::to_owned),
            internal: block.boolean("internal")?.unwrap_or(false),
        })
    }
}

impl DocReads {
    fn legacy(index_id: String) -> Self {
        let target = Target { enabled: None, index_id, internal: false, weight: 1.0 };
        Self { enabled: true, targets: vec![target] }
    }

    fn decode(block: &Fields<'_>) -> Result<Self, Rejection> {
        Ok(Self {
            enabled: block.boolean("enabled")?.unwrap_or(false),
            targets: block.list_of_maps("targets", Target::decode)?,
        })
    }
}

impl Target {
    fn decode(target: &Fields<'_>) -> Result<Self, Rejection> {
        let index_id = target.string("index_id")?;
        let weight = target.number("weight")?.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&weight) {
            return Err(target.reject("weight", "must be between 0 and 1"));
        }
        Ok(Self {
            enabled: target.boolean("enabled")?,
            index_id: index_id.ok_or_else(|| target.reject("index_id", "is required"))?.to_owned(),
            internal: target.boolean("internal")?.unwrap_or(false),
            // A negative zero would give other bytes for the same weight.
            weight: weight.abs(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Map;

    fn decode(item: &str) -> Result<IndexAliases, Rejection> {
        let item = serde_json::value::RawValue::from_string(item.to_owned()).unwrap();
        let map = Map::read(&item).unwrap();
        IndexAliases::decode(&Fields::of_item(&map))
    }

    fn json(item: &str) -> Option<String> {
        decode(item).unwrap().to_json().map(|json| json.get().to_owned())
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
    fn a_targets_own_enabled_is_kept_and_a_disabled_one_does_not_count_for_the_sum() {
        let target = |more: &str| {
            format!(r#"{{"M":{{"index_id":{{"S":"a"}},"weight":{{"N":"1"}}{more}}}}}"#)
        };
        let off = target(r#","enabled":{"BOOL":false}"#);
        let on = target(r#","enabled":{"BOOL":true}"#);
        let image = |targets: &[&str]| {
            format!(
                r#"{{"index_aliases":{{"M":{{"doc_reads":{{"M":{{"enabled":{{"BOOL":true}},"targets":{{"L":[{}]}}}}}}}}}}}}"#,
                targets.join(",")
            )
        };
        assert!(
            json(&image(&[&off]))
                .unwrap()
                .contains(r#"{"enabled":false,"index_id":"a","internal":false,"weight":1.0}"#)
        );
        assert_eq!(decode(&image(&[&off, &on])).unwrap().warning(), None);
        assert!(decode(&image(&[&on, &on])).unwrap().warning().is_some());
        assert!(decode(&image(&[&off])).unwrap().warning().is_some());
    }

    #[test]
    fn weights_that_do_not_sum_to_one_are_warned_about_only_while_enabled() {
        let image = |enabled: bool, a: &str, b: &str| {
            format!(
                r#"{{"index_aliases":{{"M":{{"doc_reads":{{"M":{{"enabled":{{"BOOL":{enabled}}},"targets":{{"L":[
                    {{"M":{{"index_id":{{"S":"a"}},"weight":{{"N":"{a}"}}}}}},{{"M":{{"index_id":{{"S":"b"}},"weight":{{"N":"{b}"}}}}}}]}}}}}}}}}}}}"#
            )
        };
        let warnings = |image: String| decode(&image).unwrap().warning().iter().count();
        assert_eq!(warnings(image(true, "0.5", "0.4")), 1);
        assert_eq!(warnings(image(true, "0.5", "0.502")), 1);
        assert_eq!(warnings(image(true, "0.5", "0.501")), 0);
        assert_eq!(warnings(image(true, "0.5", "0.499")), 0);
        assert_eq!(warnings(image(true, "0.5", "0.4989")), 1);
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
            (
                doc_reads(r#"{"index_id":{"S":"a"},"enabled":{"S":"yes"}}"#),
                "index_aliases.doc_reads.targets[0].enabled",
            ),
        ];
        for (image, path) in rows {
            assert_eq!(decode(&image).unwrap_err().path, path);
        }
    }
}
