//! The settings table in DynamoDB. Every read is consistent, but an audit's scan.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::aws::AwsError;
use super::table_reply::{TableReply, TakeReply};
use crate::item::alias_targets::CLAIM_PATHS;
use crate::item::keys::{QUERY_SEPARATOR, query_config_sk_prefix};
use crate::item::{Item, ItemKey};
use crate::ports::{Cause, Query, ScanColumns, SettingsTable, TableError, TablePage};

/// DynamoDB's most keys in one `BatchGetItem`.
const BATCH_GET_KEYS: usize = 100;
const BATCH_GETS_IN_FLIGHT: usize = 4;

/// How often keys that DynamoDB leaves unprocessed are asked for again, and after how long.
const UNPROCESSED_RETRIES: u32 = 6;
const UNPROCESSED_BACKOFF: Duration = Duration::from_millis(50);

/// Nothing of a query config counts, but what only looks like one (`INDEX##QUERY#x`) may have aliases.
fn claims_filter() -> String {
    let exist = CLAIM_PATHS.map(|path| format!("attribute_exists({path})"));
    format!("NOT contains(sk, :query) OR {}", exist.join(" OR "))
}

/// Sends a call and takes the reply before the SDK decodes it.
macro_rules! reply {
    ($operation:literal, $call:expr) => {{
        let reply = TakeReply::default();
        let answer = $call.customize().interceptor(reply.clone()).send().await;
        let answer = answer.map_err(AwsError::from);
        let reply = answer.and_then(|_| reply.taken().ok_or(AwsError::Unreadable));
        reply.map_err(|error| table_error($operation, error))
    }};
}

type SdkItem = HashMap<String, AttributeValue>;

pub struct DynamoDbTable {
    pub client: Client,
    pub name: String,
}

impl DynamoDbTable {
    async fn get_batch(&self, keys: &[ItemKey]) -> Result<Vec<(ItemKey, Item)>, TableError> {
        let mut open: Vec<SdkItem> = keys.iter().map(sdk_key).collect();
        let mut items = Vec::with_capacity(keys.len());
        for attempt in 0..=UNPROCESSED_RETRIES {
            if attempt > 0 {
                tokio::time::sleep(UNPROCESSED_BACKOFF * 2_u32.pow(attempt - 1)).await;
            }
            let request = KeysAndAttributes::builder()
                .set_keys(Some(open))
                .consistent_read(true)
                .build()
                .map_err(|_| table_error("BatchGetItem", AwsError::NotMade))?;
            let call = self.client.batch_get_item().request_items(&self.name, request);
            let reply = reply!("BatchGetItem", call)?;
            items.extend(reply.items);
            open = reply.unprocessed.iter().map(sdk_key).collect();
            if open.is_empty() {
                return Ok(items);
            }
        }
        let cause = Cause::new("it leaves keys unprocessed");
        Err(TableError { operation: "BatchGetItem", throttled: false, cause })
    }
}

impl SettingsTable for DynamoDbTable {
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError> {
        let batches = keys.chunks(BATCH_GET_KEYS).map(|keys| self.get_batch(keys));
        let batches: Vec<Vec<(ItemKey, Item)>> =
            stream::iter(batches).buffer_unordered(BATCH_GETS_IN_FLIGHT).try_collect().await?;
        Ok(batches.into_iter().flatten().collect())
    }

    async fn query(
        &self,
        query: Query<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let (account, condition, bounds) = match query {
            Query::Account(account) => (account, "pk = :pk", vec![]),
            Query::ConfigsOf(index) => {
                let prefix = text(&query_config_sk_prefix(index));
                let condition = "pk = :pk AND begins_with(sk, :prefix)";
                (&*index.account, condition, vec![(":prefix", prefix)])
            }
            Query::Between(first, last) => {
                let bounds = vec![(":first", text(&first.sk)), (":last", text(&last.sk))];
                (&*first.pk, "pk = :pk AND sk BETWEEN :first AND :last", bounds)
            }
        };
        let values = bounds.into_iter().chain([(":pk", text(account))]);
        let call = self
            .client
            .query()
            .table_name(&self.name)
            .key_condition_expression(condition)
            .set_expression_attribute_values(Some(
                values.map(|(name, value)| (name.into(), value)).collect(),
            ))
            .consistent_read(true)
            .set_exclusive_start_key(after.map(sdk_key));
        reply!("Query", call).map(page)
    }

    async fn scan(
        &self,
        columns: ScanColumns,
        segment: u32,
        segments: u32,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let scan = self
            .client
            .scan()
            .table_name(&self.name)
            .consistent_read(columns != ScanColumns::AllEventuallyConsistent)
            .segment(number(segment))
            .total_segments(number(segments))
            .set_exclusive_start_key(after.map(sdk_key));
        let scan = match columns {
            ScanColumns::All | ScanColumns::AllEventuallyConsistent => scan,
            ScanColumns::Claims => scan
                .projection_expression(format!("pk, sk, {}", CLAIM_PATHS.join(", ")))
                .filter_expression(claims_filter())
                .expression_attribute_values(":query", AttributeValue::S(QUERY_SEPARATOR.into())),
        };
        reply!("Scan", scan).map(page)
    }
}

fn page(TableReply { items, last_evaluated, .. }: TableReply) -> TablePage {
    TablePage { items, last_read: last_evaluated }
}

fn sdk_key(key: &ItemKey) -> SdkItem {
    // A struct of two strings is always an item.
    serde_dynamo::to_item(key).unwrap_or_default()
}

/// What DynamoDB calls a request that comes too soon after the others.
const THROTTLED: [&str; 3] =
    ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"];

fn table_error(operation: &'static str, error: AwsError) -> TableError {
    let throttled =
        matches!(&error, AwsError::Service { code, .. } if THROTTLED.contains(&&**code));
    TableError { operation, throttled, cause: Cause::new(error) }
}
