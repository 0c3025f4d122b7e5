//! An event source mapping: carries a table's stream to a function, batch by batch and in order.
//!
//! The template's mapping also has a filter, gives records up, and has a queue for them: those are for
//! `make test-deploy` to show.

mod rules;

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::stream::{ShardReader, event, sequence_number};
use crate::sync::{Kept, pause};
use crate::table::Table;

pub use rules::Verdict;

/// Records in one invocation.
const BATCH_SIZE: usize = 1_000;

/// How a mapping is set up. It begins with the oldest record of the stream, and gives none up.
#[derive(Debug, Clone, Copy)]
pub struct PollerOptions {
    /// How long a batch may wait for more records.
    pub window: Duration,
    pub retry_delay: Duration,
}

#[derive(Debug, Clone)]
pub struct Delivery {
    /// How many records it had.
    pub records: usize,
    pub verdict: Verdict,
    /// How long the function took.
    pub duration: Duration,
}

/// A running mapping. It stops when it is dropped, even during an invocation.
pub struct Poller {
    table: Table,
    book: Arc<Book>,
    _carrier: JoinSet<()>,
}

/// What a mapping has delivered, and how far it is.
#[derive(Default)]
struct Book {
    deliveries: Kept<Delivery>,
    /// The record up to which all are done.
    progress: watch::Sender<u128>,
}

fn number(sequence_number: Option<&str>) -> u128 {
    sequence_number.and_then(|number| number.parse().ok()).unwrap_or_default()
}

impl Poller {
    /// Starts to deliver a table's stream to `invoke`.
    pub fn start<I, F, E>(table: &Table, options: PollerOptions, invoke: I) -> Self
    where
        I: Fn(Value) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, E>> + Send + 'static,
        E: Display + 'static,
    {
        let book = Arc::new(Book::default());
        let mut carrier = JoinSet::new();
        carrier.spawn(carry(table.shard(), table.writes(), options, invoke, book.clone()));
        Self { table: table.clone(), book, _carrier: carrier }
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.book.deliveries.since(0)
    }

    /// Waits until every record that is in the stream now is done.
    pub async fn caught_up(&self) {
        let newest = number(self.table.shard().newest().as_deref());
        // Fails only without a sender, which the book holds.
        let _ = self.book.progress.subscribe().wait_for(|done| *done >= newest).await;
    }
}

/// Carries the stream until it is dropped. `writes` tells when there may be more.
async fn carry<F: Future<Output = Result<Value, E>>, E: Display>(
    mut shard: ShardReader,
    mut writes: watch::Receiver<u64>,
    options: PollerOptions,
    invoke: impl Fn(Value) -> F,
    book: Arc<Book>,
) {
    loop {
        let mut records = gather(&mut shard, &mut writes, options.window).await;
        let newest = number(records.last().and_then(sequence_number));
        loop {
            let began = Instant::now();
            let answer = invoke(event(records.iter().cloned())).await;
            let answer = answer.map_err(|error| error.to_string());
            let verdict = rules::verdict(&answer, &records);
            let (count, duration) = (records.len(), began.elapsed());
            let delivery = Delivery { records: count, verdict: verdict.clone(), duration };
            book.deliveries.push(delivery);
            match verdict {
                Verdict::Done => break,
                Verdict::From(place) => records = records.split_off(place),
                Verdict::Failed(_) => {}
            }
            pause(options.retry_delay).await;
        }
        book.progress.send_replace(newest);
    }
}

/// Reads until the batch is full, or its window has passed since its first record.
async fn gather(
    shard: &mut ShardReader,
    writes: &mut watch::Receiver<u64>,
    window: Duration,
) -> Vec<Value> {
    let mut records = Vec::new();
    let mut closing = None;
    loop {
        writes.mark_unchanged();
        records.extend(shard.read(BATCH_SIZE - records.len()));
        if records.is_empty() {
            let _ = writes.changed().await;
            continue;
        }
        let now = Instant::now();
        let closing = *closing.get_or_insert(now + window);
        if records.len() >= BATCH_SIZE || closing <= now {
            return records;
        }
        tokio::select! {
            _ = writes.changed() => {}
            () = sleep_until(closing) => {}
        }
    }
}
