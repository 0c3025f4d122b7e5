//! The table's stream, which has one shard, shaped as Lambda delivers it.

use dynoxide::Database;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::aws::REGION;
use crate::table::Table;

/// A place in the stream. It advances with every read.
pub struct ShardReader {
    database: Database,
    stream_arn: String,
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
    /// The stream, from its oldest record on.
    pub fn shard(&self) -> ShardReader {
        let (database, stream_arn) = (self.database().clone(), self.stream_arn().to_owned());
        let mut reader = ShardReader { database, stream_arn, iterator: None };
        let shard_id = reader.described()["ShardId"].take();
        let request = json!({
            "StreamArn": reader.stream_arn, "ShardId": shard_id, "ShardIteratorType": "TRIM_HORIZON",
        });
        let mut opened = call(|request| reader.database.get_shard_iterator(request), request);
        reader.iterator = opened["ShardIterator"].take().as_str().map(str::to_owned);
        reader
    }

    /// All records of the stream so far, shaped as in an event.
    pub fn records(&self) -> Vec<Value> {
        self.shard().read(usize::MAX)
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

    /// The sequence number of the newest record.
    pub fn newest(&self) -> Option<String> {
        // The engine shows it as the end of the shard, though the shard is open.
        let newest = &self.described()["SequenceNumberRange"]["EndingSequenceNumber"];
        newest.as_str().map(str::to_owned)
    }

    fn described(&self) -> Value {
        let request = json!({"StreamArn": self.stream_arn});
        let mut described = call(|request| self.database.describe_stream(request), request);
        described["StreamDescription"]["Shards"][0].take()
    }

    fn shape(&self, mut record: Value) -> Value {
        record["awsRegion"] = REGION.into();
        let local = format!(":{}:", dynoxide::streams::LOCAL_REGION);
        record["eventSourceARN"] = self.stream_arn.replace(&local, ":us-east-1:").into();
        // Lambda sends whole seconds, the engine `1.0`.
        let created = &mut record["dynamodb"]["ApproximateCreationDateTime"];
        if let Some(seconds) = created.as_f64() {
            *created = (seconds as i64).into();
        }
        record
    }
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
