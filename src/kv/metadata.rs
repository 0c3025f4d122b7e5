//! The metadata beside a value: whose it is, its digest, when and by what it was written.

use std::time::{Duration, UNIX_EPOCH};

use humantime::{format_rfc3339_seconds, parse_rfc3339};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::{LimitExceeded, MAX_KEY_BYTES, MAX_METADATA_BYTES};
use crate::index::IndexRef;
use crate::json::from_object;
use crate::kv::Digest;

/// The longest name of an environment: what is left of KV's limit is for the index's names.
pub const MAX_ENVIRONMENT_BYTES: usize = 64;

/// The year 10000, in seconds since the epoch: its years have more digits than RFC 3339 takes.
const END_OF_RFC_3339: f64 = 253_402_300_800.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    Stream,
    ReExport,
    Reconcile,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::ReExport => "re-export",
            Self::Reconcile => "reconcile",
        }
    }
}

/// What the entries of one invocation have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// RFC 3339, UTC, to the millisecond.
    pub exported_at: String,
    pub source: Source,
    /// The environment that writes them: two that share a namespace by mistake must not delete each
    /// other's keys.
    pub environment: String,
    /// When the table took the change, RFC 3339 to the second; only if a stream record's image decided.
    pub changed_at: Option<String>,
}

/// A time in seconds since the epoch, where it can be written as RFC 3339.
pub fn rfc3339(seconds: f64) -> Option<String> {
    let since_epoch = Some(seconds).filter(|time| (0.0..END_OF_RFC_3339).contains(time))?;
    let time = UNIX_EPOCH.checked_add(Duration::from_secs_f64(since_epoch))?;
    Some(format_rfc3339_seconds(time).to_string())
}

/// The metadata that an environment's exporter has written: it names an account and an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub index: IndexRef,
    /// Whose exporter wrote it; `None` for one from before there was a name.
    pub environment: Option<String>,
    /// The digest of the value's bytes, where it can be read.
    pub digest: Option<Digest>,
}

impl Metadata {
    /// `None` where no exporter wrote it.
    pub fn parse(json: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            system_account_id: String,
            index_name: String,
            environment: Option<Value>,
            digest: Option<Value>,
        }
        let fields: Fields = from_object(json).ok()?;
        let digest = fields.digest.as_ref().and_then(Value::as_str);
        Some(Self {
            index: IndexRef::parse(&fields.system_account_id, &fields.index_name)?,
            // What is no name is not this environment's either.
            environment: fields.environment.map(|environment| match environment {
                Value::String(name) => name,
                other => other.to_string(),
            }),
            digest: digest.and_then(Digest::from_hex),
        })
    }

    /// Whether the key is `environment`'s: its own, or from before there was a name.
    pub fn is_of(&self, environment: &str) -> bool {
        self.environment.as_deref().is_none_or(|owner| owner == environment)
    }
}

/// When, by what and where an entry was written: what its metadata says for people to read. Anything
/// but a time, a source or an environment's name is left out, because a stranger may have put it there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Provenance {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exported_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

impl Provenance {
    /// Nothing where no exporter wrote the metadata.
    pub fn parse(json: &str) -> Self {
        let fields = Metadata::parse(json).and_then(|_| from_object::<Map<_, _>>(json).ok());
        let mut fields = fields.unwrap_or_default();
        let source = fields.remove("source");
        let mut text = |name: &str, is_meant: fn(&str) -> bool| match fields.remove(name) {
            Some(Value::String(text)) if is_meant(&text) => Some(text),
            _ => None,
        };
        let is_time = |text: &str| text.len() <= LONGEST_TIME && parse_rfc3339(text).is_ok();
        Self {
            environment: text("environment", is_environment),
            exported_at: text("exported_at", is_time),
            changed_at: text("changed_at", is_time),
            source: source.and_then(|source| serde_json::from_value(source).ok()),
        }
    }
}

/// A time to the nanosecond, as RFC 3339 writes it.
const LONGEST_TIME: usize = "2026-01-01T00:00:00.000000000Z".len();

pub fn is_environment(name: &str) -> bool {
    (1..=MAX_ENVIRONMENT_BYTES).contains(&name.len()) && name.chars().all(fits_an_environment)
}

pub fn fits_an_environment(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_.".contains(character)
}

pub fn metadata_json(digest: Digest, index: &IndexRef, stamp: &Stamp) -> String {
    #[derive(Serialize)]
    struct Written<'a> {
        digest: Digest,
        exported_at: &'a str,
        source: Source,
        system_account_id: &'a str,
        index_name: &'a str,
        environment: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        changed_at: Option<&'a str>,
    }
    let written = Written {
        digest,
        exported_at: &stamp.exported_at,
        source: stamp.source,
        system_account_id: &index.account,
        index_name: &index.name,
        environment: &stamp.environment,
        changed_at: stamp.changed_at.as_deref(),
    };
    // Only a map whose keys are no strings can't be written.
    serde_json::to_string(&written).unwrap_or_default()
}

/// Checks that the names of an index leave its metadata within KV's limit, whatever else it holds.
pub fn check_metadata_size(index: &IndexRef) -> Result<(), LimitExceeded> {
    let escaped =
        |name: &str| serde_json::to_string(name).map_or(usize::MAX, |json| json.len() - 2);
    let names = escaped(&index.account).saturating_add(escaped(&index.name));
    if names > MAX_METADATA_BYTES - LONGEST_WITHOUT_NAMES {
        return Err(LimitExceeded::LargeMetadata);
    }
    Ok(())
}

/// The metadata's bytes beside the names, with the longest source and environment and both times.
const LONGEST_WITHOUT_NAMES: usize = 295;
// Names that need no escapes fit the metadata wherever they fit a key.
const _: () = assert!(LONGEST_WITHOUT_NAMES + MAX_KEY_BYTES < MAX_METADATA_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_fits_a_key_can_be_too_long_for_the_metadata_once_it_is_escaped() {
        let index = |name: &str| IndexRef::parse("acct1", name).unwrap();
        assert_eq!(
            check_metadata_size(&index(&"\u{1}".repeat(200))),
            Err(LimitExceeded::LargeMetadata)
        );
        assert_eq!(check_metadata_size(&index(&"x".repeat(500))), Ok(()));
        let room = MAX_METADATA_BYTES - LONGEST_WITHOUT_NAMES - "acct1".len();
        assert_eq!(check_metadata_size(&index(&"x".repeat(room))), Ok(()));
        assert!(check_metadata_size(&index(&"x".repeat(room + 1))).is_err());
        let stamp = Stamp {
            exported_at: "2026-01-01T00:00:00.000Z".to_owned(),
            source: Source::Reconcile,
            environment: "e".repeat(MAX_ENVIRONMENT_BYTES),
            changed_at: Some("2026-01-01T00:00:00Z".to_owned()),
        };
        let longest = metadata_json(Digest::of(b""), &index(&"x".repeat(room)), &stamp);
        assert_eq!(longest.len(), MAX_METADATA_BYTES);
    }

    #[test]
    fn an_exporters_key_names_an_account_and_an_index() {
        let digest = Digest::of(b"abc");
        let index = IndexRef::parse("a", "i").unwrap();
        let stamp = Stamp {
            exported_at: "t".into(),
            source: Source::Stream,
            environment: "prod".into(),
            changed_at: None,
        };
        let written = metadata_json(digest, &index, &stamp);
        let metadata = Metadata {
            index: index.clone(),
            environment: Some("prod".into()),
            digest: Some(digest),
        };
        assert_eq!(Metadata::parse(&written), Some(metadata.clone()));
        let garbled = written.replace(&digest.to_string(), "7");
        assert_eq!(Metadata::parse(&garbled), Some(Metadata { digest: None, ..metadata }));
        for foreign in [
            "null",
            "\"text\"",
            "{}",
            r#"{"other":1}"#,
            r#"["a","i",null,null]"#,
            r#"{"system_account_id":"","index_name":"i"}"#,
            r#"{"system_account_id":"a","index_name":"i#j"}"#,
        ] {
            assert_eq!(Metadata::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn metadata_shows_what_an_exporter_wrote_and_nothing_else() {
        let index = IndexRef::parse("a", "i").unwrap();
        let stamp = Stamp {
            exported_at: "2026-11-21T10:00:00.000Z".into(),
            source: Source::ReExport,
            environment: "prod".into(),
            changed_at: Some("2026-11-21T09:59:58Z".into()),
        };
        let written = metadata_json(Digest::of(b""), &index, &stamp);
        let provenance = Provenance {
            environment: Some(stamp.environment),
            exported_at: Some(stamp.exported_at),
            changed_at: stamp.changed_at,
            source: Some(Source::ReExport),
        };
        assert_eq!(Provenance::parse(&written), provenance);
        let strange = r#"{"system_account_id":"a","index_name":"i","environment":"s3cret key","exported_at":"s3cret","changed_at":["s3cret"],"source":"s3cret"}"#;
        assert_eq!(Provenance::parse(strange), Provenance::default());
        let foreign = r#"{"exported_at":"2026-11-21T10:00:00.000Z","source":"stream"}"#;
        assert_eq!(Provenance::parse(foreign), Provenance::default());
        assert_eq!(Provenance::parse("7"), Provenance::default());
    }

    #[test]
    fn an_environment_has_1_to_64_letters_digits_dots_dashes_and_underscores() {
        for good in ["p", "prod-eu.2_b", &"e".repeat(64)] {
            assert!(is_environment(good), "{good}");
        }
        for bad in ["", "a b", "ü", &"e".repeat(65)] {
            assert!(!is_environment(bad), "{bad}");
        }
    }

    #[test]
    fn a_change_is_told_to_the_second_where_its_time_can_be_written() {
        assert_eq!(rfc3339(1_795_183_202.0).as_deref(), Some("2026-11-20T14:00:02Z"));
        for no_time in [-1.0, f64::NAN, 253_402_300_800.0, 9e300] {
            assert_eq!(rfc3339(no_time), None, "{no_time:?}");
        }
    }

    #[test]
    fn a_key_is_the_environments_that_it_names_and_everybodys_if_it_names_none() {
        let is_ours = |environment: &str| {
            let json = format!(r#"{{"system_account_id":"a","index_name":"i"{environment}}}"#);
            Metadata::parse(&json).unwrap().is_of("prod")
        };
        for ours in ["", r#","environment":"prod""#, r#","environment":null"#] {
            assert!(is_ours(ours), "{ours}");
        }
        for other in [r#","environment":"test""#, r#","environment":"""#, r#","environment":7"#] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
