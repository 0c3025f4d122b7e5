//! The decoders, and what each promises for any input.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use ecom_settings_exporter::config::ExporterConfig;
use ecom_settings_exporter::export::batch::plan::plan;
use ecom_settings_exporter::export::explain::Explain;
use ecom_settings_exporter::item::IndexSettings;
use ecom_settings_exporter::item::stream_record::{QueryConfigRecord, SettingsRecord};
use ecom_settings_exporter::item::{Change, Content, StreamRecord};
use ecom_settings_exporter::kv::{Metadata, Provenance, StoredSettings};
use ecom_settings_exporter::lambda::payload::Payload;
use ecom_settings_exporter::services::cloudflare::wire::{self, Reply};
use ecom_settings_exporter::services::http::retry_after;
use ecom_settings_exporter::services::table_reply::TableReply;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::schemas::{QUERY_CONFIG, SETTINGS, check as check_schema};
use crate::seeds::Target;

/// An error says what is wrong; it does not repeat the input.
const LONGEST_ERROR: usize = 1_000;

fn config() -> ExporterConfig {
    ExporterConfig {
        environment: "fuzz".into(),
        default_cell: Some("cell-1".into()),
        bulk_max_pairs: 10_000,
        removals_up_to: 100,
        http_timeout: Duration::from_secs(1),
        retry_base: Duration::from_secs(1),
        dry_run: false,
    }
}

/// How far inputs got, by kind of outcome.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<&'static str, u64>);

/// All kinds. A fuzzer whose inputs are all refused at once would find nothing.
const KINDS: &str = "json streams re_exports reconciles explains skipped settings query_configs \
    removals rejected unknown replies items waits";

impl Seen {
    fn add(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Fails if a kind of outcome never occurred.
    pub fn assert_varied(&self) {
        let missing: Vec<_> = KINDS.split(' ').filter(|kind| !self.0.contains_key(kind)).collect();
        assert!(missing.is_empty(), "no {missing:?}: {self:?}");
    }
}

/// Gives an input to the decoders of its target.
pub fn check(target: Target, input: &str, seen: &mut Seen) {
    match target {
        Target::Payload => payload(input, seen),
        Target::Record => {
            let Ok(json) = serde_json::from_str::<&RawValue>(input) else { return };
            seen.add("json");
            record(StreamRecord::read(json), input.len(), seen);
            let plan = plan(vec![StreamRecord::read(json)], &config(), UNIX_EPOCH);
            assert_eq!(plan.outcomes.len(), 1, "an outcome for each record");
        }
        Target::Header => header(input.trim_matches('"'), seen),
        Target::Reply => {
            for status in [200, 400] {
                reply(status, input, seen);
            }
            let items = TableReply::parse(input).map(|reply| reply.items);
            for (key, item) in items.into_iter().flatten() {
                seen.add("items");
                let attributes = item.attributes();
                for (name, text) in [("pk", &key.pk), ("sk", &key.sk)] {
                    assert_eq!(attributes.text(name).unwrap_or_default(), text);
                }
            }
            // Read what anybody may have put into KV.
            if let Some(metadata) = Metadata::parse(input) {
                assert!(!metadata.index.account.is_empty() && !metadata.index.name.contains('#'));
            }
            let provenance = Provenance::parse(input);
            let times = [provenance.exported_at, provenance.changed_at];
            assert!(times.into_iter().flatten().all(|time| time.len() <= 30));
            assert!(provenance.environment.is_none_or(|name| (1..=64).contains(&name.len())));
            if let Some(stored) = StoredSettings::parse(input) {
                assert!(stored.shop_id.is_none_or(|shop_id| !shop_id.is_empty()));
            }
        }
    }
}

fn header(input: &str, seen: &mut Seen) {
    let Ok(value) = HeaderValue::from_bytes(input.as_bytes()) else { return };
    let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
    if let Some(wait) = retry_after(&headers) {
        seen.add("waits");
        assert!(wait <= Duration::from_secs(3600), "{input}");
    }
}

fn payload(input: &str, seen: &mut Seen) {
    match Payload::parse(input) {
        Ok(Payload::Stream(records)) => {
            seen.add("streams");
            for found in records {
                record(found, input.len(), seen);
            }
        }
        Ok(Payload::ReExport(request)) => {
            seen.add("re_exports");
            assert!(!request.index.account.is_empty() && !request.index.name.contains('#'));
        }
        Ok(Payload::Reconcile(request)) => {
            seen.add("reconciles");
            assert_ne!(request.system_account_id.as_deref(), Some(""));
        }
        Ok(Payload::Explain(request)) => {
            seen.add("explains");
            match request {
                Explain::Index(index) => {
                    assert!(!index.account.is_empty() && !index.name.contains('#'));
                }
                Explain::Key(key) => assert!((1..=512).contains(&key.len())),
            }
        }
        Err(error) => assert!(error.to_string().len() < LONGEST_ERROR, "{error}"),
    }
}

fn record(record: StreamRecord, input_bytes: usize, seen: &mut Seen) {
    let rejection = match &record.content {
        Content::Skipped => {
            seen.add("skipped");
            return;
        }
        Content::Unknown { rejection } => {
            seen.add("unknown");
            rejection
        }
        Content::Settings(SettingsRecord { change: Err(rejection), .. })
        | Content::QueryConfig(QueryConfigRecord { change: Err(rejection), .. }) => rejection,
        Content::Settings(SettingsRecord { change: Ok(Change::Remove), .. })
        | Content::QueryConfig(QueryConfigRecord { change: Ok(Change::Remove), .. }) => {
            seen.add("removals");
            return;
        }
        Content::Settings(SettingsRecord { change: Ok(Change::Upsert(settings)), .. }) => {
            seen.add("settings");
            value(settings, input_bytes);
            return;
        }
        Content::QueryConfig(QueryConfigRecord {
            query_config,
            change: Ok(Change::Upsert(config)),
            ..
        }) => {
            seen.add("query_configs");
            let value = object(&config.value, input_bytes);
            assert_eq!(check_schema(QUERY_CONFIG, &value), Ok(()));
            assert_eq!(value["system_account_id"], *query_config.index.account);
            assert_eq!(value["index_name"], *query_config.index.name);
            assert_eq!(value["normalized_query"], *query_config.query);
            return;
        }
    };
    seen.add("rejected");
    // A path consists of names, each at most escaped.
    assert!(rejection.path.len() <= input_bytes * 6 + LONGEST_ERROR, "{rejection}");
    assert!(rejection.reason.len() < LONGEST_ERROR);
}

fn value(settings: &IndexSettings, input_bytes: usize) {
    const KEY: &str = "k\"\\~";
    let value = object(&settings.value(&KEY.into()), input_bytes);
    assert_eq!(check_schema(SETTINGS, &value), Ok(()));
    assert_eq!(value["marqo_api_key"], KEY);
    assert_eq!(value["system_account_id"], *settings.index.account);
    assert_eq!(value["index_name"], *settings.index.name);
    assert_eq!(value["shop_id"].as_str(), settings.shop_id.as_deref());
    let aliases = &value["index_aliases"];
    assert_eq!(aliases.get("doc_writes"), None);
    for target in aliases["doc_reads"]["targets"].as_array().into_iter().flatten() {
        assert!(target["weight"].as_f64().is_some_and(|weight| (0.0..=1.0).contains(&weight)));
    }
    let keys = settings.kv_keys();
    assert!(keys.iter().all(|key| (1..=512).contains(&key.len()) && key != "." && key != ".."));
}

/// The value, which must be an object no larger than the input allows.
fn object(value: &str, input_bytes: usize) -> Value {
    let parsed: Value = serde_json::from_str(value).expect("a value should be JSON");
    assert!(parsed.is_object());
    // A number with few digits may be written with many, and a byte with six.
    assert!(value.len() <= input_bytes * 6 + 1_000, "{} of {input_bytes}", value.len());
    parsed
}

fn reply(status: u16, input: &str, seen: &mut Seen) {
    let status = StatusCode::from_u16(status).unwrap();
    let reply = Reply { status, retry_after: None, body: input.as_bytes() };
    let errors = [
        wire::bulk_reply(&reply, 2).err(),
        wire::get_reply(&reply).err(),
        wire::list_reply(&reply).err(),
    ];
    if errors.iter().any(Option::is_none) {
        seen.add("replies");
    }
    for error in errors.into_iter().flatten() {
        assert!(error.to_string().len() < LONGEST_ERROR, "{error}");
    }
}
