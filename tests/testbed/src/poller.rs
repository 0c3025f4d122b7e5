//! An event source mapping: carries a table's stream to a function, batch by batch and in order.
//!
//! The mapping's filter, and the queue that gets records that were given up, are for `make test-deploy`
//! to show.

mod rules;

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::clock::Clock;
use crate::stream::{ShardReader, StartingPosition, event, sequence_number};
use crate::sync::{Kept, pause};
use crate::table::Table;

pub use rules::Verdict;

/// Bytes of records in one invocation.
const MAX_PAYLOAD: usize = 6_000_000;
/// How soon a write is noticed that bypassed both the table's helpers and its endpoint.
const FALLBACK: Duration = Duration::from_secs(1);

/// How a mapping is set up. The default: that of the template, without its window.
#[derive(Debug, Clone)]
pub struct PollerOptions {
    pub batch_size: usize,
    /// How long a batch may wait for more records.
    pub window: Duration,
    /// Retries of a batch; `None` for any number.
    pub maximum_retry_attempts: Option<u32>,
    /// How old a record may become before it is given up.
    pub maximum_record_age: Duration,
    pub starting_position: StartingPosition,
    pub retry_delay: Duration,
    /// The clock that says how old a record is.
    pub clock: Clock,
}

impl Default for PollerOptions {
    fn default() -> Self {
        Self {
            batch_size: 1_000,
            window: Duration::ZERO,
            maximum_retry_attempts: None,
            maximum_record_age: Duration::from_secs(3_600),
            starting_position: StartingPosition::Latest,
            retry_delay: Duration::from_millis(100),
            clock: Clock::default(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Delivery {
    pub sequence_numbers: Vec<String>,
    pub verdict: Verdict,
    /// How long the function took.
    pub duration: Duration,
}

/// A running mapping. It stops when it is dropped, even during an invocation.
pub struct Poller {
    table: Table,
    book: Arc<Book>,
    _shards: JoinSet<()>,
}

/// What a mapping has delivered, and how far it is.
#[derive(Default)]
struct Book {
    deliveries: Kept<Delivery>,
    /// The record up to which all are done or given up. The engine's streams have one shard.
    progress: watch::Sender<u128>,
}

impl Book {
    fn reached(&self, sequence_number: Option<&str>) {
        if let Some(reached) = sequence_number {
            self.progress.send_replace(number(reached));
        }
    }
}

fn number(sequence_number: &str) -> u128 {
    sequence_number.parse().unwrap_or_default()
}

impl Poller {
    /// Starts to deliver a table's stream to `invoke`. `Latest` means what is latest on return.
    pub fn start<I, F, E>(table: &Table, options: PollerOptions, invoke: I) -> Self
    where
        I: Fn(Value) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, E>> + Send + 'static,
        E: Display,
    {
        let invoke: Invoke = Arc::new(move |event| {
            let answer = invoke(event);
            Box::pin(async move { answer.await.map_err(|error| error.to_string()) })
        });
        let book = Arc::new(Book::default());
        let mut shards = JoinSet::new();
        for shard in table.shards(options.starting_position) {
            // What lies before the start is not delivered.
            if options.starting_position == StartingPosition::Latest {
                book.reached(shard.newest().as_deref());
            }
            let (options, invoke, book) = (options.clone(), invoke.clone(), book.clone());
            shards.spawn(Carrier { shard, options, invoke, book }.run(table.writes()));
        }
        Self { table: table.clone(), book, _shards: shards }
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.book.deliveries.since(0)
    }

    /// Waits until every record that is in the stream now is done or given up.
    pub async fn caught_up(&self) {
        let shards = self.table.shards(StartingPosition::Latest);
        let newest = shards.iter().filter_map(|shard| Some(number(&shard.newest()?))).max();
        // Fails only without a sender, which the book holds.
        let _ = self.book.progress.subscribe().wait_for(|done| Some(*done) >= newest).await;
    }
}

type Invoking = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;
type Invoke = Arc<dyn Fn(Value) -> Invoking + Send + Sync>;

/// Carries one shard.
struct Carrier {
    shard: ShardReader,
    options: PollerOptions,
    invoke: Invoke,
    book: Arc<Book>,
}

impl Carrier {
    /// Carries it until it is dropped. `writes` tells when there may be more.
    async fn run(mut self, mut writes: watch::Receiver<u64>) {
        loop {
            let records = self.gather(&mut writes).await;
            let newest = records.last().and_then(sequence_number).map(str::to_owned);
            for records in cut(records) {
                self.deliver(records).await;
            }
            self.book.reached(newest.as_deref());
        }
    }

    /// Reads until the batch is full, or its window has passed since its first record.
    async fn gather(&mut self, writes: &mut watch::Receiver<u64>) -> Vec<Value> {
        let mut records = Vec::new();
        let mut closing = None;
        loop {
            writes.mark_unchanged();
            records.extend(self.shard.read(self.options.batch_size - records.len()));
            let now = Instant::now();
            if records.is_empty() {
                let _ = timeout_at(now + FALLBACK, writes.changed()).await;
                continue;
            }
            let closing = *closing.get_or_insert(now + self.options.window);
            if records.len() >= self.options.batch_size || closing <= now {
                return records;
            }
            tokio::select! {
                _ = writes.changed() => {}
                () = sleep_until(closing.min(now + FALLBACK)) => {}
            }
        }
    }

    async fn deliver(&self, mut records: Vec<Value>) {
        let mut retries = 0;
        loop {
            let oldest = self.options.clock.now() - self.options.maximum_record_age;
            let young = records.iter().position(|record| is_younger(record, oldest));
            records.drain(..young.unwrap_or(records.len()));
            if records.is_empty() {
                return;
            }
            let began = Instant::now();
            let answer = (self.invoke)(event(records.iter().cloned())).await;
            let verdict = rules::verdict(&answer, &records);
            let numbers = records.iter().filter_map(sequence_number).map(str::to_owned);
            self.book.deliveries.push(Delivery {
                sequence_numbers: numbers.collect(),
                verdict: verdict.clone(),
                duration: began.elapsed(),
            });
            match verdict {
                Verdict::Done => return,
                Verdict::From(place) => records = records.split_off(place),
                Verdict::Failed(_) => {}
            }
            if self.options.maximum_retry_attempts.is_some_and(|most| retries >= most) {
                return;
            }
            retries += 1;
            pause(self.options.retry_delay).await;
        }
    }
}

/// Whether a record was created after a time. One that does not say when is young.
fn is_younger(record: &Value, oldest: SystemTime) -> bool {
    let oldest = oldest.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let created = record["dynamodb"]["ApproximateCreationDateTime"].as_u64();
    created.is_none_or(|created| created >= oldest)
}

/// Cuts records into pieces that fit into an invocation.
fn cut(records: Vec<Value>) -> Vec<Vec<Value>> {
    let mut pieces: Vec<Vec<Value>> = Vec::new();
    let mut bytes = 0;
    for record in records {
        let size = record.to_string().len();
        match pieces.last_mut() {
            Some(piece) if bytes + size <= MAX_PAYLOAD => {
                piece.push(record);
                bytes += size;
            }
            _ => {
                pieces.push(vec![record]);
                bytes = size;
            }
        }
    }
    pieces
}
