//! The settings table in DynamoDB. Every read is consistent except the scan of whole items.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::aws::{TakeBody, UNREADABLE, reason};
use super::table_reply::TableReply;
use crate::item::keys::{QUERY_SEPARATOR, query_config_sk_prefix};
use crate::item::{CLAIM_PATHS, Item, ItemKey};
use crate::ports::{
    ErrorKind, ScanColumns, Service, ServiceError, SettingsTable, TablePage, TablePart,
};

const BATCH_GET: &str = "BatchGetItem";
/// DynamoDB's most keys in one request.
const BATCH_GET_KEYS: usize = 100;
const BATCH_GETS_IN_FLIGHT: usize = 4;

/// How long to wait after each response in a row that brought nothing, before keys are asked for again.
const BACK_OFF_MS: [u64; 6] = [50, 100, 200, 400, 800, 1_600];

/// Returns the filter of a pass that looks for claims. A query config claims nothing, but an item that only looks
/// like one (`INDEX##QUERY#x`) may have aliases.
fn claims_filter() -> String {
    let exist = CLAIM_PATHS.map(|path| format!("attribute_exists({path})"));
    format!("NOT contains(sk, :query) OR {}", exist.join(" OR "))
}

/// Sends a call, and returns its reply, or else leaves the function with an error.
macro_rules! reply {
    ($operation:expr, $call:expr) => {{
        let body = TakeBody::default();
        let sent = $call.customize().interceptor(body.clone()).send().await;
        sent.map_err(|error| {
            let is_throttled = error.code().is_some_and(|code| THROTTLED.contains(&code));
            let kind = if is_throttled { ErrorKind::Transient } else { ErrorKind::Refused };
            ServiceError { kind, ..failed($operation, &reason(error)) }
        })?;
        let reply = body.bytes().and_then(|bytes| TableReply::parse(bytes).ok());
        reply.ok_or_else(|| failed($operation, UNREADABLE))?
    }};
}

pub struct DynamoDbTable {
    pub client: Client,
    pub name: String,
}

impl DynamoDbTable {
    /// Asks for keys until none is left, at once for as long as each response brings something:
    /// DynamoDB returns 16 MB at a time, and 1 MB of one partition.
    async fn get_batch(&self, keys: &[ItemKey]) -> Result<Vec<(ItemKey, Item)>, ServiceError> {
        let mut open = keys.to_vec();
        let mut items = Vec::with_capacity(keys.len());
        let mut back_offs = BACK_OFF_MS.into_iter();
        loop {
            let request = KeysAndAttributes::builder()
                .set_keys(Some(open.iter().map(sdk_key).collect()))
                .consistent_read(true)
                .build()
                .map_err(|error| failed(BATCH_GET, &error.to_string()))?;
            let call = self.client.batch_get_item().request_items(&self.name, request);
            let reply = reply!(BATCH_GET, call);
            items.extend(reply.page.items);
            if reply.unprocessed.is_empty() {
                return Ok(items);
            } else if reply.unprocessed.len() < open.len() {
                back_offs = BACK_OFF_MS.into_iter();
            } else if let Some(millis) = back_offs.next() {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            } else {
                return Err(failed(BATCH_GET, "keys are left unprocessed again and again"));
            }
            open = reply.unprocessed;
        }
    }
}

impl SettingsTable for DynamoDbTable {
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, ServiceError> {
        let batches = keys.chunks(BATCH_GET_KEYS).map(|keys| self.get_batch(keys));
        let batches: Vec<Vec<(ItemKey, Item)>> =
            stream::iter(batches).buffer_unordered(BATCH_GETS_IN_FLIGHT).try_collect().await?;
        Ok(batches.into_iter().flatten().collect())
    }

    async fn page(
        &self,
        part: TablePart<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, ServiceError> {
        let after = after.map(sdk_key);
        let query = |account: &str| {
            self.client
                .query()
                .table_name(&self.name)
                .expression_attribute_values(":pk", AttributeValue::S(account.to_owned()))
                .consistent_read(true)
        };
        let query = match part {
            TablePart::Account(account) => query(account).key_condition_expression("pk = :pk"),
            TablePart::ConfigsOf(index) => {
                let prefix = AttributeValue::S(query_config_sk_prefix(index));
                query(&index.account)
                    .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                    .expression_attribute_values(":prefix", prefix)
            }
            TablePart::Segment { columns, segment, segments } => {
                let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
                let scan = self
                    .client
                    .scan()
                    .table_name(&self.name)
                    .segment(number(segment))
                    .total_segments(number(segments))
                    .set_exclusive_start_key(after);
                let query = AttributeValue::S(QUERY_SEPARATOR.into());
                let scan = match columns {
                    ScanColumns::All => scan.consistent_read(false),
                    ScanColumns::Claims => scan
                        .consistent_read(true)
                        .projection_expression(format!("pk, sk, {}", CLAIM_PATHS.join(", ")))
                        .filter_expression(claims_filter())
                        .expression_attribute_values(":query", query),
                };
                return Ok(reply!("Scan", scan).page);
            }
        };
        Ok(reply!("Query", query.set_exclusive_start_key(after)).page)
    }
}

fn sdk_key(key: &ItemKey) -> HashMap<String, AttributeValue> {
    // A struct of two strings is always an item.
    serde_dynamo::to_item(key).unwrap_or_default()
}

/// How DynamoDB refuses a request that comes too soon after others.
const THROTTLED: [&str; 3] =
    ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"];

/// Returns the error of a call. The SDK has tried again where that could help.
fn failed(operation: &str, reason: &str) -> ServiceError {
    let reason = format!("{operation}: {reason}");
    ServiceError::new(Service::Table, ErrorKind::Refused, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::scripted_aws::{Scripted, sdk};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};
    use tokio::time::Instant;

    fn table(
        script: impl Fn(usize, Value) -> Scripted + Send + Sync + 'static,
    ) -> (DynamoDbTable, Arc<Mutex<usize>>) {
        let (sdk, requests) = sdk(script);
        (DynamoDbTable { client: Client::new(&sdk), name: "table".into() }, requests)
    }

    fn keys(number: usize) -> Vec<ItemKey> {
        let key = |number| ItemKey { pk: "a".into(), sk: format!("INDEX#{number:03}") };
        (0..number).map(key).collect()
    }

    /// What DynamoDB responds if it returns the first `returned` of the keys that a request asks for.
    fn returning(request: &Value, returned: usize) -> Scripted {
        let keys = request["RequestItems"]["table"]["Keys"].as_array().unwrap();
        let (returned, left) = keys.split_at(returned.min(keys.len()));
        let left = if left.is_empty() { json!({}) } else { json!({"table": {"Keys": left}}) };
        Some((200, json!({"Responses": {"table": returned}, "UnprocessedKeys": left})))
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_asked_for_at_once_as_long_as_each_response_brings_something() {
        // 1 MB of items of 90 KB.
        let (table, requests) = table(|_, request| returning(&request, 11));
        let began = Instant::now();
        let items = table.get(&keys(100)).await.unwrap();
        assert!(items.into_keys().eq(keys(100)));
        assert_eq!(*requests.lock().unwrap(), 10);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn responses_that_bring_nothing_are_followed_by_back_offs_and_then_by_an_error() {
        let (empty, requests) = table(|_, request| returning(&request, 0));
        let error = empty.get(&keys(2)).await.unwrap_err();
        assert_eq!(&*error.reason, "BatchGetItem: keys are left unprocessed again and again");
        assert_eq!(*requests.lock().unwrap(), 1 + BACK_OFF_MS.len());

        // The back-offs begin anew with each response that brings something.
        let (slow, requests) =
            table(|number, request| returning(&request, usize::from(number % 6 == 5)));
        assert_eq!(slow.get(&keys(5)).await.unwrap().len(), 5);
        assert_eq!(*requests.lock().unwrap(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn reads_say_how_consistent_they_are() {
        let (table, _) = table(|_, request| {
            let consistent = &request["ConsistentRead"];
            let is_claims = request["ProjectionExpression"].is_string();
            let is_query = request["KeyConditionExpression"].is_string();
            assert_eq!(*consistent, json!(is_claims || is_query), "{request}");
            Some((200, json!({"Items": [], "Count": 0})))
        });
        for columns in [ScanColumns::All, ScanColumns::Claims] {
            let segment = TablePart::Segment { columns, segment: 0, segments: 2 };
            table.page(segment, None).await.unwrap();
        }
        table.page(TablePart::Account("a"), None).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_aws_says_is_shown_as_its_code_and_a_beginning_without_secrets() {
        let long = "x".repeat(1_000);
        let denied = "AccessDeniedException";
        use ErrorKind::{Refused, Transient};
        for (code, message, shown, kind) in [
            (denied, "denied", "AccessDeniedException: denied", Refused),
            (denied, "by secret-of-the-unit-tests", "AccessDeniedException: by ***", Refused),
            ("Denied", "session-of-the-unit-tests,", "Denied: ***,", Refused),
            ("a sentence", "denied", "unknown error: denied", Refused),
            ("Denied", &long, &format!("Denied: {}", &long[..300]), Refused),
            ("ThrottlingException", "slower", "ThrottlingException: slower", Transient),
        ] {
            let body = json!({"__type": code, "message": message});
            let (table, requests) = table(move |_, _| Some((400, body.clone())));
            let error = table.page(TablePart::Account("a"), None).await.unwrap_err();
            assert_eq!((&*error.reason, error.kind), (&*format!("Query: {shown}"), kind));
            assert_eq!(*requests.lock().unwrap(), if kind == Transient { 3 } else { 1 }, "{code}");
        }
    }
}
