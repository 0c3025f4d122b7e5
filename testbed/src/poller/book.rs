//! What a mapping has delivered and given up, and how far it is.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{broadcast, watch};

use super::rules::Verdict;
use crate::sync::lock;

#[derive(Debug, Clone)]
pub struct Delivery {
    pub sequence_numbers: Vec<String>,
    pub verdict: Verdict,
    /// How long the function took.
    pub duration: Duration,
}

pub(super) struct Book {
    pub deliveries: Mutex<Vec<Delivery>>,
    pub news: broadcast::Sender<Delivery>,
    pub given_up: Mutex<Vec<Value>>,
    /// For each shard, the record up to which all are done, given up or filtered out.
    pub progress: watch::Sender<BTreeMap<String, u128>>,
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

impl Book {
    pub fn delivered(&self, delivery: Delivery) {
        lock(&self.deliveries).push(delivery.clone());
        // Without a subscriber, it is only kept.
        let _ = self.news.send(delivery);
    }

    pub fn reached(&self, shard: &str, sequence_number: Option<&str>) {
        if let Some(reached) = sequence_number {
            self.progress.send_modify(|progress| {
                progress.insert(shard.to_owned(), number(reached));
            });
        }
    }
}

pub(super) fn number(sequence_number: &str) -> u128 {
    sequence_number.parse().unwrap_or_default()
}
