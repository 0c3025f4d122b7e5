//! What becomes of a batch after an answer, as `ReportBatchItemFailures` has it.
//!
//! | answer | then |
//! | --- | --- |
//! | null, `{}`, no failures | the batch is done |
//! | failures, each of a record of the batch | the records before the first of them are done; the rest is retried |
//! | an error; an identifier that is null, empty, misnamed or of no record | the whole batch is retried |
//!
//! A batch is retried until it is done. Lambda would also halve a batch that failed
//! (`BisectBatchOnFunctionError`), and give records up in the end.

use serde_json::Value;

use crate::stream::sequence_number;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// The records before this place are done.
    From(usize),
    /// No record is done.
    Failed(String),
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
    let place = |failure: &Value| {
        let number = failure["itemIdentifier"].as_str()?;
        records.iter().position(|record| sequence_number(record) == Some(number))
    };
    match failures.iter().map(place).collect::<Option<Vec<_>>>() {
        Some(failed) => failed.into_iter().min().map_or(Verdict::Done, Verdict::From),
        None => Verdict::Failed("an itemIdentifier names no record of the batch".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_says_from_where_on_the_records_are_not_done() {
        let record = |number: u32| json!({"dynamodb": {"SequenceNumber": number.to_string()}});
        let records: Vec<Value> = (1..=4).map(record).collect();
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
        assert_eq!(verdict(&Ok(json!(null)), &records), Verdict::Done);
    }
}
