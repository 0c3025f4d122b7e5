//! Bulk requests to KV: cut into chunks, tried again, halved, with a verdict for each key.
//!
//! | an attempt ends with | then |
//! | --- | --- |
//! | 2xx or 4xx with per-key results | the keys it lists as unsuccessful are sent again on their own, a whole back-off later; all of them, where it lists one that was not sent. What a 4xx lists after all tries is sent in halves, a back-off later |
//! | a time-out, 524 | the two halves are sent, each with the tries that are left |
//! | 5xx, 408, a broken connection | the same is sent again |
//! | 429 | the same is sent again, a whole back-off later |
//! | 413, or any other 4xx than 401, 403 and 404, for several keys | the two halves are sent at once, so that a pair that Cloudflare won't take fails alone |
//! | 401 or 403 with a token just read, or no token | the keys fail, and so do all that are still to be sent |
//! | a request for a wait that does not fit | the keys fail, after a wait up to the bound for waits |
//! | anything else, or no time | the keys fail |
//!
//! After the first try there are at most three more. Each key that KV confirms has one receipt in the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;
use tracing::info;

use super::invocation::{Bounds, Invocation, Service};
use super::judge::Held;
use super::retry::{Retries, with_retries};
use crate::index::ItemRef;
use crate::kv::limits::{MAX_BULK_BODY_BYTES, MAX_BULK_GET_KEYS};
use crate::kv::{Metadata, Namespace, Pair, StoredSettings, StoredValue};
use crate::ports::{BulkReply, KvError, KvStore, ListPage, Services};

/// How many refused requests are halved in one call. One pair among 10,000 is found in 14 steps. Where
/// Cloudflare refuses everything, the halves must not use up its limit.
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
    for Pair { key, stored, item } in pairs.iter().filter(|pair| !failures.contains_key(&pair.key))
    {
        invocation.count(|stats| match namespace {
            Namespace::Settings => stats.settings_written += 1,
            Namespace::QueryConfigs => stats.query_configs_written += 1,
        });
        log_receipt(invocation, "exported", key, stored.metadata().as_ref(), item.as_ref());
    }
    failures
}

/// Deletes keys. Returns those that KV did not confirm.
pub async fn delete<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    bounds: Bounds,
    deletes: Vec<Delete>,
) -> Failures {
    let kv = invocation.services.kv();
    let names: Vec<String> = deletes.iter().map(|delete| delete.key.clone()).collect();
    let chunks = chunks(names, invocation.config.bulk_max_pairs, |key| key_bytes(key));
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

/// Reads keys, and visits each with what KV holds under it, or why that can't be read. Values may be large: each is
/// visited as it comes, and only one response is in memory.
pub async fn read<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    keys: impl IntoIterator<Item = String>,
    visit: impl FnMut(String, Result<Option<StoredValue>, KvError>),
) {
    let bounds = invocation.budget.for_reads_and_deletes();
    read_within(invocation, namespace, bounds, keys, visit).await;
}

async fn read_within<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    bounds: Bounds,
    keys: impl IntoIterator<Item = String>,
    mut visit: impl FnMut(String, Result<Option<StoredValue>, KvError>),
) {
    let kv = invocation.services.kv();
    let chunks = chunks(keys.into_iter().collect(), MAX_BULK_GET_KEYS, |_| 0);
    let failures = send(invocation, bounds, chunks, |key| key, {
        async |keys: &[String]| {
            let mut found = kv.get(namespace, keys).await?;
            keys.iter().for_each(|key| visit(key.clone(), Ok(found.remove(key))));
            Ok(BulkReply::default())
        }
    })
    .await;
    failures.into_iter().for_each(|(key, failure)| visit(key, Err(failure.error)));
}

/// Returns what the values of ours under settings keys say of their owners, or why they can't be read.
pub async fn read_settings<S: Services>(
    invocation: &Invocation<'_, S>,
    bounds: Bounds,
    keys: impl IntoIterator<Item = String>,
) -> BTreeMap<String, Result<Option<StoredSettings>, KvError>> {
    let mut settings = BTreeMap::new();
    read_within(invocation, Namespace::Settings, bounds, keys, |key, stored| {
        let of_owner = |stored: StoredValue| {
            let held = Held::read(Some(&stored), &invocation.config.environment);
            stored.settings().filter(|settings| held.is_owned_by(&settings.index))
        };
        settings.insert(key, stored.map(|stored| stored.and_then(of_owner)));
    })
    .await;
    settings
}

/// Returns a page of the listing.
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
        source = metadata.and_then(|metadata| metadata.source).map(|source| source.to_string()),
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
    FRAME + key_bytes(&pair.key) + pair.stored.body_bytes()
}

/// Returns work cut into requests that stay within both limits, in order.
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
    /// Returns the two halves, each with the tries that are left.
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
            Ok(BulkReply { unsuccessful, retry_after, is_refusal }) => {
                request.keep_unsuccessful(&unsuccessful, &key);
                KvError::Unsuccessful { retry_after, is_refusal }
            }
            Err(error) => error,
        };
        request.may_be_done |= is_sent && error.may_be_done();
        let has_several = request.items.len() > 1;
        let can_halve = has_several && error.is_refusal() && halvings < MAX_HALVINGS;
        // The same would be refused again. Keys that are listed may go through.
        let halves_at_once = can_halve && matches!(error, KvError::RefusedContent(_));
        if halves_at_once {
            halvings += 1;
            push_front(&mut open, request.halves());
        } else if request.retries.wait(invocation, Service::Kv, bounds, &error).await {
            if has_several && matches!(error, KvError::TimedOut(_)) {
                push_front(&mut open, request.halves());
            } else {
                open.push_front(request);
            }
        } else if can_halve && request.retries.are_used_up() {
            tokio::time::sleep_until(
                bounds.until.min(Instant::now() + invocation.config.retry_base),
            )
            .await;
            halvings += 1;
            push_front(&mut open, request.halves());
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

fn fail<T>(
    failures: &mut Failures,
    request: &Request<T>,
    error: &KvError,
    key: impl Fn(&T) -> &String,
) {
    let error = match error {
        // It is not known which of them is refused.
        KvError::RefusedContent(cause) if request.items.len() > 1 => {
            KvError::Refused(cause.clone())
        }
        KvError::Unsuccessful { retry_after, .. } if request.items.len() > 1 => {
            KvError::Unsuccessful { retry_after: *retry_after, is_refusal: false }
        }
        error => error.clone(),
    };
    for item in &request.items {
        let failure = Failure { error: error.clone(), may_be_done: request.may_be_done };
        failures.insert(key(item).clone(), failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_chain::Chain;
    use crate::export::fakes::{Fakes, Keys, KvFault, TIME_LEFT, entry, index, pairs};
    use crate::kv::Source;
    use crate::ports::Cause;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// Puts these keys, with the whole time for waits.
    async fn put_keys(fakes: &Fakes, keys: &[&str]) -> Failures {
        put_by(&fakes.invocation(Source::Stream), keys).await
    }

    async fn put_by(invocation: &Invocation<'_, Fakes>, keys: &[&str]) -> Failures {
        let bounds = invocation.budget.for_put_backs();
        put(invocation, Namespace::Settings, bounds, pairs(keys)).await
    }

    /// Services that take two pairs in a request.
    fn in_twos() -> Fakes {
        let mut fakes = Fakes::new();
        fakes.0.config.bulk_max_pairs = 2;
        fakes
    }

    fn cause() -> Cause {
        Cause::new("scripted")
    }

    fn asks_to_wait(wait: Duration) -> KvFault {
        KvFault::Fails(KvError::Transient(Cause { asked_wait: Some(wait), ..cause() }))
    }

    fn lists(keys: &'static [&'static str]) -> KvFault {
        KvFault::ListsAsUnsuccessful(Keys::Named(keys))
    }

    fn names(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    fn errors(failures: Failures) -> Vec<(String, KvError)> {
        failures.into_iter().map(|(key, failure)| (key, failure.error)).collect()
    }

    fn failed(keys: &[&str], error: &KvError) -> Vec<(String, KvError)> {
        keys.iter().map(|key| ((*key).to_owned(), error.clone())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_after_an_attempt_and_how_much_later() {
        let fails = |error: fn(Cause) -> KvError| KvFault::Fails(error(cause()));
        let half = Duration::from_millis(500);
        let all: &[&str] = &["a", "b", "c"];
        let (again, halves): (&[_], &[&[_]]) = (&[all, all], &[all, &["a", "b"], &["c"]]);
        let done = KvFault::IsDoneAndListsAsUnsuccessful(Keys::Named(&["b"]));
        let rows: [(_, KvFault, &[&[&str]], Duration); 7] = [
            ("one key is listed", lists(&["b"]), &[all, &["b"]], SECOND),
            ("one is done, and listed all the same", done, &[all, &["b"]], SECOND),
            ("timed out", fails(KvError::TimedOut), halves, half),
            ("transient", fails(KvError::Transient), again, half),
            ("transient, with a wait", asks_to_wait(7 * SECOND), again, 7 * SECOND),
            ("too soon", fails(KvError::RateLimited), again, SECOND),
            ("refused, as by a 413", fails(KvError::RefusedContent), halves, Duration::ZERO),
        ];
        for (name, fault, requests, waits) in rows {
            let (fakes, start) = (Fakes::new(), Instant::now());
            fakes.kv.faults.then([fault]);
            assert_eq!(put_keys(&fakes, all).await, Failures::new(), "{name}");
            assert_eq!(*fakes.kv.requests.borrow(), requests, "{name}");
            assert_eq!(start.elapsed(), waits, "{name}");
            assert_eq!(fakes.kv.keys(), all, "{name}");
        }
    }

    #[test]
    fn all_are_sent_again_where_a_key_is_listed_that_was_not_sent() {
        let items = names(&["a", "b"]);
        for (listed, kept) in [(["b", "b"], vec!["b"]), (["b", "z"], vec!["a", "b"])] {
            let retries = Retries::default();
            let mut request = Request { items: items.clone(), retries, may_be_done: false };
            request.keep_unsuccessful(&listed.map(str::to_owned).into(), |key| key);
            assert_eq!(request.items, kept);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_a_refusal_lists_each_time_fails_alone() {
        let (fakes, start) = (Fakes::new(), Instant::now());
        let lists = || KvFault::RefusesAndLists(Keys::All);
        fakes.kv.faults.then((0..5).map(|_| lists()));
        fakes.kv.faults.then_nothing(1);
        fakes.kv.faults.then([lists()]);
        let failures = put_keys(&fakes, &["a", "b", "c", "d"]).await;
        let refused = KvError::Unsuccessful { retry_after: None, is_refusal: true };
        assert_eq!(errors(failures), failed(&["b"], &refused));
        let sizes: Vec<usize> = fakes.kv.requests.borrow().iter().map(Vec::len).collect();
        assert_eq!(sizes, [4, 4, 4, 4, 2, 1, 1, 2]);
        assert_eq!(start.elapsed(), (1 + 2 + 4 + 1 + 1) * SECOND, "a back-off before each half");
    }

    #[tokio::test(start_paused = true)]
    async fn which_keys_fail_and_what_may_be_done_of_them() {
        let of = |error: fn(Cause) -> KvError| error(cause());
        let fails = |error: fn(Cause) -> KvError| KvFault::Fails(of(error));
        let four =
            |fault: &dyn Fn() -> KvFault| -> Vec<KvFault> { (0..4).map(|_| fault()).collect() };
        let unsuccessful = KvError::Unsuccessful { retry_after: None, is_refusal: false };
        let (transient, limited): (fn(_) -> _, fn(_) -> _) =
            (KvError::Transient, KvError::RateLimited);
        let (refused, content): (fn(_) -> _, fn(_) -> _) =
            (KvError::Refused, KvError::RefusedContent);
        let both: &[&str] = &["a", "b"];
        let rows: [(_, Vec<KvFault>, &[&str], KvError, bool); 8] = [
            ("always listed", four(&|| lists(&["b"])), &["b"], unsuccessful, true),
            ("always transient", four(&|| fails(transient)), both, of(transient), true),
            ("always too soon", four(&|| fails(limited)), both, of(limited), false),
            ("refused", vec![fails(refused)], both, of(refused), false),
            (
                "may be done, then refused",
                vec![fails(transient), fails(refused)],
                both,
                of(refused),
                true,
            ),
            ("one refused alone", vec![fails(content), fails(content)], &["a"], of(content), false),
            ("no response", vec![KvFault::Hangs], both, KvError::OutOfTime, true),
            (
                "refused token",
                vec![fails(KvError::AuthRejected)],
                both,
                of(KvError::AuthRejected),
                false,
            ),
        ];
        for (name, faults, keys, error, may_be_done) in rows {
            let fakes = Fakes::new();
            fakes.kv.faults.then(faults);
            let failures = put_keys(&fakes, &["a", "b"]).await;
            assert!(failures.values().all(|it| it.may_be_done == may_be_done), "{name}");
            assert_eq!(errors(failures), failed(keys, &error), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_sent_four_times_and_only_what_kv_confirms_is_counted() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation(Source::Stream);
        fakes.kv.faults.then((0..4).map(|_| lists(&["b"])));
        put_by(&invocation, &["a", "b"]).await;
        assert_eq!(*fakes.kv.requests.borrow(), [vec!["a", "b"], vec!["b"], vec!["b"], vec!["b"]]);
        let stats = invocation.stats();
        assert_eq!((stats.settings_written, stats.kv_retries), (1, 3));
        fakes.kv.faults.then((0..4).map(|_| lists(&["b"])));
        let delete_of =
            |key: &str| Delete { key: key.to_owned(), item: index("i").into(), metadata: None };
        let deletes = ["a", "b"].map(delete_of);
        let bounds = invocation.budget.for_reads_and_deletes();
        delete(&invocation, Namespace::QueryConfigs, bounds, deletes.to_vec()).await;
        assert_eq!(invocation.stats().query_configs_deleted, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn where_everything_is_refused_no_more_than_100_requests_are_halved() {
        let fakes = Fakes::new();
        let keys: Vec<String> = (0..1_000).map(|number| format!("k{number:03}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let refused = KvError::RefusedContent(cause());
        fakes.kv.faults.then((0..1_000).map(|_| KvFault::Fails(refused.clone())));
        let errors = errors(put_keys(&fakes, &keys).await);
        let alone = errors.iter().filter(|(_, error)| *error == refused).count();
        let together = errors.iter().filter(|(_, error)| *error == KvError::Refused(cause()));
        assert_eq!(alone + together.count(), 1_000);
        assert!((1..100).contains(&alone), "{alone} are known to be refused alone");
        assert_eq!(fakes.kv.requests.borrow().len(), 1 + 2 * MAX_HALVINGS);
    }

    #[tokio::test(start_paused = true)]
    async fn each_half_has_the_tries_that_are_left() {
        let fakes = Fakes::new();
        let too_much = || KvError::TimedOut(cause());
        fakes.kv.faults.then((0..9).map(|_| KvFault::IsDoneAndFails(Keys::All, too_much())));
        let failures = put_keys(&fakes, &["a", "b", "c"]).await;
        assert_eq!(errors(failures), failed(&["a", "b", "c"], &too_much()));
        let mut requests = vec![vec!["a", "b", "c"], vec!["a", "b"]];
        requests.extend([vec!["a"], vec!["a"], vec!["b"], vec!["b"]]);
        requests.extend([vec!["c"], vec!["c"], vec!["c"]]);
        assert_eq!(*fakes.kv.requests.borrow(), requests);
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunk_that_fails_leaves_the_next_alone_unless_the_token_is_at_fault() {
        let auth: [&[&str]; 1] = [&["a", "b"]];
        for (error, keys, requests) in [
            (KvError::Refused(cause()), &["a", "b"][..], &[&["a", "b"][..], &["c"]][..]),
            (KvError::AuthRejected(cause()), &["a", "b", "c"], &auth),
            (KvError::NoToken(cause()), &["a", "b", "c"], &auth),
        ] {
            let fakes = in_twos();
            fakes.kv.faults.then([KvFault::Fails(error.clone())]);
            let failures = put_keys(&fakes, &["a", "b", "c"]).await;
            assert_eq!(errors(failures), failed(keys, &error), "{error}");
            assert_eq!(*fakes.kv.requests.borrow(), requests, "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_response_by_the_deadline_no_more_is_sent() {
        let (fakes, start) = (in_twos(), Instant::now());
        fakes.kv.faults.then([KvFault::Hangs]);
        let failures = put_keys(&fakes, &["a", "b", "c"]).await;
        let may_be_done: Vec<bool> = failures.values().map(|it| it.may_be_done).collect();
        assert_eq!(may_be_done, [true, true, false]);
        assert_eq!(errors(failures), failed(&["a", "b", "c"], &KvError::OutOfTime));
        assert_eq!(*fakes.kv.requests.borrow(), [["a", "b"]]);
        assert_eq!(start.elapsed(), TIME_LEFT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_does_not_fit_is_waited_as_long_as_a_batch_may_write() {
        let fakes = Fakes::new();
        let mut invocation = fakes.invocation(Source::Stream);
        let start = Instant::now();
        invocation.budget.writes_until = start + TIME_LEFT / 2;
        fakes.kv.faults.then([asks_to_wait(TIME_LEFT * 3 / 4)]);
        read(&invocation, Namespace::Settings, names(&["a"]), |_, it| assert!(it.is_err())).await;
        assert_eq!(start.elapsed(), TIME_LEFT / 2, "a read");
        fakes.kv.faults.then([asks_to_wait(TIME_LEFT / 4)]);
        assert_eq!(put_by(&invocation, &["a"]).await, Failures::new(), "a put-back");
        assert_eq!(start.elapsed(), TIME_LEFT * 3 / 4);
        fakes.kv.faults.then([asks_to_wait(TIME_LEFT / 4)]);
        assert_eq!(put_by(&invocation, &["a"]).await.len(), 1, "a wait up to the deadline");
        assert_eq!(start.elapsed(), TIME_LEFT * 3 / 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_longer_wait_than_the_use_case_takes_is_not_begun_and_the_error_says_how_long() {
        let fakes = Fakes::new();
        let mut invocation = fakes.invocation(Source::ReExport);
        invocation.budget.longest_wait = 20 * SECOND;
        let start = Instant::now();
        fakes.kv.faults.then([20, 21].map(|seconds| asks_to_wait(seconds * SECOND)));
        let bounds = invocation.budget.for_writes();
        let failures = put(&invocation, Namespace::Settings, bounds, pairs(&["a"])).await;
        let error = Chain(&failures["a"].error).to_string();
        assert_eq!(error, "Cloudflare KV: scripted; it asks to wait 21 s");
        assert_eq!(start.elapsed(), 20 * SECOND);
        fakes.kv.faults.then([asks_to_wait(21 * SECOND)]);
        assert_eq!(put_by(&invocation, &["a"]).await, Failures::new(), "a put-back");
        assert_eq!(start.elapsed(), 41 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_tells_what_is_absent_from_what_could_not_be_read() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation(Source::Stream);
        fakes.kv.hold_entry("a", &entry("i", &json!({"x": 1})));
        let read = async || {
            let mut told = BTreeMap::new();
            let keys = names(&["a", "b"]);
            let visit = |key, it: Result<Option<_>, _>| assert!(told.insert(key, it).is_none());
            read(&invocation, Namespace::Settings, keys, visit).await;
            ["a", "b"].map(|key| told[key].clone().map(|stored: Option<_>| stored.is_some()))
        };
        assert_eq!(read().await, [Ok(true), Ok(false)]);
        let refused = KvError::Refused(cause());
        fakes.kv.faults.then([KvFault::Fails(refused.clone())]);
        assert_eq!(read().await, [Err(refused.clone()), Err(refused)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_read_brings_is_visited_before_the_next_request() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation(Source::Stream);
        fakes.kv.faults.then([KvFault::Fails(KvError::RefusedContent(cause()))]);
        let keys = (0..200).map(|number| format!("{number:03}"));
        let mut requests = Vec::new();
        read(&invocation, Namespace::Settings, keys, |_, _| {
            requests.push(fakes.kv.requests.borrow().len());
        })
        .await;
        // The first hundred is refused, and read as two halves.
        assert_eq!(requests, [[2; 50].as_slice(), &[3; 50], &[4; 100]].concat());
    }

    proptest! {
        #[test]
        fn chunks_keep_order_and_are_as_full_as_both_limits_allow(
            sizes in proptest::collection::vec(0..60_000_000_usize, 0..60),
            max in 1..10_usize,
        ) {
            let chunks = chunks(sizes.clone(), max, |size| *size);
            prop_assert!(chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= max));
            prop_assert!(chunks.iter().all(|chunk| chunk.len() == 1 || chunk.iter().sum::<usize>() <= MAX_BULK_BODY_BYTES));
            for (chunk, next) in chunks.iter().zip(&chunks[1.min(chunks.len())..]) {
                let with_next = chunk.iter().sum::<usize>() + next[0];
                prop_assert!(chunk.len() == max || with_next > MAX_BULK_BODY_BYTES, "not full");
            }
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
        for (items, expected) in [(25_000, 3), (10_000, 1), (0, 0)] {
            assert_eq!(chunks(vec![1; items], 10_000, |_| 1).len(), expected);
        }
    }
}
