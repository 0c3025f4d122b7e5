//! What the on-failure queue gets: where the records are in the stream, and why they were given up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::{format_rfc3339_millis, format_rfc3339_seconds};
use serde_json::{Value, json};

use super::rules::{Batch, Reason, created_at};
use crate::aws::{ACCOUNT_ID, REGION};
use crate::stream::sequence_number;

/// The message about records that were given up, as AWS documents it. It does not hold the records.
pub fn message(shard: &str, batch: &Batch, reason: Reason, now: SystemTime) -> Value {
    let condition = match reason {
        Reason::RetriesExhausted => "RetryAttemptsExhausted",
        Reason::TooOld => "RecordAgeExceeded",
    };
    let (first, last) = (batch.records.first(), batch.records.last());
    let number = |record: Option<&Value>| record.and_then(sequence_number).map(str::to_owned);
    let arrived = |record: Option<&Value>| {
        let created = UNIX_EPOCH + Duration::from_secs(record.and_then(created_at).unwrap_or(0));
        format_rfc3339_seconds(created).to_string()
    };
    let mut message = json!({
        "requestContext": {
            "requestId": "00000000-0000-4000-8000-000000000000",
            "functionArn":
                format!("arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:ecom-settings-exporter:live"),
            "condition": condition,
            "approximateInvokeCount": batch.invocations,
        },
        "version": "1.0",
        "timestamp": format_rfc3339_millis(now).to_string(),
        "DDBStreamBatchInfo": {
            "shardId": shard,
            "startSequenceNumber": number(first),
            "endSequenceNumber": number(last),
            "approximateArrivalOfFirstRecord": arrived(first),
            "approximateArrivalOfLastRecord": arrived(last),
            "batchSize": batch.records.len(),
            "streamArn": first.map(|record| &record["eventSourceARN"]),
        },
    });
    // Records that were never sent have no answer.
    if let Some(function_error) = batch.function_error {
        message["responseContext"] = json!({"statusCode": 200, "executedVersion": "1"});
        if function_error {
            message["responseContext"]["functionError"] = "Unhandled".into();
        }
    }
    message
}
