//! Bulk requests to KV: chunked, retried, halved, with a verdict for each key.
//!
//! | an attempt gives | then |
//! | --- | --- |
//! | 2xx or 4xx with per-key results | the keys it lists as unsuccessful are sent again on their own; all, where it lists one that was not sent |
//! | a time-out, 413, 524 | the two halves are sent, each with the tries that are left |
//! | 5xx, 429, 408, a broken connection | the same is sent again |
//! | anything else | the keys fail |

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;

use crate::entry::{Pair, Stored};
use crate::limits::{MAX_BULK_BODY_BYTES, MAX_BULK_GET_KEYS};
use crate::ports::{BulkReply, KvError, KvStore, Namespace, Services, World};
use crate::retry::Retries;
use crate::run::{Run, Service};

/// The keys that could not be dealt with, and why.
pub type Failures = BTreeMap<String, KvError>;

/// Writes pairs of distinct keys; answers with those that KV did not confirm.
pub async fn put<S: Services>(
    run: &Run<'_, S>,
    namespace: Namespace,
    pairs: Vec<Pair>,
) -> Failures {
    let kv = run.services.kv();
    let all = pairs.len();
    let failures =
        send(run, chunks(pairs, run.limits.bulk_max_pairs, pair_bytes), |pair| &pair.key, {
            async |pairs: &[Pair]| kv.put(namespace, pairs).await
        })
        .await;
    run.count_keys(namespace, |keys| keys.written += confirmed(all, &failures));
    failures
}

/// Deletes distinct keys; answers with those that KV did not confirm.
pub async fn delete<S: Services>(
    run: &Run<'_, S>,
    namespace: Namespace,
    keys: Vec<String>,
) -> Failures {
    let kv = run.services.kv();
    let all = keys.len();
    let chunks = chunks(keys, run.limits.bulk_max_pairs, |key| key.len() * 2 + 3);
    let failures =
        send(run, chunks, |key| key, async |keys: &[String]| kv.delete(namespace, keys).await)
            .await;
    run.count_keys(namespace, |keys| keys.deleted += confirmed(all, &failures));
    failures
}

/// Reads keys; those that aren't there are absent from both answers.
pub async fn read<S: Services>(
    run: &Run<'_, S>,
    namespace: Namespace,
    keys: Vec<String>,
) -> (BTreeMap<String, Stored>, Failures) {
    let kv = run.services.kv();
    let mut found = BTreeMap::new();
    let chunks = chunks(keys, MAX_BULK_GET_KEYS, |_| 0);
    let failures = send(run, chunks, |key| key, {
        async |keys: &[String]| {
            found.extend(kv.get(namespace, keys).await?);
            Ok(BulkReply::default())
        }
    })
    .await;
    (found, failures)
}

/// Makes one request that has no keys of its own, such as a page of a listing, with the same tries.
pub async fn request<S: Services, T>(
    run: &Run<'_, S>,
    mut attempt: impl AsyncFnMut() -> Result<T, KvError>,
) -> Result<T, KvError> {
    let mut retries = Retries::default();
    loop {
        let error = match run.call(Service::Kv, attempt()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => return Err(KvError::OutOfTime),
        };
        let retry_after = match &error {
            KvError::Transient { retry_after, .. } => *retry_after,
            KvError::TooMuch { .. } => None,
            _ => return Err(error),
        };
        if !pause(run, &mut retries, retry_after).await {
            return Err(error);
        }
    }
}

fn confirmed(all: usize, failures: &Failures) -> u64 {
    u64::try_from(all.saturating_sub(failures.len())).unwrap_or(u64::MAX)
}

/// What a pair takes in a request's body, at the most.
fn pair_bytes(pair: &Pair) -> usize {
    // `{"key":"…","value":"…","metadata":…},`; a key's byte may be written as a six-byte escape.
    const FRAME: usize = 40;
    FRAME
        + pair.key.len() * 6
        + pair.entry.value_json().len()
        + pair.entry.metadata_json().map_or(0, str::len)
}

/// Cuts work into requests that stay within both limits, in order.
fn chunks<T>(items: Vec<T>, max_items: usize, bytes: impl Fn(&T) -> usize) -> VecDeque<Vec<T>> {
    let mut chunks = VecDeque::new();
    let mut chunk = Vec::new();
    let mut size = 0;
    for item in items {
        let item_bytes = bytes(&item);
        let full = chunk.len() == max_items || size + item_bytes > MAX_BULK_BODY_BYTES;
        if full && !chunk.is_empty() {
            chunks.push_back(std::mem::take(&mut chunk));
            size = 0;
        }
        size += item_bytes;
        chunk.push(item);
    }
    if !chunk.is_empty() {
        chunks.push_back(chunk);
    }
    chunks
}

/// Sends chunk after chunk.
async fn send<S: Services, T>(
    run: &Run<'_, S>,
    chunks: VecDeque<Vec<T>>,
    key: impl Fn(&T) -> &String,
    mut attempt: impl AsyncFnMut(&[T]) -> Result<BulkReply, KvError>,
) -> Failures {
    let mut failures = Failures::new();
    let mut work: VecDeque<(Vec<T>, Retries)> =
        chunks.into_iter().map(|chunk| (chunk, Retries::default())).collect();
    while let Some((mut items, mut retries)) = work.pop_front() {
        let (error, split) = match run.call(Service::Kv, attempt(&items)).await {
            Ok(Ok(reply)) if reply.unsuccessful.is_empty() => continue,
            Ok(Ok(reply)) => {
                let unsuccessful: BTreeSet<String> = reply.unsuccessful.into_iter().collect();
                let is_unsuccessful = |item: &T| unsuccessful.contains(key(item));
                let known = items.iter().filter(|item| is_unsuccessful(item)).count();
                // A name that was not sent could stand for any of those that were.
                if known == unsuccessful.len() {
                    items.retain(is_unsuccessful);
                }
                (KvError::Unsuccessful, false)
            }
            Ok(Err(error)) => {
                let split = matches!(error, KvError::TooMuch { .. });
                (error, split)
            }
            Err(_) => (KvError::OutOfTime, false),
        };
        let retry_after = match &error {
            KvError::Transient { retry_after, .. } => Some(*retry_after),
            KvError::TooMuch { .. } | KvError::Unsuccessful => Some(None),
            _ => None,
        };
        let again = match retry_after {
            Some(retry_after) => pause(run, &mut retries, retry_after).await,
            None => false,
        };
        if matches!(error, KvError::AuthRejected { .. } | KvError::NoToken { .. }) {
            // No other chunk would fare better, and each would read the token again.
            items.extend(work.drain(..).flat_map(|(rest, _)| rest));
        }
        if !again {
            failures.extend(items.iter().map(|item| (key(item).clone(), error.clone())));
        } else if split && items.len() > 1 {
            let second = items.split_off(items.len().div_ceil(2));
            work.push_front((second, retries));
            work.push_front((items, retries));
        } else {
            work.push_front((items, retries));
        }
    }
    failures
}

/// Waits before the next try; false where there is none, or no time for one.
async fn pause<S: Services>(
    run: &Run<'_, S>,
    retries: &mut Retries,
    retry_after: Option<std::time::Duration>,
) -> bool {
    let chance = run.services.world().chance();
    let until: Instant = run.deadline;
    match retries.next_delay(run.limits.retry_base, chance, retry_after) {
        Some(delay) => run.pause(Service::Kv, delay, until).await.is_ok(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_keep_order_and_both_limits(
            sizes in proptest::collection::vec(0..60_000_000_usize, 0..60),
            max in 1..10_usize,
        ) {
            let chunks = chunks(sizes.clone(), max, |size| *size);
            prop_assert!(chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= max));
            prop_assert!(chunks.iter().all(|chunk| chunk.len() == 1 || chunk.iter().sum::<usize>() <= MAX_BULK_BODY_BYTES));
            prop_assert_eq!(chunks.into_iter().flatten().collect::<Vec<_>>(), sizes);
        }
    }

    #[test]
    fn chunks_are_as_few_as_can_be() {
        assert_eq!(chunks(vec![1; 25_000], 10_000, |_| 1).len(), 3);
        assert_eq!(chunks(vec![1; 10_000], 10_000, |_| 1).len(), 1);
        assert_eq!(chunks(Vec::<u8>::new(), 10_000, |_| 1).len(), 0);
    }
}
