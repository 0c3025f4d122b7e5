//! An event source mapping: carries a table's stream to a function, batch by batch.

mod rules;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::faults::lock;
use crate::http::pause;
use crate::stream::{ShardReader, StartingPosition, event, sequence_number};
use crate::table::Table;
use rules::{Batch, Next};

pub use rules::Verdict;

/// Bytes of records in one invocation.
const MAX_PAYLOAD: usize = 6_000_000;
/// How soon a write is noticed that neither the table's helpers nor its endpoint saw.
const FALLBACK: Duration = Duration::from_secs(1);

/// How an event source mapping is set up.
#[derive(Debug, Clone)]
pub struct PollerOptions {
    /// Records in a batch, at most.
    pub batch_size: usize,
    /// How long a batch may wait for more records.
    pub window: Duration,
    /// Only records whose `sk` begins like this are delivered; empty for all.
    pub sk_prefix: String,
    /// Retries of a batch; `None` for no end.
    pub maximum_retry_attempts: Option<u32>,
    /// Whether a batch that failed is split.
    pub bisect: bool,
    /// Where reading begins.
    pub starting_position: StartingPosition,
    /// The pause before a retry.
    pub retry_delay: Duration,
}

impl Default for PollerOptions {
    /// Settings items as they come, three retries with bisect.
    fn default() -> Self {
        Self {
            batch_size: 100,
            window: Duration::ZERO,
            sk_prefix: "INDEX#".to_owned(),
            maximum_retry_attempts: Some(3),
            bisect: true,
            starting_position: StartingPosition::Latest,
            retry_delay: Duration::from_millis(100),
        }
    }
}

/// One invocation with a batch.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The sequence numbers of its records.
    pub sequence_numbers: Vec<String>,
    /// The retries its records had used up.
    pub retries: u32,
    /// What came of it.
    pub verdict: Verdict,
    /// How long the function took.
    pub duration: Duration,
}

/// Records that were given up: what an on-failure destination with the payload gets.
#[derive(Debug, Clone)]
pub struct GivenUp {
    /// The records.
    pub records: Vec<Value>,
    /// The retries they had used up.
    pub retries: u32,
    /// What came of the last one.
    pub verdict: Verdict,
}

/// A running mapping; it stops when it is dropped, within an invocation too.
pub struct Poller {
    table: Table,
    book: Arc<Book>,
    _shards: JoinSet<()>,
}

struct Book {
    deliveries: Mutex<Vec<Delivery>>,
    news: broadcast::Sender<Delivery>,
    given_up: Mutex<Vec<GivenUp>>,
    /// The newest record of each shard that is done, given up or filtered out, as all before it.
    progress: watch::Sender<BTreeMap<String, u128>>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            deliveries: Mutex::default(),
            news: broadcast::Sender::new(1_024),
            given_up: Mutex::default(),
            progress: watch::Sender::default(),
        }
    }
}

type Invoking = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;
type Invoke = Arc<dyn Fn(Value) -> Invoking + Send + Sync>;

impl Poller {
    /// Starts to deliver a table's stream to `invoke`. What `Latest` means is settled on return.
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
            // What lies before the start is none of this mapping's.
            if options.starting_position == StartingPosition::Latest {
                book.reached(shard.shard_id(), shard.newest().as_deref());
            }
            let carrier = Carrier {
                shard,
                options: options.clone(),
                invoke: invoke.clone(),
                book: book.clone(),
            };
            shards.spawn(carrier.run(table.writes()));
        }
        Self { table: table.clone(), book, _shards: shards }
    }

    /// All deliveries so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        lock(&self.book.deliveries).clone()
    }

    /// Every delivery from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Delivery> {
        self.book.news.subscribe()
    }

    /// What was given up so far.
    pub fn given_up(&self) -> Vec<GivenUp> {
        lock(&self.book.given_up).clone()
    }

    /// Waits until every record that is in the stream now is done, given up or filtered out.
    pub async fn caught_up(&self) {
        let newest = self.table.shards(StartingPosition::Latest);
        let newest = newest.iter().filter_map(|shard| {
            Some((shard.shard_id().to_owned(), number(shard.newest()?.as_str())))
        });
        let newest: Vec<_> = newest.collect();
        let mut progress = self.book.progress.subscribe();
        let reached = |done: &BTreeMap<String, u128>| {
            newest.iter().all(|(shard, number)| done.get(shard).is_some_and(|done| done >= number))
        };
        // Fails only without a sender, and the book is ours.
        let _ = progress.wait_for(reached).await;
    }
}

impl Book {
    fn delivered(&self, delivery: Delivery) {
        lock(&self.deliveries).push(delivery.clone());
        // Without a listener it is only kept.
        let _ = self.news.send(delivery);
    }

    fn reached(&self, shard: &str, sequence_number: Option<&str>) {
        if let Some(reached) = sequence_number {
            self.progress.send_modify(|progress| {
                progress.insert(shard.to_owned(), number(reached));
            });
        }
    }
}

/// What carries one shard.
struct Carrier {
    shard: ShardReader,
    options: PollerOptions,
    invoke: Invoke,
    book: Arc<Book>,
}

impl Carrier {
    async fn run(mut self, mut writes: watch::Receiver<u64>) {
        loop {
            let (records, newest) = self.gather(&mut writes).await;
            for records in cut(records) {
                self.deliver(records).await;
            }
            self.book.reached(self.shard.shard_id(), newest.as_deref());
        }
    }

    /// Reads until the batch is full, or its window has passed since its first record. Returns the
    /// records that pass the filter, and the number of the last one read.
    async fn gather(&mut self, writes: &mut watch::Receiver<u64>) -> (Vec<Value>, Option<String>) {
        let mut records = Vec::new();
        let mut newest = None;
        let mut closes = None;
        loop {
            writes.mark_unchanged();
            let read = self.shard.read(self.options.batch_size - records.len());
            newest = read.last().and_then(sequence_number).map(str::to_owned).or(newest);
            let more = !read.is_empty();
            records.extend(read.into_iter().filter(|record| self.passes(record)));
            if records.is_empty() && newest.is_some() || records.len() >= self.options.batch_size {
                return (records, newest);
            }
            let now = Instant::now();
            let closing = *closes.get_or_insert(now + self.options.window);
            if records.is_empty() {
                closes = None;
                let _ = timeout_at(now + FALLBACK, writes.changed()).await;
            } else if closing <= now {
                return (records, newest);
            } else if !more {
                tokio::select! {
                    _ = writes.changed() => {}
                    () = sleep_until(closing.min(now + FALLBACK)) => {}
                }
            }
        }
    }

    fn passes(&self, record: &Value) -> bool {
        let sk = record["dynamodb"]["Keys"]["sk"]["S"].as_str();
        sk.is_some_and(|sk| sk.starts_with(&self.options.sk_prefix))
    }

    async fn deliver(&self, records: Vec<Value>) {
        let mut queue = VecDeque::from([Batch { records, retries: 0 }]);
        while let Some(batch) = queue.pop_front() {
            let began = Instant::now();
            let answer = (self.invoke)(event(batch.records.iter().cloned())).await;
            let verdict = rules::verdict(&answer, &batch.records);
            let numbers = batch.records.iter().filter_map(sequence_number).map(str::to_owned);
            self.book.delivered(Delivery {
                sequence_numbers: numbers.collect(),
                retries: batch.retries,
                verdict: verdict.clone(),
                duration: began.elapsed(),
            });
            let retries = self.options.maximum_retry_attempts;
            match rules::next(batch, &verdict, self.options.bisect, retries) {
                Next::Done => {}
                Next::Again(batches) => {
                    pause(self.options.retry_delay).await;
                    batches.into_iter().rev().for_each(|batch| queue.push_front(batch));
                }
                Next::GiveUp(Batch { records, retries }) => {
                    lock(&self.book.given_up).push(GivenUp { records, retries, verdict });
                }
            }
        }
    }
}

/// Cuts records into pieces that fit an invocation.
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

fn number(sequence_number: &str) -> u128 {
    sequence_number.parse().unwrap_or_default()
}
