//! An event source mapping: carries a table's stream to a function, batch by batch.

mod carrier;
mod rules;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::faults::lock;
use crate::stream::StartingPosition;
use crate::table::Table;
use carrier::Carrier;

pub use rules::Verdict;

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

fn number(sequence_number: &str) -> u128 {
    sequence_number.parse().unwrap_or_default()
}
