//! The table's stream, read shard by shard and shaped as Lambda delivers it.

use dynoxide::Database;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::aws::REGION;
use crate::table::Table;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartingPosition {
    /// With the oldest record.
    TrimHorizon,
    /// With what is written from now on.
    #[default]
    Latest,
}

/// A place in a shard. It advances with every read.
pub struct ShardReader {
    database: Database,
    stream_arn: String,
    source_arn: String,
    shard_id: String,
    iterator: Option<String>,
}

/// Wraps records as the event that Lambda sends.
pub fn event(records: impl IntoIterator<Item = Value>) -> Value {
    json!({"Records": records.into_iter().collect::<Vec<_>>()})
}

pub fn sequence_number(record: &Value) -> Option<&str> {
    record["dynamodb"]["SequenceNumber"].as_str()
}

impl Table {
    pub fn shards(&self, from: StartingPosition) -> Vec<ShardReader> {
        let arn = self.stream_arn();
        let source_arn =
            arn.replace(&format!(":{}:", dynoxide::streams::LOCAL_REGION), ":us-east-1:");
        let described = describe(self.database(), arn);
        let shards = described["StreamDescription"]["Shards"].as_array().cloned();
        let kind = match from {
            StartingPosition::TrimHorizon => "TRIM_HORIZON",
            StartingPosition::Latest => "LATEST",
        };
        let open = |shard: Value| {
            let shard_id = shard["ShardId"].as_str().unwrap_or_default().to_owned();
            let iterator = call(
                |request| self.database().get_shard_iterator(request),
                json!({"StreamArn": arn, "ShardId": shard_id, "ShardIteratorType": kind}),
            );
            ShardReader {
                database: self.database().clone(),
                stream_arn: arn.to_owned(),
                source_arn: source_arn.clone(),
                shard_id,
                iterator: iterator["ShardIterator"].as_str().map(str::to_owned),
            }
        };
        shards.unwrap_or_default().into_iter().map(open).collect()
    }

    /// All records of the stream so far, shaped as in an event.
    pub fn records(&self) -> Vec<Value> {
        let mut shards = self.shards(StartingPosition::TrimHorizon);
        shards.iter_mut().flat_map(|shard| shard.read(usize::MAX)).collect()
    }
}

impl ShardReader {
    /// The next records, at most `limit`, shaped as in an event.
    pub fn read(&mut self, limit: usize) -> Vec<Value> {
        let mut records = Vec::new();
        while records.len() < limit
            && let Some(iterator) = &self.iterator
        {
            let page = (limit - records.len()).min(1_000);
            let mut got = call(
                |request| self.database.get_records(request),
                json!({"ShardIterator": iterator, "Limit": page}),
            );
            self.iterator = got["NextShardIterator"].as_str().map(str::to_owned);
            let Value::Array(read) = got["Records"].take() else { break };
            if read.is_empty() {
                break;
            }
            records.extend(read.into_iter().map(|record| self.shape(record)));
        }
        records
    }

    /// The sequence number of the shard's newest record.
    pub fn newest(&self) -> Option<String> {
        // The engine shows it as the end of the shard, though the shard is open.
        let described = describe(&self.database, &self.stream_arn);
        let shards = described["StreamDescription"]["Shards"].as_array()?;
        let own = shards.iter().find(|shard| shard["ShardId"] == self.shard_id.as_str())?;
        Some(own["SequenceNumberRange"]["EndingSequenceNumber"].as_str()?.to_owned())
    }

    fn shape(&self, mut record: Value) -> Value {
        record["awsRegion"] = REGION.into();
        record["eventSourceARN"] = self.source_arn.as_str().into();
        // Lambda sends whole seconds, the engine `1.0`.
        let created = &mut record["dynamodb"]["ApproximateCreationDateTime"];
        if let Some(seconds) = created.as_f64() {
            *created = (seconds as i64).into();
        }
        record
    }
}

fn describe(database: &Database, stream_arn: &str) -> Value {
    call(|request| database.describe_stream(request), json!({"StreamArn": stream_arn}))
}

/// Calls the engine with JSON, and returns JSON. The engine's types would take more lines.
fn call<Q: DeserializeOwned, A: Serialize, E: std::fmt::Display>(
    operation: impl FnOnce(Q) -> Result<A, E>,
    request: Value,
) -> Value {
    let request = serde_json::from_value(request).expect("the engine should take the request");
    match operation(request) {
        Ok(answer) => serde_json::to_value(answer).expect("the engine should answer with JSON"),
        Err(error) => panic!("the engine refused to read the stream: {error}"),
    }
}
