//! Removals, which scan the whole table.

use serde_json::{Value, json};
use testbed::stack::{SETTINGS, Stack, StackOptions};
use testbed::table::TableRequest;

use crate::exporter::{function, invoke};
use crate::report::{Outcome, megabytes, millis, row};
use crate::workload::{ACCOUNTS, index_item, query_config, typical};

/// One removal, and fifty, among 100,000 items.
pub async fn removal() -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    stack.table.load((0..10_000).map(|number| index_item(number, ACCOUNTS, typical(number))));
    stack
        .table
        .load((0..90_000).map(|number| query_config("account-00000", "index-000000", number)));
    let function = function(&stack).await?;
    for removals in [1, 50] {
        let records = (0..removals)
            .map(|number| {
                json!({
                    "eventName": "REMOVE", "eventSource": "aws:dynamodb",
                    "dynamodb": {
                        "Keys": {"pk": {"S": "gone"}, "sk": {"S": format!("INDEX#i{number}")}},
                        "SequenceNumber": format!("{number:021}"),
                    },
                })
            })
            .collect::<Vec<Value>>();
        for number in 0..removals {
            let value = json!({"system_account_id": "gone", "index_name": format!("i{number}")});
            let key = format!("gone-i{number}");
            stack.kv.put(SETTINGS, &key, &value.to_string(), None);
        }
        stack.table.clear_log();
        let (_, time) = invoke(&function, &json!({ "Records": records })).await?;
        let log = stack.table.log();
        let bytes: usize = log.iter().map(|request| request.reply_bytes).sum();
        let scans: Vec<&TableRequest> =
            log.iter().filter(|request| request.operation == "Scan").collect();
        let units: f64 = scans.iter().map(|scan| scan.read_units).sum();
        let kind = match scans.iter().filter(|scan| scan.consistent).count() {
            consistent if consistent == scans.len() => "strongly consistent",
            0 => "eventually consistent",
            _ => "some strongly, some eventually consistent",
        };
        row(
            &format!("{removals} removals among 100,000 items"),
            &format!(
                "{}, {:?}, {} read, {units} read capacity units for the scans, {kind}",
                millis(time),
                stack.table.operations(),
                megabytes(u64::try_from(bytes)?)
            ),
        );
    }
    Ok(())
}
