//! Bulk requests to KV: chunked, retried, halved, with a verdict for each key.
//!
//! | an attempt gives | then |
//! | --- | --- |
//! | 2xx or 4xx with per-key results | the keys it lists as unsuccessful are sent again on their own, a whole back-off later at the earliest; all, where it lists one that was not sent |
//! | a time-out, 524 | the two halves are sent, each with the tries that are left |
//! | 5xx, 429, 408, a broken connection | the same is sent again; after 429, a whole back-off later at the earliest |
//! | 413, or any other 4xx than 401, 403 and 404, to a request of several keys | the two halves are sent at once, so that a pair that Cloudflare won't take fails alone |
//! | 401 or 403 with a token just read, or no token | the keys fail, and all that are still to be sent; those that were tried before, as perhaps done |
//! | no answer in time, or no time for the wait before it | the keys fail |
//! | a wait is asked for that ends after a batch may write | the batch waits as long as it may write, then the keys fail |
//! | no time for the first try | the keys fail, as never sent |
//! | anything else | the keys fail |
//!
//! After the first try there are at most three more; a key that is still unsuccessful then fails.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::invocation::{Invocation, Service, wait_until};
use super::retry::Retries;
use crate::error_chain::Chain;
use crate::index::ItemName;
use crate::kv::limits::{MAX_BULK_BODY_BYTES, MAX_BULK_GET_KEYS};
use crate::kv::{Pair, StoredValue};
use crate::ports::{BulkReply, KvError, KvStore, ListPage, Namespace, Retry, Retryable, Services};

/// How many refused requests of one piece of work are halved. One pair among 10,000 is found in 14
/// steps; where Cloudflare refuses everything, the requests must not use up its limit.
const MAX_HALVINGS: usize = 100;

pub type Failures = BTreeMap<String, KvError>;

/// Writes pairs of distinct keys; answers with those that KV did not confirm within the bounds.
pub async fn put<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    pairs: Vec<Pair>,
    bounds: Bounds,
) -> Failures {
    let kv = invocation.services.kv();
    let chunks = chunks(pairs.clone(), invocation.config.bulk_max_pairs, pair_bytes);
    let failures = send(invocation, bounds, chunks, |pair| &pair.key, {
        async |pairs: &[Pair]| kv.put(namespace, pairs).await
    })
    .await;
    for Pair { key, entry } in pairs {
        if !failures.contains_key(&key) {
            invocation.note_confirmed(namespace, key, entry.item.clone(), Some(&entry));
        }
    }
    failures
}

/// Deletes keys, each with the item that it is for; answers with those that KV did not confirm by
/// `until`.
pub async fn delete<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    keys: BTreeMap<String, Option<ItemName>>,
    until: Instant,
) -> Failures {
    let kv = invocation.services.kv();
    let names = keys.keys().cloned().collect();
    let chunks = chunks(names, invocation.config.bulk_max_pairs, |key| key_bytes(key));
    let bounds = Bounds::impatient(invocation, until);
    let failures = send(invocation, bounds, chunks, |key| key, {
        async |keys: &[String]| kv.delete(namespace, keys).await
    })
    .await;
    for (key, item) in keys {
        if !failures.contains_key(&key) {
            invocation.note_confirmed(namespace, key, item, None);
        }
    }
    failures
}

/// Reads keys; those that aren't there are absent from both answers.
pub async fn read<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    keys: Vec<String>,
) -> (BTreeMap<String, StoredValue>, Failures) {
    read_until(invocation, namespace, keys, invocation.deadline).await
}

pub async fn read_until<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    keys: Vec<String>,
    until: Instant,
) -> (BTreeMap<String, StoredValue>, Failures) {
    let kv = invocation.services.kv();
    let mut found = BTreeMap::new();
    let chunks = chunks(keys, MAX_BULK_GET_KEYS, |_| 0);
    let bounds = Bounds::impatient(invocation, until);
    let failures = send(invocation, bounds, chunks, |key| key, {
        async |keys: &[String]| {
            found.extend(kv.get(namespace, keys).await?);
            Ok(BulkReply::default())
        }
    })
    .await;
    // That keys can't be read says nothing of what may be written.
    (found, failures.into_iter().map(|(key, error)| (key, error.of_several())).collect())
}

/// Lists a page of keys, with the same tries.
pub async fn list<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    prefix: &str,
    cursor: Option<&str>,
) -> Result<ListPage, KvError> {
    let kv = invocation.services.kv();
    let mut page = ListPage::default();
    let bounds = Bounds::impatient(invocation, invocation.deadline);
    let request = VecDeque::from([vec![prefix.to_owned()]]);
    let failures = send(invocation, bounds, request, |prefix| prefix, {
        async |_: &[String]| {
            page = kv.list(namespace, prefix, cursor).await?;
            Ok(BulkReply::default())
        }
    })
    .await;
    failures.into_values().next().map_or(Ok(page), |error| Err(error.of_several()))
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

/// How long a piece of work goes on.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// What has not succeeded then has failed.
    until: Instant,
    /// How far a wait goes that Cloudflare asks for.
    waits_until: Instant,
}

impl Bounds {
    /// Waits for Cloudflare as long as there is time.
    pub fn patient(until: Instant) -> Self {
        Self { until, waits_until: until }
    }

    /// Waits for Cloudflare only as long as a batch writes, so that a batch that is refused for minutes
    /// answers each minute. Nothing is lost by that, unless what was deleted has to be put back.
    pub fn impatient<S>(invocation: &Invocation<'_, S>, until: Instant) -> Self {
        Self { until, waits_until: until.min(invocation.writes_until) }
    }
}

async fn send<S: Services, T>(
    invocation: &Invocation<'_, S>,
    Bounds { until, waits_until }: Bounds,
    chunks: VecDeque<Vec<T>>,
    key: impl Fn(&T) -> &String,
    mut attempt: impl AsyncFnMut(&[T]) -> Result<BulkReply, KvError>,
) -> Failures {
    let mut failures = Failures::new();
    let mut work: VecDeque<(Vec<T>, Retries)> =
        chunks.into_iter().map(|chunk| (chunk, Retries::default())).collect();
    let mut halvings = 0;
    while let Some((mut items, mut retries)) = work.pop_front() {
        // Nothing is sent once `until` is past; what was tried before may have been done.
        let may_be_done = Instant::now() < until || retries != Retries::default();
        let out_of_time = if may_be_done { KvError::OutOfTime } else { KvError::NotSent };
        let answer = invocation.call(Service::Kv, until, attempt(&items)).await;
        let error = match answer.unwrap_or(Err(out_of_time)) {
            Ok(reply) if reply.unsuccessful.is_empty() => continue,
            Ok(reply) => {
                let retry_after = reply.retry_after;
                keep_unsuccessful(&mut items, &reply, &key);
                KvError::Unsuccessful { retry_after }
            }
            Err(error) => error,
        };
        if matches!(error, KvError::RefusedContent(_)) && items.len() > 1 && halvings < MAX_HALVINGS
        {
            halvings += 1;
            push_halves(&mut work, items, retries);
            continue;
        }
        // Not found out which of them is refused.
        let error = if items.len() > 1 { error.of_several() } else { error };
        let asked_wait = match error.retry() {
            Retry::After(asked_wait) | Retry::AfterWholeBackOff(asked_wait) => asked_wait,
            Retry::Never => None,
        };
        let wait_until = if asked_wait.is_some() { waits_until } else { until };
        if !retries.wait(invocation, Service::Kv, wait_until, &error).await {
            wait_in_vain(invocation, waits_until, asked_wait, &error).await;
            fail(&mut failures, items, retries, &error, &key);
            if error.concerns_every_request() {
                for (items, retries) in work.drain(..) {
                    fail(&mut failures, items, retries, &error, &key);
                }
            }
            continue;
        }
        if matches!(error, KvError::TooMuch(_)) && items.len() > 1 {
            push_halves(&mut work, items, retries);
        } else {
            work.push_front((items, retries));
        }
    }
    failures
}

/// Waits as long as a batch may write, where Cloudflare asks for more: tried again at once, the batch
/// would be refused again.
async fn wait_in_vain<S: Services>(
    invocation: &Invocation<'_, S>,
    waits_until: Instant,
    asked_wait: Option<Duration>,
    error: &KvError,
) {
    let does_not_fit = asked_wait.is_some_and(|wait| Instant::now() + wait >= waits_until);
    if does_not_fit && waits_until < invocation.deadline {
        wait_until(Service::Kv, waits_until, &Chain(error)).await;
    }
}

/// Fails items. If they were tried before, that try may have been done.
fn fail<T>(
    failures: &mut Failures,
    items: Vec<T>,
    retries: Retries,
    error: &KvError,
    key: impl Fn(&T) -> &String,
) {
    let is_first_try = retries == Retries::default();
    let error = if is_first_try { error.clone() } else { error.clone().after_lost_try() };
    failures.extend(items.iter().map(|item| (key(item).clone(), error.clone())));
}

/// Puts the two halves in front of the other work, each with the tries that are left.
fn push_halves<T>(work: &mut VecDeque<(Vec<T>, Retries)>, mut items: Vec<T>, retries: Retries) {
    let second_half = items.split_off(items.len().div_ceil(2));
    work.push_front((second_half, retries));
    work.push_front((items, retries));
}

fn keep_unsuccessful<T>(items: &mut Vec<T>, reply: &BulkReply, key: impl Fn(&T) -> &String) {
    let is_unsuccessful = |item: &T| reply.unsuccessful.contains(key(item));
    let known = items.iter().filter(|item| is_unsuccessful(item)).count();
    // A name that was not sent could stand for any of those that were.
    if known == reply.unsuccessful.len() {
        items.retain(is_unsuccessful);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{Fakes, Keys, KvFault, TIME_LEFT, pairs};
    use crate::ports::Cause;
    use proptest::prelude::*;
    use serde_json::json;

    /// Puts these keys into chunks of at most two.
    async fn put_in_twos(fakes: &mut Fakes, keys: &[&str]) -> Failures {
        fakes.config.bulk_max_pairs = 2;
        put_in_one(fakes, keys).await
    }

    async fn put_in_one(fakes: &Fakes, keys: &[&str]) -> Failures {
        put_by_the_deadline(&fakes.invocation(), keys).await
    }

    async fn put_by_the_deadline(invocation: &Invocation<'_, Fakes>, keys: &[&str]) -> Failures {
        put(invocation, Namespace::Settings, pairs(keys), Bounds::patient(invocation.deadline))
            .await
    }

    fn cause() -> Cause {
        Cause::new("scripted")
    }

    fn transient(asked_wait: Option<Duration>) -> KvFault {
        KvFault::Fails(KvError::Transient(Cause { asked_wait, ..cause() }))
    }

    fn failed(keys: &[&str], error: &KvError) -> Failures {
        keys.iter().map(|key| ((*key).to_owned(), error.clone())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn keys_listed_as_unsuccessful_are_sent_again_on_their_own() {
        let fakes = Fakes::new();
        fakes.kv.faults.then([KvFault::ListsAsUnsuccessful(Keys::Named(&["b"]))]);
        assert_eq!(put_in_one(&fakes, &["a", "b", "c"]).await, Failures::new());
        assert_eq!(*fakes.kv.requests.borrow(), [vec!["a", "b", "c"], vec!["b"]]);
        assert_eq!(fakes.kv.keys(), ["a", "b", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_sent_again_where_a_key_is_listed_that_was_not_sent() {
        let fakes = Fakes::new();
        fakes.kv.faults.then([KvFault::ListsAsUnsuccessful(Keys::Named(&["b", "z"]))]);
        assert_eq!(put_in_one(&fakes, &["a", "b", "c"]).await, Failures::new());
        assert_eq!(*fakes.kv.requests.borrow(), [["a", "b", "c"], ["a", "b", "c"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_still_unsuccessful_after_three_more_tries_fails_alone() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation();
        fakes.kv.faults.then((0..4).map(|_| KvFault::ListsAsUnsuccessful(Keys::Named(&["b"]))));
        let failures = put_by_the_deadline(&invocation, &["a", "b"]).await;
        assert_eq!(failures, failed(&["b"], &KvError::Unsuccessful { retry_after: None }));
        assert_eq!(*fakes.kv.requests.borrow(), [vec!["a", "b"], vec!["b"], vec!["b"], vec!["b"]]);
        assert_eq!(fakes.kv.keys(), ["a"]);
        assert_eq!((invocation.stats().settings_written, invocation.stats().kv_retries), (1, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_much_at_once_is_sent_as_two_halves() {
        let fakes = Fakes::new();
        fakes.kv.faults.then([KvFault::Fails(KvError::TooMuch(cause()))]);
        assert_eq!(put_in_one(&fakes, &["a", "b", "c"]).await, Failures::new());
        assert_eq!(*fakes.kv.requests.borrow(), [vec!["a", "b", "c"], vec!["a", "b"], vec!["c"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_its_content_is_halved_at_once_until_a_pair_fails_alone() {
        let (fakes, start) = (Fakes::new(), Instant::now());
        let refused = KvError::RefusedContent(cause());
        fakes.kv.faults.then((0..3).map(|_| KvFault::Fails(refused.clone())));
        assert_eq!(put_in_one(&fakes, &["a", "b", "c"]).await, failed(&["a"], &refused));
        let requests = [vec!["a", "b", "c"], vec!["a", "b"], vec!["a"], vec!["b"], vec!["c"]];
        assert_eq!(*fakes.kv.requests.borrow(), requests);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn where_everything_is_refused_no_more_than_100_requests_are_halved() {
        let fakes = Fakes::new();
        let names: Vec<String> = (0..1_000).map(|number| format!("k{number:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let refused = KvError::RefusedContent(cause());
        fakes.kv.faults.then((0..1_000).map(|_| KvFault::Fails(refused.clone())));
        let failures = put_in_one(&fakes, &names).await;
        let alone = failures.values().filter(|error| **error == refused).count();
        let together = failures.values().filter(|error| matches!(error, KvError::Refused(_)));
        assert_eq!((alone + together.count(), failures.len()), (1_000, 1_000));
        assert!((1..100).contains(&alone), "{alone} are known to be refused alone");
        assert_eq!(fakes.kv.requests.borrow().len(), 1 + 2 * MAX_HALVINGS);
    }

    #[tokio::test(start_paused = true)]
    async fn each_half_has_the_tries_that_are_left() {
        let fakes = Fakes::new();
        let too_much = || KvError::TooMuch(cause());
        fakes.kv.faults.then((0..9).map(|_| KvFault::IsDoneAndFails(Keys::All, too_much())));
        let failures = put_in_one(&fakes, &["a", "b", "c"]).await;
        assert_eq!(failures, failed(&["a", "b", "c"], &too_much()));
        let mut requests = vec![vec!["a", "b", "c"], vec!["a", "b"]];
        requests.extend([vec!["a"], vec!["a"], vec!["b"], vec!["b"]]);
        requests.extend([vec!["c"], vec!["c"], vec!["c"]]);
        assert_eq!(*fakes.kv.requests.borrow(), requests);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_transient_failure_the_same_is_sent_again() {
        let fakes = Fakes::new();
        let start = Instant::now();
        fakes.kv.faults.then([transient(None), transient(Some(Duration::from_secs(7)))]);
        assert_eq!(put_in_one(&fakes, &["a", "b"]).await, Failures::new());
        assert_eq!(*fakes.kv.requests.borrow(), [["a", "b"]; 3]);
        // Half of one second by the clock's jitter, then as long as the service asks for.
        assert_eq!(start.elapsed(), Duration::from_millis(7_500));
    }

    #[tokio::test(start_paused = true)]
    async fn the_fourth_transient_failure_is_the_verdict() {
        let fakes = Fakes::new();
        fakes.kv.faults.then((0..4).map(|_| transient(None)));
        let error = KvError::Transient(cause());
        assert_eq!(put_in_one(&fakes, &["a", "b"]).await, failed(&["a", "b"], &error));
        assert_eq!(*fakes.kv.requests.borrow(), [["a", "b"]; 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_token_that_cloudflare_takes_everything_fails_at_once() {
        for error in [KvError::AuthRejected(cause()), KvError::NoToken(cause())] {
            let mut fakes = Fakes::new();
            fakes.kv.faults.then([KvFault::Fails(error.clone())]);
            let failures = put_in_twos(&mut fakes, &["a", "b", "c", "d", "e"]).await;
            assert_eq!(failures, failed(&["a", "b", "c", "d", "e"], &error));
            assert_eq!(*fakes.kv.requests.borrow(), [["a", "b"]]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_by_the_deadline_the_keys_fail_and_no_more_are_sent() {
        let mut fakes = Fakes::new();
        let start = Instant::now();
        fakes.kv.faults.then([KvFault::Hangs]);
        let failures = put_in_twos(&mut fakes, &["a", "b", "c"]).await;
        let mut expected = failed(&["a", "b"], &KvError::OutOfTime);
        expected.extend(failed(&["c"], &KvError::NotSent));
        assert_eq!(failures, expected);
        assert_eq!(*fakes.kv.requests.borrow(), [["a", "b"]]);
        assert_eq!(start.elapsed(), TIME_LEFT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_is_not_waited_for_longer_than_it_may_take() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation();
        let start = Instant::now();
        fakes.kv.faults.then([KvFault::Hangs]);
        let keys = BTreeMap::from([("a".to_owned(), None)]);
        let failures = delete(&invocation, Namespace::Settings, keys, start + TIME_LEFT / 2).await;
        assert_eq!(failures, failed(&["a"], &KvError::OutOfTime));
        assert_eq!((start.elapsed(), invocation.is_out_of_time()), (TIME_LEFT / 2, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_beyond_the_deadline_is_not_begun() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation();
        let start = Instant::now();
        fakes.kv.faults.then([transient(Some(TIME_LEFT))]);
        let failures = put_by_the_deadline(&invocation, &["a"]).await;
        let error = KvError::Transient(Cause { asked_wait: Some(TIME_LEFT), ..cause() });
        assert_eq!(failures, failed(&["a"], &error));
        assert_eq!((start.elapsed(), invocation.is_out_of_time()), (Duration::ZERO, true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_too_soon_after_another_write_is_sent_a_whole_back_off_later() {
        let limited = || KvError::RateLimited(cause());
        for too_soon in
            [KvFault::Fails(limited()), KvFault::ListsAsUnsuccessful(Keys::Named(&["a"]))]
        {
            let fakes = Fakes::new();
            let start = Instant::now();
            fakes.kv.faults.then([too_soon]);
            assert_eq!(put_in_one(&fakes, &["a"]).await, Failures::new());
            // The clock's jitter would send it after half of that.
            assert_eq!(start.elapsed(), fakes.config.retry_base);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_longer_wait_than_the_use_case_takes_is_not_begun_and_the_error_says_how_long() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation().waiting_at_most(Duration::from_secs(20));
        let start = Instant::now();
        fakes.kv.faults.then([20, 21].map(|seconds| transient(Some(Duration::from_secs(seconds)))));
        let failures = put_by_the_deadline(&invocation, &["a"]).await;
        let error = Chain(&failures["a"]).to_string();
        assert_eq!(error, "Cloudflare KV: scripted; it asks to wait 21 s");
        assert_eq!(start.elapsed(), Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_does_not_fit_is_waited_as_long_as_a_batch_may_write() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation().writing_for(TIME_LEFT / 2);
        let start = Instant::now();
        fakes.kv.faults.then([transient(Some(TIME_LEFT * 3 / 4))]);
        let keys = vec!["a".to_owned()];
        let (_, failures) = read(&invocation, Namespace::Settings, keys.clone()).await;
        assert_eq!((failures.len(), start.elapsed()), (1, TIME_LEFT / 2));
        let asks_for_more = || transient(Some(TIME_LEFT / 4));
        fakes.kv.faults.then([asks_for_more(), asks_for_more()]);
        let impatient = Bounds::impatient(&invocation, invocation.deadline);
        let failures = put(&invocation, Namespace::Settings, pairs(&["a"]), impatient).await;
        assert_eq!((failures.len(), start.elapsed()), (1, TIME_LEFT / 2));
        // What was deleted is put back as long as there is time.
        assert_eq!(put_by_the_deadline(&invocation, &["a"]).await, Failures::new());
        assert_eq!(start.elapsed(), TIME_LEFT * 3 / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn after_anything_else_the_keys_fail_and_the_next_chunk_is_sent() {
        let mut fakes = Fakes::new();
        let refused = KvError::Refused(cause());
        fakes.kv.faults.then([KvFault::Fails(refused.clone())]);
        let failures = put_in_twos(&mut fakes, &["a", "b", "c"]).await;
        assert_eq!(failures, failed(&["a", "b"], &refused));
        assert_eq!(*fakes.kv.requests.borrow(), [vec!["a", "b"], vec!["c"]]);
        assert_eq!(fakes.kv.keys(), ["c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_tells_what_is_absent_from_what_could_not_be_read() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation();
        fakes.kv.hold("a", &json!({"x": 1}));
        let read = async || {
            let keys = ["a", "b"].map(str::to_owned).to_vec();
            let (found, failures) = read(&invocation, Namespace::Settings, keys).await;
            (found.into_keys().collect::<Vec<_>>(), failures)
        };
        assert_eq!(read().await, (vec!["a".to_owned()], Failures::new()));
        let refused = KvError::Refused(cause());
        fakes.kv.faults.then([KvFault::Fails(refused.clone())]);
        assert_eq!(read().await, (vec![], failed(&["a", "b"], &refused)));
    }

    #[tokio::test(start_paused = true)]
    async fn only_confirmed_deletes_are_counted() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation();
        fakes.kv.faults.then((0..4).map(|_| KvFault::ListsAsUnsuccessful(Keys::Named(&["b"]))));
        let keys = BTreeMap::from(["a", "b"].map(|key| (key.to_owned(), None)));
        let deadline = invocation.deadline;
        let failures = delete(&invocation, Namespace::QueryConfigs, keys, deadline).await;
        assert_eq!(failures, failed(&["b"], &KvError::Unsuccessful { retry_after: None }));
        assert_eq!(invocation.stats().query_configs_deleted, 1);
    }

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

        #[test]
        fn a_pair_takes_no_more_than_is_reckoned(key in any::<String>()) {
            let [pair] = pairs(&[&key]).try_into().unwrap();
            let written = serde_json::to_string(&pair).unwrap().len() + ",".len();
            prop_assert!((written..=written + 20 + 5 * key.len()).contains(&pair_bytes(&pair)));
        }
    }

    #[test]
    fn chunks_are_as_few_as_can_be() {
        assert_eq!(chunks(vec![1; 25_000], 10_000, |_| 1).len(), 3);
        assert_eq!(chunks(vec![1; 10_000], 10_000, |_| 1).len(), 1);
        assert_eq!(chunks(Vec::<u8>::new(), 10_000, |_| 1).len(), 0);
    }
}
