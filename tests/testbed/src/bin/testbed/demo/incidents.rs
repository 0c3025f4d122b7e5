//! Two incidents: a repair against an emptied table, and a re-export while a batch is stuck.

use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::stack::SETTINGS;
use testbed::stream::event;
use testbed::table::{StreamView, Table, to_item};

use super::stage::{Checked, Demo, index};
use crate::screen::Style;

const BUSY: &str = "acme-busy";
const STUCK: &str = "acme-stuck";

pub async fn play(demo: &Demo, binary: &Path) -> Checked {
    emptied_table(demo, binary).await?;
    stuck_batch(demo).await
}

async fn emptied_table(demo: &Demo, binary: &Path) -> Checked {
    demo.step("14. A restore went wrong: the hourly repair finds an emptied table");
    let emptied = Table::start(0, demo.stack.table.name(), StreamView::NewImage).await;
    let url = emptied.as_ref().map_err(ToString::to_string)?.url();
    let function = demo.stack.function(binary, [("AWS_ENDPOINT_URL_DYNAMODB", url.as_str())]).await;
    let function = function.map_err(|error| error.to_string())?;
    let before = demo.stack.kv.snapshot(SETTINGS);
    let insisting = json!({"apply": true, "delete_up_to": 1_000_000});
    for what in [json!({"apply": true}), insisting] {
        let asked = demo.invoke_on(&function, json!({"reconcile": what})).await?;
        let told = asked.warnings.iter().any(|text| text.contains("no index item"));
        let report = asked.answer()?;
        demo.check("nothing was changed", demo.stack.kv.snapshot(SETTINGS) == before)?;
        let refused = report["refused"]["delete"].as_u64().unwrap_or_default();
        demo.check(&format!("{refused} deletes were refused"), refused > 0)?;
        demo.check("so it is not complete", report["complete"] == false)?;
        demo.check("and the log says why, and how to go on", told)?;
    }
    demo.screen.line(Style::Yellow, "restore", "the function has the whole table again");
    let report = demo.invoke(json!({"reconcile": {"apply": true}})).await?.answer()?;
    demo.check("now nothing is refused", report.get("refused").is_none())?;
    demo.check("and nothing is lost", report["settings"]["missing"] == 0)
}

async fn stuck_batch(demo: &Demo) -> Checked {
    demo.step("15. A batch is stuck, and one of its indexes is re-exported meanwhile");
    let version = |number: u32| index("busy", json!({"pixel_id": format!("px-{number}")}));
    let stuck = index("stuck", json!({}));
    let load = |item: &Value| demo.stack.table.load([to_item(item)]);
    let holds = |number: u32| -> Result<bool, String> {
        let pixel_id = &demo.stored(SETTINGS, BUSY)?.json()["pixel_id"];
        Ok(*pixel_id == format!("px-{number}"))
    };
    // Past the stream, which has only this batch: it is delivered by hand.
    load(&stuck);
    load(&version(1));
    let batch = |age: u64| event([record("1", &stuck, age), record("2", &version(1), age)]);
    let failures = |answer: Value| answer["batchItemFailures"].as_array().map_or(0, Vec::len);
    let refused = Rule::naming("PUT", "/settings/bulk", STUCK, Fault::status(400)).forever();
    demo.stack.kv.faults().add(refused);
    demo.screen.line(Style::Yellow, "fault", &format!("KV refuses {STUCK}"));

    let answer = demo.deliver(&batch(0)).await?.answer()?;
    demo.check("one record failed, so Lambda sends the batch again", failures(answer) == 1)?;
    demo.check("version 1 of the other is in KV", holds(1)?)?;
    load(&version(2));
    demo.screen.line(Style::Dim, "item", "version 2; its record waits after the stuck batch");
    let payload = json!({"system_account_id": "acme", "index_name": "busy"});
    demo.invoke(payload).await?.answer()?;
    demo.check("the re-export brought version 2", holds(2)?)?;
    let answer = demo.deliver(&batch(120)).await?.answer()?;
    let goes_on = "two minutes later, what KV refuses alone is rejected, and the shard goes on";
    demo.check(goes_on, failures(answer) == 0)?;
    demo.check("version 2 of the other is still there", holds(2)?)
}

/// The stream record of an item that was written so many seconds ago.
fn record(sequence_number: &str, item: &Value, age: u64) -> Value {
    let image = to_item(item);
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    json!({
        "eventName": "MODIFY", "eventSource": "aws:dynamodb",
        "dynamodb": {
            "Keys": {"pk": image["pk"], "sk": image["sk"]}, "NewImage": image,
            "SequenceNumber": sequence_number, "ApproximateCreationDateTime": now - age,
        },
    })
}
