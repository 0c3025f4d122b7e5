//! The decoders, and what each promises for any input.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use ecom_settings_exporter::export::explain::Subject;
use ecom_settings_exporter::index::{IndexRef, ItemRef};
use ecom_settings_exporter::item::{
    Change, IndexSettings, Item, RecordedChange, Rejection, StreamRecord, alias_targets,
    query_config_value,
};
use ecom_settings_exporter::kv::{Metadata, StoredValue};
use ecom_settings_exporter::lambda::payload::Payload;
use ecom_settings_exporter::services::cloudflare::wire;
use ecom_settings_exporter::services::http::retry_after;
use ecom_settings_exporter::services::table_reply::TableReply;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::schemas::{QUERY_CONFIG, SETTINGS, check as check_schema};
use crate::seeds::Target;

/// An error says what is wrong; it does not repeat the input.
const LONGEST_ERROR: usize = 1_200;

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
        }
        Target::Header => header(input.trim_matches('"'), seen),
        Target::Reply => {
            for status in [200, 400] {
                reply(status, input, seen);
            }
            let items = TableReply::parse(input.as_bytes()).map(|reply| reply.page.items);
            for (key, item) in items.into_iter().flatten() {
                seen.add("items");
                let attributes = item.attributes();
                for (name, text) in [("pk", &key.pk), ("sk", &key.sk)] {
                    assert_eq!(attributes.text(name).unwrap_or_default(), text);
                }
            }
            stored(input);
        }
    }
}

/// What anybody may have put into KV.
fn stored(input: &str) {
    let is_index = |index: &IndexRef| !index.account.is_empty() && !index.name.contains('#');
    if let Some(metadata) = Metadata::parse(input) {
        assert!(is_index(&metadata.index));
        let shown = metadata.shown_environment();
        assert!(shown.is_none_or(|name| (1..=64).contains(&name.len())));
        let times = [metadata.exported_at, metadata.changed_at];
        assert!(times.into_iter().flatten().all(|time| time.len() <= 30));
    }
    let stored = StoredValue { value: input.to_owned(), metadata: None };
    if let Some(settings) = stored.settings() {
        assert!(is_index(&settings.index));
        assert!(settings.shop_id.is_none_or(|shop_id| !shop_id.is_empty()));
    }
    if let Some(item) = stored.query_config() {
        assert!(is_index(&item.index) && item.query.is_some_and(|query| !query.is_empty()));
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
    match Payload::parse(input, "fuzz") {
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
            match request.subject {
                Subject::Index(index) => {
                    assert!(!index.account.is_empty() && !index.name.contains('#'));
                }
                Subject::Key(key) => assert!((1..=512).contains(&key.len())),
                Subject::Item(key, _) => assert!(!key.pk.is_empty()),
                Subject::Account { account, .. } => assert!(!account.is_empty()),
            }
        }
        Err(error) => assert!(error.error_message.len() < LONGEST_ERROR, "{error:?}"),
    }
}

fn record(record: StreamRecord, input_bytes: usize, seen: &mut Seen) {
    let RecordedChange { item, change, created_at, .. } = match record.change {
        Ok(None) => return seen.add("skipped"),
        Err(rejection) => {
            seen.add("unknown");
            return rejected(&rejection, input_bytes, seen);
        }
        Ok(Some(change)) => change,
    };
    // Where no clock can be, a time is not told.
    let latest = UNIX_EPOCH + Duration::from_secs(100_000_000_000);
    assert!(created_at.is_none_or(|at| (UNIX_EPOCH..=latest).contains(&at)));
    match change {
        Change::Malformed(rejection) => rejected(&rejection, input_bytes, seen),
        Change::Remove => seen.add("removals"),
        Change::Upsert(image) => upsert(&item, &image, input_bytes, seen),
    }
}

/// An image either has a value or a reason why not; its aliases are read in both cases.
fn upsert(item: &ItemRef, image: &Item, input_bytes: usize, seen: &mut Seen) {
    let attributes = image.attributes();
    let targets = alias_targets(&item.index.account, &attributes);
    assert!(targets.iter().all(|target| (1..=3_073).contains(&target.name().len())));
    if item.query.is_none() {
        match IndexSettings::decode(&item.index, &attributes) {
            Ok(settings) => value(&settings, input_bytes),
            Err(rejection) => return rejected(&rejection, input_bytes, seen),
        }
        return seen.add("settings");
    }
    match query_config_value(item, &attributes) {
        Ok(value) => {
            seen.add("query_configs");
            let value = object(&value, input_bytes);
            assert_eq!(check_schema(QUERY_CONFIG, &value), Ok(()));
            assert_eq!(value["system_account_id"], *item.index.account);
            assert_eq!(value["index_name"], *item.index.name);
            assert_eq!(value["normalized_query"].as_str(), item.query.as_deref());
        }
        Err(rejection) => rejected(&rejection, input_bytes, seen),
    }
}

fn rejected(rejection: &Rejection, input_bytes: usize, seen: &mut Seen) {
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
    let mut keys = settings.shop_id.iter().cloned().chain([settings.index.index_id()]);
    assert!(keys.all(|key| (1..=512).contains(&key.len()) && key != "." && key != ".."));
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
    let reply = http::Response::builder().status(status);
    let reply = reply.body(input.as_bytes().to_vec().into()).unwrap();
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
