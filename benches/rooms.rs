//! The pure modules: decode, plan and encode 1, 100 and 10,000 records.

#[expect(dead_code, reason = "the bench of the binary uses the rest")]
mod workload;

use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use ecom_settings_exporter::config::ExporterConfig;
use ecom_settings_exporter::export::api_keys::Exportable;
use ecom_settings_exporter::export::batch::plan::{BatchPlan, Task, plan};
use ecom_settings_exporter::item::StreamRecord;
use ecom_settings_exporter::kv::{Entry, Pair, Source, Stamp};
use ecom_settings_exporter::lambda::payload::Payload;
use ecom_settings_exporter::services::cloudflare::wire::body;

/// How long each is repeated.
const MEASURED: Duration = Duration::from_secs(1);

fn decode(event: &str) -> Vec<StreamRecord> {
    match Payload::parse(event) {
        Ok(Payload::Stream(records)) => records,
        _ => Vec::new(),
    }
}

fn planned(records: Vec<StreamRecord>) -> BatchPlan {
    let config = ExporterConfig {
        environment: "bench".into(),
        default_cell: Some("cell-1".into()),
        bulk_max_pairs: 10_000,
        removals_up_to: 100,
        http_timeout: Duration::from_secs(1),
        retry_base: Duration::from_secs(1),
        dry_run: false,
    };
    plan(records, &config, UNIX_EPOCH)
}

fn encode(event: &str) -> Vec<Pair> {
    let stamp = Stamp {
        exported_at: "2026-01-01T00:00:00.000Z".to_owned(),
        source: Source::Stream,
        environment: "bench".to_owned(),
        changed_at: None,
    };
    let api_key = "api-key".into();
    let mut pairs = Vec::new();
    for item in planned(decode(event)).settings {
        let Task::Export(Exportable { settings, .. }) = item.task else { continue };
        let entry = Rc::new(Entry::new(&settings.value(&api_key), &settings.index, &stamp));
        pairs.extend(settings.kv_keys().into_iter().map(|key| Pair { key, entry: entry.clone() }));
    }
    pairs
}

/// The shortest of many times, in microseconds a record: what disturbs a run only makes it longer.
fn micros<T>(records: usize, work: impl Fn() -> T) -> String {
    let began = Instant::now();
    let mut shortest = Duration::MAX;
    while began.elapsed() < MEASURED {
        let started = Instant::now();
        black_box(work());
        shortest = shortest.min(started.elapsed());
    }
    format!("{:.2} µs", shortest.as_secs_f64() * 1e6 / records as f64)
}

fn main() {
    println!("| records | decode | decode, plan | decode, plan, encode | body |");
    println!("| --- | --- | --- | --- | --- |");
    for records in [1, 100, 10_000] {
        let event = workload::event(records, workload::ACCOUNTS, workload::typical);
        let pairs = encode(&event);
        let figures = [
            micros(records, || decode(&event)),
            micros(records, || planned(decode(&event))),
            micros(records, || encode(&event)),
            micros(records, || body(&pairs)),
        ];
        println!("| {records} | {} |", figures.join(" | "));
    }
}
