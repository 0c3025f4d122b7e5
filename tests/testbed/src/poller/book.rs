//! What a mapping has delivered and given up, and how far it is.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::rules::Verdict;
use crate::sync::Kept;

#[derive(Debug, Clone)]
pub struct Delivery {
    pub sequence_numbers: Vec<String>,
    pub verdict: Verdict,
    /// How long the function took.
    pub duration: Duration,
}

#[derive(Default)]
pub(super) struct Book {
    pub deliveries: Kept<Delivery>,
    pub given_up: Mutex<Vec<Value>>,
    /// For each shard, the record up to which all are done, given up or filtered out.
    pub progress: watch::Sender<BTreeMap<String, u128>>,
}

impl Book {
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
