//! The handler over the real clients, pointed at the stand-ins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use ecom_settings_exporter::config::Config;
use ecom_settings_exporter::lambda::Handler;
use ecom_settings_exporter::services::api_keys::ApiKeysClient;
use ecom_settings_exporter::services::aws;
use ecom_settings_exporter::services::cloudflare::CloudflareKv;
use ecom_settings_exporter::services::settings_table::DynamoDbTable;
use ecom_settings_exporter::services::{RealServices, http};
use ecom_settings_exporter::telemetry::Stats;
use serde_json::Value;
use testbed::faults::{Fault, Rule};
use testbed::kv::{KvRequest, KvVerb, Stored};
use testbed::proxy::query_config_key;
use testbed::stack::{DEFAULT_CELL, QUERY_CONFIGS, SETTINGS};
use testbed::stream::{ShardReader, event};
use testbed::table::{StreamView, Table, to_item};
use tracing::subscriber::DefaultGuard;

use super::checked::CheckedStack;
use super::clock::{ClockedServices, WallClock};
use super::logs::Logs;
use super::rules::writes;
use crate::printed::COUNTS;
use crate::schemas::published::check_invocation;

/// A request's time-out: long enough for any answer on a busy machine.
const HTTP_TIMEOUT_MS: &str = "20000";
/// The time of an invocation in tests that are not about the deadline.
const INVOCATION: Duration = Duration::from_secs(60);
/// Requests of one pass over a small table: of a removal's, and of a reconcile's.
const SEGMENTS: [usize; 2] = [8, 2];
/// What passes for KV between two invocations. Within one, its clock moves with each back-off only.
const BETWEEN_INVOCATIONS: Duration = Duration::from_secs(1);

/// The stand-ins, and a handler that uses them.
pub struct World {
    pub stack: CheckedStack,
    pub logs: Logs,
    /// The handler's wall clock.
    pub clock: WallClock,
    handler: Handler<ClockedServices>,
    stream: Mutex<ShardReader>,
    _capture: DefaultGuard,
}

/// A handler's answer, and its counts.
#[derive(Debug)]
pub struct Answered {
    pub result: Result<Value, LambdaError>,
    pub stats: Stats,
}

/// The error that an invoker sees.
#[derive(Debug, PartialEq, Eq)]
pub struct LambdaError {
    pub kind: String,
    pub message: String,
}

impl World {
    /// The stand-ins with the stream of production, and a patient handler.
    pub async fn start() -> Self {
        Self::with_env(&[]).await
    }

    /// The same with variables of the environment of its own.
    pub async fn with_env(more: &[(&str, &str)]) -> Self {
        Self::with(StreamView::NewImage, more).await
    }

    /// The same with a stream that carries old images too.
    pub async fn with_old_images() -> Self {
        Self::with(StreamView::NewAndOldImages, &[]).await
    }

    async fn with(view: StreamView, more: &[(&str, &str)]) -> Self {
        let logs = Logs::default();
        let capture = logs.capture();
        let stack = CheckedStack::start(view).await;
        let mut env = stack.env();
        let quick = [("HTTP_RETRY_BASE_MS", "1"), ("HTTP_TIMEOUT_MS", HTTP_TIMEOUT_MS)];
        let more = quick.iter().chain(more);
        env.extend(more.map(|(name, value)| ((*name).into(), (*value).into())));
        stack.kv.clock().set_speed(0);
        let clock = WallClock::new(stack.kv.clock().clone());
        let handler = handler(&env, clock.clone());
        let stream = Mutex::new(stack.table.shard());
        Self { stack, logs, clock, handler, stream, _capture: capture }
    }

    pub async fn handle(&self, payload: &Value) -> Answered {
        self.handle_within(payload, INVOCATION).await
    }

    /// Invokes the handler with this much time. Fails if the answer takes more than seven eighths
    /// of it.
    pub async fn handle_within(&self, payload: &Value, time: Duration) -> Answered {
        self.invoke(&payload.to_string(), time).await
    }

    /// Invokes the handler with a payload that need not be JSON.
    pub async fn handle_text(&self, payload: &str) -> Answered {
        self.invoke(payload, INVOCATION).await
    }

    /// Invokes the handler. Returns the report.
    pub async fn report(&self, payload: &Value) -> Value {
        self.handle(payload).await.ok().clone()
    }

    async fn invoke(&self, payload: &str, time: Duration) -> Answered {
        self.stack.kv.clock().pass(BETWEEN_INVOCATIONS);
        let answer = tokio::time::timeout(time * 7 / 8, self.handler.handle(payload, time));
        let (result, stats) = answer.await.expect("the answer should come in time");
        let result = match result {
            Ok(answer) => {
                let report = serde_json::to_value(answer).unwrap();
                // Serde's `Value` cannot hold every payload that the handler takes.
                if let Ok(payload) = serde_json::from_str(payload) {
                    assert_eq!(check_invocation(&payload, &report), Ok(()));
                }
                Ok(report)
            }
            Err(error) => Err(LambdaError { kind: error.error_type, message: error.error_message }),
        };
        Answered { result, stats }
    }

    /// Invokes the handler with a stream event of these records.
    pub async fn batch(&self, records: impl IntoIterator<Item = Value>) -> Answered {
        self.handle(&event(records)).await
    }

    /// The same. No record may fail.
    pub async fn batch_ok(&self, records: impl IntoIterator<Item = Value>) -> Answered {
        let answered = self.batch(records).await;
        assert_eq!(answered.failures(), NOTHING, "{}", self.logs.text());
        answered
    }

    /// The records of the table's stream that have not been read yet.
    pub fn new_records(&self) -> Vec<Value> {
        self.stream.lock().unwrap().read(usize::MAX)
    }

    /// Invokes the handler with the new records of the table's stream. None may fail.
    pub async fn deliver(&self) -> Answered {
        self.batch_ok(self.new_records()).await
    }

    /// Puts items into the table past its stream.
    pub fn load(&self, items: impl IntoIterator<Item = Value>) {
        self.stack.table.load(items.into_iter().map(|item| to_item(&item)));
    }

    /// Removes an item from the table.
    pub fn remove(&self, item: &Value) {
        self.stack.table.delete(item["pk"].as_str().unwrap(), item["sk"].as_str().unwrap());
    }

    /// Puts the items, carries them to KV, and forgets the requests and log lines of that.
    pub async fn settled_with(&self, items: impl IntoIterator<Item = Value>) {
        for item in items {
            self.stack.table.put(&item);
        }
        self.deliver().await;
        self.forget();
    }

    /// Forgets all requests and log lines so far.
    pub fn forget(&self) {
        self.stack.kv.clear_log();
        self.stack.api_keys.clear_log();
        self.stack.table.clear_log();
        self.stack.secrets.clear_log();
        self.logs.clear();
    }

    /// A key of the settings namespace as JSON.
    pub fn setting(&self, key: &str) -> Option<Value> {
        self.stack.kv.get(SETTINGS, key).map(|stored| stored.json())
    }

    /// The value's `index_url` under a key of the settings namespace.
    pub fn url_under(&self, key: &str) -> Option<String> {
        Some(self.setting(key)?["index_url"].as_str()?.to_owned())
    }

    pub fn setting_keys(&self) -> Vec<String> {
        self.stack.kv.keys(SETTINGS)
    }

    pub fn query_config_keys(&self) -> Vec<String> {
        self.stack.kv.keys(QUERY_CONFIGS)
    }

    /// A query config in KV as JSON.
    pub fn query_config(&self, account: &str, name: &str, query: &str) -> Option<Value> {
        let key = query_config_key(account, name, query);
        self.stack.kv.get(QUERY_CONFIGS, &key).map(|stored| stored.json())
    }

    /// What both namespaces hold.
    pub fn snapshots(&self) -> [BTreeMap<String, Stored>; 2] {
        [SETTINGS, QUERY_CONFIGS].map(|namespace| self.stack.kv.snapshot(namespace))
    }

    /// The bulk writes of a namespace so far.
    pub fn puts(&self, namespace: &str) -> Vec<KvRequest> {
        let puts = self.stack.kv.log_of(KvVerb::PutBulk);
        puts.into_iter().filter(|request| request.namespace == namespace).collect()
    }

    /// How many pairs each of the bulk writes of a namespace had.
    pub fn pairs(&self, namespace: &str) -> Vec<usize> {
        self.puts(namespace).iter().map(|put| put.keys.len()).collect()
    }

    /// The same of those that KV carried out: not of those that came within a second of another one.
    pub fn pairs_done(&self, namespace: &str) -> Vec<usize> {
        let puts = self.puts(namespace).into_iter().filter(|put| put.status == Some(200));
        puts.map(|put| put.keys.len()).collect()
    }

    /// The keys of each bulk delete so far.
    pub fn deletes(&self) -> Vec<Vec<String>> {
        self.stack.kv.log_of(KvVerb::DeleteBulk).into_iter().map(|delete| delete.keys).collect()
    }

    /// The requests that changed KV, in any order: verb, namespace and sorted keys.
    pub fn changes(&self) -> BTreeSet<(KvVerb, String, Vec<String>)> {
        let writes = self.stack.kv.log().into_iter().filter(|request| request.verb.writes());
        let change = |mut request: KvRequest| {
            request.keys.sort();
            (request.verb, request.namespace, request.keys)
        };
        writes.map(change).collect()
    }

    /// How often the table was asked for something.
    pub fn table_requests(&self, operation: &str) -> usize {
        self.stack.table.log().iter().filter(|request| request.operation == operation).count()
    }

    /// How many passes over the table were made. A small table is one page a segment.
    pub fn passes(&self) -> usize {
        let log = self.stack.table.log();
        let scans = |consistent| {
            let of_kind = log.iter().filter(|request| request.consistent == consistent);
            of_kind.filter(|request| request.operation == "Scan").count()
        };
        scans(true) / SEGMENTS[0] + scans(false) / SEGMENTS[1]
    }

    pub fn break_kv(&self, rule: Rule) {
        self.stack.kv.faults().add(rule);
    }

    pub fn break_table(&self, rule: Rule) {
        self.stack.table.faults().add(rule);
    }

    /// Adds a fault to KV's bulk writes.
    pub fn break_puts(&self, times: usize, fault: Fault) {
        self.break_kv(writes(fault).times(times));
    }

    /// Breaks the gateway of the default cell for good.
    pub fn break_api_keys(&self, fault: Fault) {
        self.stack.api_keys.break_cell(DEFAULT_CELL, fault);
    }

    /// A request after which the table changes, before its answer comes.
    pub fn after(&self, change: impl Fn(&Table) + Send + Sync + 'static) -> Fault {
        let table = self.stack.table.clone();
        Fault::after(move || change(&table))
    }
}

impl Answered {
    /// The count of a metric.
    #[track_caller]
    pub fn counted(&self, name: &str) -> u64 {
        self.found(name).unwrap_or_default()
    }

    /// The same of what a reconcile finds; `None` where the invocation does not report it.
    #[track_caller]
    pub fn found(&self, name: &str) -> Option<u64> {
        assert!(COUNTS.contains(&name), "{name} is no count");
        let metrics = self.stats.metrics();
        metrics.into_iter().find(|metric| metric.0 == name).and_then(|metric| metric.2.as_u64())
    }

    /// The identifiers of a stream answer.
    #[track_caller]
    pub fn failures(&self) -> Vec<String> {
        let answer = self.result.as_ref().expect("the batch should be answered");
        let failures = answer["batchItemFailures"].as_array().expect("a list of failures");
        let identifier = |failure: &Value| failure["itemIdentifier"].as_str().unwrap().to_owned();
        failures.iter().map(identifier).collect()
    }

    /// The answer of an invocation that succeeds.
    #[track_caller]
    pub fn ok(&self) -> &Value {
        self.result.as_ref().expect("the invocation should succeed")
    }

    /// The error of an invocation that fails.
    #[track_caller]
    pub fn error(&self) -> &LambdaError {
        self.result.as_ref().expect_err("the invocation should fail")
    }
}

/// No failures in a stream answer.
pub const NOTHING: [&str; 0] = [];

fn handler(env: &BTreeMap<String, String>, clock: WallClock) -> Handler<ClockedServices> {
    let config = Config::from_lookup(|name| env.get(name).cloned()).unwrap();
    // As in the binary, except for the SDK's back-off of a second.
    let retries =
        aws_sdk_dynamodb::config::retry::RetryConfig::standard().with_initial_backoff(MILLISECOND);
    let http = http::client(config.exporter.http_timeout).unwrap();
    let timeout = config.exporter.http_timeout;
    let sdk = |url: &Option<String>| {
        let sdk = aws::sdk_config(&config.aws, url.as_ref(), http.clone(), timeout);
        sdk.into_builder().retry_config(retries.clone()).build()
    };
    let client = aws_sdk_dynamodb::Client::new(&sdk(&config.aws.dynamodb_url));
    let table = DynamoDbTable { client, name: config.exporter.table_name.clone() };
    let secrets = aws_sdk_secretsmanager::Client::new(&sdk(&config.aws.secrets_manager_url));
    let kv = CloudflareKv::new(http.clone(), config.cloudflare, secrets);
    let api_keys = ApiKeysClient { http, template: config.api_keys_url };
    let real = RealServices { kv, api_keys, table };
    Handler::new(ClockedServices { real, clock }, config.exporter)
}

const MILLISECOND: Duration = Duration::from_millis(1);
