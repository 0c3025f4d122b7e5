//! The pure modules: decode, plan and encode 1, 100 and 10,000 records.

#[path = "../tests/testbed/benches/function/workload.rs"]
#[expect(dead_code, reason = "the other bench uses the rest")]
mod workload;

use std::hint::black_box;
use std::time::{Duration, UNIX_EPOCH};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ecom_settings_exporter::config::ExporterConfig;
use ecom_settings_exporter::export::api_keys::Exportable;
use ecom_settings_exporter::export::batch::plan::{BatchPlan, Task, plan};
use ecom_settings_exporter::item::StreamRecord;
use ecom_settings_exporter::kv::{Entry, Pair, Source, Stamp};
use ecom_settings_exporter::lambda::payload::Payload;
use ecom_settings_exporter::services::cloudflare::wire::body;

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
        let entry = Entry::new(&settings.value(&api_key), &settings.index, &stamp);
        let entry = std::rc::Rc::new(entry);
        pairs.extend(settings.kv_keys().into_iter().map(|key| Pair { key, entry: entry.clone() }));
    }
    pairs
}

fn rooms(criterion: &mut Criterion) {
    for records in [1, 100, 10_000] {
        let event = workload::event(records, 200, workload::typical);
        let mut group = criterion.benchmark_group("rooms");
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::new("decode", records), |bencher| {
            bencher.iter(|| black_box(decode(&event)));
        });
        group.bench_function(BenchmarkId::new("plan", records), |bencher| {
            bencher.iter_batched(|| decode(&event), planned, BatchSize::LargeInput);
        });
        group.bench_function(BenchmarkId::new("decode, plan, encode", records), |bencher| {
            bencher.iter(|| black_box(encode(&event)));
        });
        let pairs = encode(&event);
        group.bench_function(BenchmarkId::new("body", records), |bencher| {
            bencher.iter(|| black_box(body(&pairs)));
        });
    }
}

criterion_group!(benches, rooms);
criterion_main!(benches);
