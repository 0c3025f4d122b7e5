//! How an event source mapping with `ReportBatchItemFailures` reads answers and continues.
//!
//! | answer | batch | then |
//! | --- | --- | --- |
//! | null, `{}`, no failures | any | done |
//! | failures, all known | the lowest is not the first | the records before it are done; the rest continues: as a split if bisect is on, else as a retry |
//! | failures, all known | the lowest is the first | as an error |
//! | an error, a null, empty, unknown or misnamed identifier | several records, bisect on | two halves, one after the other; no retry is used up |
//! | the same | one record, or bisect off | a retry; given up once the retries are used up |
//! | any | records in it are too old before it is sent | they are given up, sent before or not; the rest is sent |
//!
//! One rule is an assumption: that a batch whose first record fails is halved, as after an error.
//! Lambda only documents that it bisects at the number returned.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::stream::sequence_number;

/// Records that go to the function together.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The records, in the order of the shard.
    pub records: Vec<Value>,
    /// How many retries they have used up.
    pub retries: u32,
    /// How often they were sent.
    pub invocations: u32,
    /// Whether the function failed the last time; `None` before they are sent.
    pub function_error: Option<bool>,
}

impl Batch {
    pub fn of(records: Vec<Value>) -> Self {
        Self { records, retries: 0, invocations: 0, function_error: None }
    }

    /// Takes out the records that were created before a time. They come first.
    pub fn split_off_expired(&mut self, oldest: SystemTime) -> Option<Self> {
        let oldest = oldest.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let is_young = |record: &Value| created_at(record).is_none_or(|created| created >= oldest);
        let young = self.records.iter().position(is_young).unwrap_or(self.records.len());
        let records: Vec<Value> = self.records.drain(..young).collect();
        (!records.is_empty()).then_some(Self { records, ..*self })
    }
}

/// When a record was created, in seconds since the epoch.
pub fn created_at(record: &Value) -> Option<u64> {
    record["dynamodb"]["ApproximateCreationDateTime"].as_u64()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    RetriesExhausted,
    TooOld,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// The records before this place are done.
    From(usize),
    /// No record is done.
    Failed(String),
}

/// What becomes of a batch after an answer.
#[derive(Debug, PartialEq)]
pub enum Next {
    Done,
    /// These batches go to the function, one after the other.
    Again(Vec<Batch>),
    GiveUp(Batch),
}

/// Reads the function's answer to these records.
pub fn verdict(answer: &Result<Value, String>, records: &[Value]) -> Verdict {
    let failures = match answer {
        Err(error) => return Verdict::Failed(error.clone()),
        Ok(Value::Null) => return Verdict::Done,
        Ok(Value::Object(answer)) => match answer.get("batchItemFailures") {
            None | Some(Value::Null) => return Verdict::Done,
            Some(Value::Array(failures)) => failures,
            Some(_) => return Verdict::Failed("batchItemFailures is not a list".to_owned()),
        },
        Ok(_) => return Verdict::Failed("the answer is not an object".to_owned()),
    };
    let numbers = records.iter().enumerate();
    let places: BTreeMap<&str, usize> =
        numbers.filter_map(|(place, record)| Some((sequence_number(record)?, place))).collect();
    let place = |failure: &Value| {
        failure["itemIdentifier"].as_str().and_then(|number| places.get(number)).copied()
    };
    match failures.iter().map(place).collect::<Option<Vec<_>>>() {
        Some(failed) => failed.into_iter().min().map_or(Verdict::Done, Verdict::From),
        None => Verdict::Failed("an itemIdentifier names no record of the batch".to_owned()),
    }
}

pub fn next(mut batch: Batch, verdict: &Verdict, bisect: bool, retries: Option<u32>) -> Next {
    let done = match verdict {
        Verdict::Done => return Next::Done,
        Verdict::From(place) => *place,
        Verdict::Failed(_) => 0,
    };
    batch.records.drain(..done);
    if bisect && done > 0 {
        return Next::Again(vec![batch]);
    }
    if bisect && batch.records.len() > 1 {
        let rest = batch.records.split_off(batch.records.len().div_ceil(2));
        let second = Batch { records: rest, ..batch };
        return Next::Again(vec![batch, second]);
    }
    if retries.is_some_and(|most| batch.retries >= most) {
        return Next::GiveUp(batch);
    }
    batch.retries += 1;
    Next::Again(vec![batch])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(number: u32) -> Value {
        json!({"dynamodb": {"SequenceNumber": number.to_string()}})
    }

    fn batch(numbers: impl IntoIterator<Item = u32>, retries: u32) -> Batch {
        Batch { retries, ..Batch::of(numbers.into_iter().map(record).collect()) }
    }

    #[test]
    fn an_answer_says_from_where_on_the_records_are_not_done() {
        let records = batch(1..=4, 0).records;
        let failed = |number: Value| json!({"itemIdentifier": number});
        for (failures, expected) in [
            (json!(null), Some(Verdict::Done)),
            (json!([]), Some(Verdict::Done)),
            // The lowest number, whatever the order.
            (json!([failed(json!("4")), failed(json!("2"))]), Some(Verdict::From(1))),
            (json!([failed(json!("1"))]), Some(Verdict::From(0))),
            (json!([failed(json!("3")), failed(json!(null))]), None),
            (json!([failed(json!("3")), failed(json!(""))]), None),
            (json!([failed(json!("3")), failed(json!("9"))]), None),
            (json!([failed(json!("3")), failed(json!(2))]), None),
            (json!([{"ItemIdentifier": "2"}]), None),
        ] {
            let read = match verdict(&Ok(json!({"batchItemFailures": failures})), &records) {
                Verdict::Failed(_) => None,
                known => Some(known),
            };
            assert_eq!(read, expected, "{failures}");
        }
        for empty in [json!(null), json!({})] {
            assert_eq!(verdict(&Ok(empty), &records), Verdict::Done);
        }
    }

    #[test]
    fn splitting_uses_up_no_retry_and_what_fails_whole_is_retried_until_none_is_left() {
        let failed = || Verdict::Failed("boom".to_owned());
        for (sent, said, bisect, then) in [
            (batch(1..=3, 2), failed(), true, Next::Again(vec![batch(1..=2, 2), batch(3..=3, 2)])),
            (batch(1..=3, 2), Verdict::From(1), true, Next::Again(vec![batch(2..=3, 2)])),
            (batch(1..=1, 1), failed(), true, Next::Again(vec![batch(1..=1, 2)])),
            (batch(1..=1, 2), failed(), true, Next::GiveUp(batch(1..=1, 2))),
            (batch(1..=3, 1), Verdict::From(1), false, Next::Again(vec![batch(2..=3, 2)])),
            (batch(1..=3, 2), Verdict::From(1), false, Next::GiveUp(batch(2..=3, 2))),
        ] {
            assert_eq!(next(sent, &said, bisect, Some(2)), then);
        }
    }
}
