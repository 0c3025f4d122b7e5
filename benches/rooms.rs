//! The pure modules: decode an event of 1, 100 and 10,000 records, read its items, encode their pairs, and
//! write the body of the request.

#[expect(dead_code, reason = "the bench of the binary uses the rest")]
mod workload;

use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ecom_settings_exporter::item::{Change, Content, IndexSettings, StreamRecord};
use ecom_settings_exporter::kv::{Metadata, Pair, Source, StoredValue};
use ecom_settings_exporter::lambda::payload::Payload;
use ecom_settings_exporter::services::cloudflare::wire::body;

/// How long each is repeated.
const MEASURED: Duration = Duration::from_secs(1);

fn decode(event: &str) -> Vec<StreamRecord> {
    match Payload::parse(event, "bench") {
        Ok(Payload::Stream(records)) => records,
        _ => Vec::new(),
    }
}

fn read(records: Vec<StreamRecord>) -> Vec<IndexSettings> {
    let settings = |record: StreamRecord| {
        let Content::Change(recorded) = record.content else { return None };
        let Change::Upsert(item) = recorded.change else { return None };
        IndexSettings::decode(&recorded.item.index, &item.attributes()).ok()
    };
    records.into_iter().filter_map(settings).collect()
}

fn encode(settings: Vec<IndexSettings>) -> Vec<Pair> {
    let api_key = "api-key".into();
    let mut pairs = Vec::new();
    for settings in settings {
        let metadata = Metadata {
            digest: None,
            exported_at: Some("2026-01-01T00:00:00.000Z".to_owned()),
            source: Some(Source::Stream),
            index: settings.index.clone(),
            environment: Some("bench".to_owned()),
            changed_at: None,
        };
        let stored = Rc::new(StoredValue::new(settings.value(&api_key), metadata));
        pairs.extend(settings.kv_keys().into_iter().map(|key| Pair {
            key,
            stored: stored.clone(),
            item: None,
        }));
    }
    pairs
}

/// The shortest of many times, in microseconds a record: what disturbs a run only makes it longer.
fn micros<T>(records: u32, work: impl Fn() -> T) -> String {
    let began = Instant::now();
    let mut shortest = Duration::MAX;
    while began.elapsed() < MEASURED {
        let started = Instant::now();
        black_box(work());
        shortest = shortest.min(started.elapsed());
    }
    format!("{:.2} µs", shortest.as_secs_f64() * 1e6 / f64::from(records))
}

fn main() {
    println!("| records | decode | and read | and encode | body of the request |");
    println!("| --- | --- | --- | --- | --- |");
    for records in [1, 100, 10_000] {
        let event = workload::event(records as usize, workload::ACCOUNTS, workload::typical);
        let event = event.to_string();
        let pairs = encode(read(decode(&event)));
        let figures = [
            micros(records, || decode(&event)),
            micros(records, || read(decode(&event))),
            micros(records, || encode(read(decode(&event)))),
            micros(records, || body(&pairs)),
        ];
        println!("| {records} | {} |", figures.join(" | "));
    }
}
