//! A re-export of one index with many query configs.

use serde_json::json;
use testbed::kv::KvVerb;
use testbed::stack::{Stack, StackOptions};

use crate::exporter::{function, invoke};
use crate::report::{Outcome, megabytes, row};
use crate::workload::{index_item, query_config, typical};

pub async fn re_export(configs: usize) -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    stack.kv.discard(true);
    stack.table.load([index_item(0, 1, typical(0))]);
    stack
        .table
        .load((0..configs).map(|number| query_config("account-00000", "index-000000", number)));
    let function = function(&stack).await?;
    let payload = json!({
        "system_account_id": "account-00000", "index_name": "index-000000",
        "include_query_configs": true,
    });
    let (answer, time) = invoke(&function, &payload).await?;
    let usage = function.usage().await?;
    let exported = answer["query_configs"]["exported"].as_u64();
    if exported != Some(u64::try_from(configs)?) {
        return Err(format!("not all were exported: {answer}").into());
    }
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let rate = configs as f64 / usage.cpu.as_secs_f64();
    let puts = stack.kv.log_of(KvVerb::PutBulk).len();
    row(
        &format!("re-export of {configs} query configs"),
        &format!(
            "{:.1} s, CPU {:.1} s ({rate:.0} a second of it), {}, {puts} PUTs, {} table requests",
            time.as_secs_f64(),
            usage.cpu.as_secs_f64(),
            megabytes(usage.peak_memory),
            stack.table.log().len()
        ),
    );
    Ok(())
}
