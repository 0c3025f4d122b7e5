//! Carries one shard: gathers batches, delivers them, and continues by the rules.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::book::{Book, Delivery};
use super::on_failure;
use super::options::PollerOptions;
use super::rules::{self, Batch, Next, Reason, Verdict};
use crate::stream::{ShardReader, event, sequence_number};
use crate::sync::{lock, pause};

/// Bytes of records in one invocation.
const MAX_PAYLOAD: usize = 6_000_000;
/// How soon a write is noticed that bypassed both the table's helpers and its endpoint.
const FALLBACK: Duration = Duration::from_secs(1);

type Invoking = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;

pub(super) type Invoke = Arc<dyn Fn(Value) -> Invoking + Send + Sync>;

pub(super) struct Carrier {
    pub shard: ShardReader,
    pub options: PollerOptions,
    pub invoke: Invoke,
    pub book: Arc<Book>,
}

impl Carrier {
    /// Carries it until it is dropped. `writes` tells when there may be more.
    pub async fn run(mut self, mut writes: watch::Receiver<u64>) {
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
            records.extend(read.into_iter().filter(|record| self.options.filter.passes(record)));
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

    async fn deliver(&self, records: Vec<Value>) {
        let mut queue = VecDeque::from([Batch::of(records)]);
        while let Some(mut batch) = queue.pop_front() {
            let oldest = self.options.clock.now() - self.options.maximum_record_age;
            if let Some(expired) = batch.split_off_expired(oldest) {
                self.give_up(&expired, Reason::TooOld);
            }
            if batch.records.is_empty() {
                continue;
            }
            let began = Instant::now();
            let answer = (self.invoke)(event(batch.records.iter().cloned())).await;
            let verdict = rules::verdict(&answer, &batch.records);
            batch.invocations += 1;
            batch.function_error = Some(matches!(verdict, Verdict::Failed(_)));
            let numbers = batch.records.iter().filter_map(sequence_number).map(str::to_owned);
            self.book.deliveries.push(Delivery {
                sequence_numbers: numbers.collect(),
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
                Next::GiveUp(batch) => self.give_up(&batch, Reason::RetriesExhausted),
            }
        }
    }

    fn give_up(&self, batch: &Batch, reason: Reason) {
        let now = self.options.clock.now();
        let message = on_failure::message(self.shard.shard_id(), batch, reason, now);
        lock(&self.book.given_up).push(message);
    }
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
