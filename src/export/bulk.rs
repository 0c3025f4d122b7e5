//! Bulk requests to KV: cut into chunks, tried again, halved, with a verdict for each key.
//!
//! | an attempt ends with | then |
//! | --- | --- |
//! | 2xx or 4xx with per-key results | the keys it lists as unsuccessful are sent again on their own, a whole back-off later; all of them, where it lists one that was not sent |
//! | a time-out, 524 | the two halves are sent, each with the tries that are left |
//! | 5xx, 408, a broken connection | the same is sent again |
//! | 429 | the same is sent again, a whole back-off later |
//! | 413, or any other 4xx than 401, 403 and 404, for several keys | the two halves are sent at once, so that a pair that Cloudflare won't take fails alone |
//! | 401 or 403 with a token just read, or no token | the keys fail, and so do all that are still to be sent |
//! | a wait is asked for that does not fit | the bound for waits is waited for, then the keys fail |
//! | anything else, or no time | the keys fail |
//!
//! After the first try there are at most three more. Each key that KV confirms has one receipt in the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::invocation::{Bounds, Invocation, Service};
use super::retry::{Retries, wait_until, with_retries};
use crate::error_chain::Chain;
use crate::index::ItemRef;
use crate::kv::limits::{MAX_BULK_BODY_BYTES, MAX_BULK_GET_KEYS};
use crate::kv::{Metadata, Namespace, Pair, Source, StoredValue};
use crate::ports::{BulkReply, KvError, KvStore, ListPage, Retry, Retryable, Services};

/// How many refused requests of one piece of work are halved. One pair among 10,000 is found in 14
/// steps; where Cloudflare refuses everything, the requests must not use up its limit.
const MAX_HALVINGS: usize = 100;

pub type Failures = BTreeMap<String, Failure>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub error: KvError,
    /// Whether a try may have been carried out all the same.
    pub may_be_done: bool,
}

/// A key to delete, with what its receipt tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    pub key: String,
    pub item: ItemRef,
    /// The metadata that was read.
    pub metadata: Option<Metadata>,
}

/// Writes pairs of distinct keys, in order. Returns those that KV did not confirm.
pub async fn put<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    bounds: Bounds,
    pairs: Vec<Pair>,
) -> Failures {
    let kv = invocation.services.kv();
    let chunks = chunks(pairs.clone(), invocation.config.bulk_max_pairs, pair_bytes);
    let failures = send(invocation, bounds, chunks, |pair| &pair.key, {
        async |pairs: &[Pair]| kv.put(namespace, pairs).await
    })
    .await;
    for Pair { key, entry } in pairs.iter().filter(|pair| !failures.contains_key(&pair.key)) {
        invocation.count(|stats| match namespace {
            Namespace::Settings => stats.settings_written += 1,
            Namespace::QueryConfigs => stats.query_configs_written += 1,
        });
        log_receipt(invocation, "exported", key, entry.metadata(), entry.item.as_ref());
    }
    failures
}

/// Deletes keys. Returns those that KV did not confirm.
pub async fn delete<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    deletes: Vec<Delete>,
) -> Failures {
    let kv = invocation.services.kv();
    let names: Vec<String> = deletes.iter().map(|delete| delete.key.clone()).collect();
    let chunks = chunks(names, invocation.config.bulk_max_pairs, |key| key_bytes(key));
    let bounds = invocation.budget.for_reads_and_deletes();
    let failures = send(invocation, bounds, chunks, |key| key, {
        async |keys: &[String]| kv.delete(namespace, keys).await
    })
    .await;
    for Delete { key, item, metadata } in &deletes {
        if failures.contains_key(key) {
            continue;
        }
        invocation.count(|stats| match namespace {
            Namespace::Settings => stats.settings_deleted += 1,
            Namespace::QueryConfigs => stats.query_configs_deleted += 1,
        });
        log_receipt(invocation, "removed", key, metadata.as_ref(), Some(item));
    }
    failures
}

/// Reads keys; those that aren't there are in neither map.
pub async fn read<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    keys: impl IntoIterator<Item = String>,
) -> (BTreeMap<String, StoredValue>, Failures) {
    let kv = invocation.services.kv();
    let mut found = BTreeMap::new();
    let chunks = chunks(keys.into_iter().collect(), MAX_BULK_GET_KEYS, |_| 0);
    let bounds = invocation.budget.for_reads_and_deletes();
    let failures = send(invocation, bounds, chunks, |key| key, {
        async |keys: &[String]| {
            found.extend(kv.get(namespace, keys).await?);
            Ok(BulkReply::default())
        }
    })
    .await;
    (found, failures)
}

/// Lists a page of keys.
pub async fn list<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    prefix: &str,
    cursor: Option<&str>,
) -> Result<ListPage, KvError> {
    let until = invocation.budget.deadline;
    with_retries(invocation, Service::Kv, until, async || {
        let page = invocation.services.kv().list(namespace, prefix, cursor);
        let page = invocation.call(Service::Kv, until, page).await;
        page.unwrap_or(Err(KvError::OutOfTime))
    })
    .await
}

fn log_receipt<S: Services>(
    invocation: &Invocation<'_, S>,
    message: &str,
    key: &str,
    metadata: Option<&Metadata>,
    item: Option<&ItemRef>,
) {
    let index = metadata.map(|metadata| &metadata.index).or(item.map(|item| &item.index));
    if invocation.config.dry_run {
        return;
    }
    info!(
        message,
        key,
        system_account_id = index.map(|index| &index.account),
        index_name = index.map(|index| &index.name),
        normalized_query = item.and_then(|item| item.query.as_ref()),
        digest = metadata.and_then(|metadata| metadata.digest).map(|digest| digest.to_string()),
        source = metadata.and_then(|metadata| metadata.source).map(Source::as_str),
        environment = metadata.and_then(|metadata| metadata.shown_environment()),
        exported_at = metadata.and_then(|metadata| metadata.exported_at.as_ref()),
        changed_at = metadata.and_then(|metadata| metadata.changed_at.as_ref()),
    );
}

fn key_bytes(key: &str) -> usize {
    // `"…",`
    const FRAME: usize = 3;
    // A byte may be written as a six-byte escape.
    FRAME + key.len() * 6
}

fn pair_bytes(pair: &Pair) -> usize {
    // `{"key":…,"value":…,"metadata":…},`
    const FRAME: usize = 40;
    FRAME + key_bytes(&pair.key) + pair.entry.body_bytes()
}

/// Cuts work into requests that stay within both limits, in order.
fn chunks<T>(items: Vec<T>, max_items: usize, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let mut size = 0;
    for item in items {
        let item_bytes = bytes(&item);
        size += item_bytes;
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < max_items && size <= MAX_BULK_BODY_BYTES => {
                chunk.push(item);
            }
            _ => {
                chunks.push(vec![item]);
                size = item_bytes;
            }
        }
    }
    chunks
}

/// A request that is still to be made.
struct Request<T> {
    items: Vec<T>,
    retries: Retries,
    may_be_done: bool,
}

impl<T> Request<T> {
    /// The two halves, each with the tries that are left.
    fn halves(mut self) -> [Self; 2] {
        let items = self.items.split_off(self.items.len().div_ceil(2));
        let second = Self { items, retries: self.retries, may_be_done: self.may_be_done };
        [self, second]
    }

    fn keep_unsuccessful(&mut self, unsuccessful: &BTreeSet<String>, key: impl Fn(&T) -> &String) {
        let known = self.items.iter().filter(|item| unsuccessful.contains(key(item))).count();
        // A name that was not sent could stand for any of those that were.
        if known == unsuccessful.len() {
            self.items.retain(|item| unsuccessful.contains(key(item)));
        }
    }
}

async fn send<S: Services, T>(
    invocation: &Invocation<'_, S>,
    bounds: Bounds,
    chunks: Vec<Vec<T>>,
    key: impl Fn(&T) -> &String,
    mut attempt: impl AsyncFnMut(&[T]) -> Result<BulkReply, KvError>,
) -> Failures {
    let mut failures = Failures::new();
    let new = |items| Request { items, retries: Retries::default(), may_be_done: false };
    let mut open: VecDeque<Request<T>> = chunks.into_iter().map(new).collect();
    let mut halvings = 0;
    while let Some(mut request) = open.pop_front() {
        let is_sent = Instant::now() < bounds.until;
        let response = invocation.call(Service::Kv, bounds.until, attempt(&request.items)).await;
        let error = match response.unwrap_or(Err(KvError::OutOfTime)) {
            Ok(reply) if reply.unsuccessful.is_empty() => continue,
            Ok(BulkReply { unsuccessful, retry_after }) => {
                request.keep_unsuccessful(&unsuccessful, &key);
                KvError::Unsuccessful { retry_after }
            }
            Err(error) => error,
        };
        request.may_be_done |= is_sent && may_be_done(&error);
        let has_several = request.items.len() > 1;
        if has_several && matches!(error, KvError::RefusedContent(_)) && halvings < MAX_HALVINGS {
            halvings += 1;
            push_front(&mut open, request.halves());
        } else if wait(invocation, bounds, &mut request.retries, &error).await {
            if has_several && matches!(error, KvError::TooMuch(_)) {
                push_front(&mut open, request.halves());
            } else {
                open.push_front(request);
            }
        } else {
            // Every other request would read the token again.
            if matches!(error, KvError::AuthRejected(_) | KvError::NoToken(_)) {
                open.drain(..).for_each(|request| fail(&mut failures, &request, &error, &key));
            }
            fail(&mut failures, &request, &error, &key);
        }
    }
    failures
}

fn push_front<T>(open: &mut VecDeque<Request<T>>, [first, second]: [Request<T>; 2]) {
    open.push_front(second);
    open.push_front(first);
}

/// Waits before the next try. Where Cloudflare asks for a longer wait than fits, the bound for waits is
/// waited for all the same: tried again at once, the batch would be refused again.
async fn wait<S: Services>(
    invocation: &Invocation<'_, S>,
    Bounds { until, waits_until }: Bounds,
    retries: &mut Retries,
    error: &KvError,
) -> bool {
    let asked: Option<Duration> = match error.retry() {
        Retry::After(asked) | Retry::AfterWholeBackOff(asked) => asked,
        Retry::Never => None,
    };
    let until = if asked.is_some() { until.min(waits_until) } else { until };
    if retries.wait(invocation, Service::Kv, until, error).await {
        return true;
    }
    let does_not_fit = asked.is_some_and(|wait| Instant::now() + wait >= waits_until);
    if does_not_fit && waits_until < invocation.budget.deadline {
        wait_until(Service::Kv, waits_until, &Chain(error)).await;
    }
    false
}

/// Whether a request that ended like this may have been carried out.
fn may_be_done(error: &KvError) -> bool {
    match error {
        KvError::Transient(_)
        | KvError::TooMuch(_)
        | KvError::Unsuccessful { .. }
        | KvError::OutOfTime => true,
        KvError::RateLimited(_)
        | KvError::AuthRejected(_)
        | KvError::NoToken(_)
        | KvError::Refused(_)
        | KvError::RefusedContent(_) => false,
    }
}

fn fail<T>(
    failures: &mut Failures,
    request: &Request<T>,
    error: &KvError,
    key: impl Fn(&T) -> &String,
) {
    let error = match error {
        // It was not found out which of them is refused.
        KvError::RefusedContent(cause) if request.items.len() > 1 => {
            KvError::Refused(cause.clone())
        }
        error => error.clone(),
    };
    for item in &request.items {
        let failure = Failure { error: error.clone(), may_be_done: request.may_be_done };
        failures.insert(key(item).clone(), failure);
    }
}
