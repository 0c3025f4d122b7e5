//! An event source mapping: carries a table's stream to a function, batch by batch.

mod book;
mod carrier;
mod filter;
mod on_failure;
mod options;
mod rules;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::stream::StartingPosition;
use crate::sync::lock;
use crate::table::Table;
use book::{Book, number};
use carrier::{Carrier, Invoke};

pub use book::Delivery;
pub use filter::Filter;
pub use options::PollerOptions;
pub use rules::Verdict;

/// A running mapping. It stops when it is dropped, even during an invocation.
pub struct Poller {
    table: Table,
    book: Arc<Book>,
    _shards: JoinSet<()>,
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

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.book.deliveries.since(0)
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Delivery> {
        self.book.deliveries.subscribe()
    }

    /// The messages in the on-failure queue.
    pub fn given_up(&self) -> Vec<Value> {
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
        // Fails only without a sender, which the book holds.
        let _ = progress.wait_for(reached).await;
    }
}
