//! Bulk requests to KV: cut into chunks, tried again, halved, with a verdict for each key.
//!
//! | an attempt ends with | then |
//! | --- | --- |
//! | 2xx or 4xx with per-key results | the keys it lists as unsuccessful are sent again on their own, a whole back-off later; the whole request, if it lists a name that was not in it. What a 4xx lists after all tries is sent in halves, a back-off later |
//! | a time-out, 524 | the two halves are sent, each with the tries that are left |
//! | 5xx, 408, a broken connection | the same is sent again |
//! | 429 | the same is sent again, a whole back-off later |
//! | 413, or any other 4xx than 401, 403 and 404, for several keys | the two halves are sent at once, so that a pair that Cloudflare won't take fails alone |
//! | 401 or 403 with a token just read, or no token | the keys fail, and so do all that are still to be sent |
//! | a request for a wait that does not fit | the keys fail, after a wait up to the bound for waits |
//! | anything else, or no time | the keys fail |
//!
//! After the first try there are at most three more. Each key that KV confirms has one receipt in the log.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::invocation::{Budget, Invocation};
use super::judge::Held;
use super::retry::{Retries, with_retries};
use crate::index::ItemRef;
use crate::kv::limits::{MAX_BULK_BODY_BYTES, MAX_BULK_GET_KEYS, MAX_BULK_PAIRS, MAX_KEY_BYTES};
use crate::kv::{Metadata, Namespace, Pair, StoredSettings, StoredValue};
use crate::ports::{BulkReply, ErrorKind, KvStore, ListPage, Service, ServiceError, Services};

/// How many refused requests are halved in one call. One pair among 10,000 is found in 14 steps. Where
/// Cloudflare refuses everything, the halves must not use up its limit.
const MAX_HALVINGS: usize = 100;

pub type Failures = BTreeMap<String, Failure>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub error: ServiceError,
    /// Whether a try may have been carried out all the same.
    pub may_be_done: bool,
}

/// What is read under each key, or why it can't be read.
pub type ReadSettings = BTreeMap<String, Result<Option<StoredSettings>, ServiceError>>;

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
    budget: Budget,
    pairs: Vec<Pair>,
) -> Failures {
    let kv = invocation.services.kv();
    let chunks = chunks(pairs.clone(), invocation.config.bulk_max_pairs, pair_bytes);
    let failures = send(invocation, budget, chunks, |pair| &pair.key, {
        async |pairs: &[Pair]| kv.put(namespace, pairs).await
    })
    .await;
    let is_confirmed = |key| !invocation.config.dry_run && !failures.contains_key(key);
    for Pair { key, stored, item } in pairs.iter().filter(|pair| is_confirmed(&pair.key)) {
        invocation.count(|stats| match namespace {
            Namespace::Settings => stats.settings_written += 1,
            Namespace::QueryConfigs => stats.query_configs_written += 1,
        });
        log_receipt("exported", key, stored.metadata().as_ref(), item.as_ref());
    }
    failures
}

/// Deletes keys. Returns those that KV did not confirm.
pub async fn delete<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    budget: Budget,
    deletes: Vec<Delete>,
) -> Failures {
    let kv = invocation.services.kv();
    let names: Vec<String> = deletes.iter().map(|delete| delete.key.clone()).collect();
    let chunks = chunks(names, invocation.config.bulk_max_pairs, |_| 0);
    let failures = send(invocation, budget, chunks, |key| key, {
        async |keys: &[String]| kv.delete(namespace, keys).await
    })
    .await;
    let is_confirmed = |key| !invocation.config.dry_run && !failures.contains_key(key);
    for Delete { key, item, metadata } in deletes.iter().filter(|delete| is_confirmed(&delete.key))
    {
        invocation.count(|stats| match namespace {
            Namespace::Settings => stats.settings_deleted += 1,
            Namespace::QueryConfigs => stats.query_configs_deleted += 1,
        });
        log_receipt("removed", key, metadata.as_ref(), Some(item));
    }
    failures
}

/// Reads keys, and visits each with what KV holds under it, or why that can't be read. Values may be large: each is
/// visited as it comes, and only one response is in memory.
pub async fn read<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    budget: Budget,
    keys: impl IntoIterator<Item = String>,
    mut visit: impl FnMut(String, Result<Option<StoredValue>, ServiceError>),
) {
    let kv = invocation.services.kv();
    let chunks = chunks(keys.into_iter().collect(), MAX_BULK_GET_KEYS, |_| 0);
    let failures = send(invocation, budget, chunks, |key| key, {
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
    budget: Budget,
    keys: impl IntoIterator<Item = String>,
) -> ReadSettings {
    let mut settings = ReadSettings::new();
    read(invocation, Namespace::Settings, budget, keys, |key, stored| {
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
) -> Result<ListPage, ServiceError> {
    let page = || invocation.services.kv().list(namespace, prefix, cursor);
    with_retries(invocation, Service::Kv, invocation.budget.deadline, page).await
}

fn log_receipt(message: &str, key: &str, metadata: Option<&Metadata>, item: Option<&ItemRef>) {
    let index = metadata.map(|metadata| &metadata.index).or(item.map(|item| &item.index));
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

/// A byte of a key may be written as a six-byte escape.
const ESCAPE: usize = 6;
// So keys alone, `"…",` each, need no bound but their number.
const _: () = assert!(MAX_BULK_PAIRS * (3 + ESCAPE * MAX_KEY_BYTES) < MAX_BULK_BODY_BYTES);

fn pair_bytes(pair: &Pair) -> usize {
    // `{"key":"…","value":…,"metadata":…},`
    const FRAME: usize = 43;
    FRAME + ESCAPE * pair.key.len() + pair.stored.body_bytes()
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
    /// Returns the two halves, the first one last. Each has the tries that are left.
    fn halves(mut self) -> [Self; 2] {
        let items = self.items.split_off(self.items.len().div_ceil(2));
        [Self { items, ..self }, self]
    }
}

async fn send<S: Services, T>(
    invocation: &Invocation<'_, S>,
    budget: Budget,
    chunks: Vec<Vec<T>>,
    key: impl Fn(&T) -> &String,
    mut attempt: impl AsyncFnMut(&[T]) -> Result<BulkReply, ServiceError>,
) -> Failures {
    let mut failures = Failures::new();
    let new = |items| Request { items, retries: Retries::default(), may_be_done: false };
    // The last one is the next.
    let mut open: Vec<Request<T>> = chunks.into_iter().rev().map(new).collect();
    let mut halvings = 0;
    while let Some(mut request) = open.pop() {
        let reply = invocation.call(Service::Kv, budget.deadline, attempt(&request.items)).await;
        let mut error = match reply {
            Ok(reply) if reply.unsuccessful.is_empty() => continue,
            Ok(BulkReply { unsuccessful, retry_after, is_refusal }) => {
                let is_listed = |item: &T| unsuccessful.contains(key(item));
                let listed = request.items.iter().filter(|item| is_listed(item)).count();
                // A name that was not sent could stand for any of those that were.
                if listed == unsuccessful.len() {
                    request.items.retain(is_listed);
                }
                ServiceError { asked_wait: retry_after, ..unsuccessful_error(is_refusal) }
            }
            Err(error) => error,
        };
        request.may_be_done |= error.may_be_done();
        let has_several = request.items.len() > 1;
        if request.retries.wait(invocation, budget, &error).await {
            if has_several && error.kind == ErrorKind::TimedOut {
                open.extend(request.halves());
            } else {
                open.push(request);
            }
            continue;
        }
        let halves_after = match error.kind {
            // The same would be refused again.
            ErrorKind::RefusedContent => Some(Duration::ZERO),
            // Each key that is listed might have got through.
            ErrorKind::Unsuccessful { is_refusal: true } if request.retries.are_used_up() => {
                Some(invocation.config.retry_base)
            }
            _ => None,
        };
        if let Some(back_off) = halves_after.filter(|_| has_several && halvings < MAX_HALVINGS) {
            tokio::time::sleep_until(budget.deadline.min(Instant::now() + back_off)).await;
            halvings += 1;
            open.extend(request.halves());
            continue;
        }
        if has_several {
            // It is not known which of them is refused.
            error = error.without_fault();
        }
        let mut failed = vec![request];
        // Every other request would read the token again.
        if matches!(error.kind, ErrorKind::AuthRejected | ErrorKind::NoToken) {
            failed.append(&mut open);
        }
        for Request { items, may_be_done, .. } in failed {
            let failure = Failure { error: error.clone(), may_be_done };
            failures.extend(items.iter().map(|item| (key(item).clone(), failure.clone())));
        }
    }
    failures
}

fn unsuccessful_error(is_refusal: bool) -> ServiceError {
    let kind = ErrorKind::Unsuccessful { is_refusal };
    ServiceError::new(Service::Kv, kind, "it lists the key as unsuccessful")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{Fakes, Keys, KvFault, index, kv_error, pairs};
    use crate::kv::Source;
    use crate::ports::ErrorKind::{
        AuthRejected, NoToken, RateLimited, Refused, RefusedContent, TimedOut, Transient,
    };
    use proptest::prelude::*;

    fn asks_to_wait(seconds: u64) -> KvFault {
        let asked_wait = Some(Duration::from_secs(seconds));
        KvFault::Fails(ServiceError { asked_wait, ..kv_error(Transient) })
    }

    fn lists(keys: &'static [&'static str]) -> KvFault {
        KvFault::ListsAsUnsuccessful(Keys::Named(keys))
    }

    async fn put_keys(invocation: &Invocation<'_, Fakes>, keys: &[&str]) -> Failures {
        put(invocation, Namespace::Settings, invocation.budget, pairs(keys)).await
    }

    async fn delete_keys(invocation: &Invocation<'_, Fakes>, keys: &[&str]) -> Failures {
        let item = ItemRef::from(index("i"));
        let delete_of =
            |key: &&str| Delete { key: (*key).to_owned(), item: item.clone(), metadata: None };
        let deletes = keys.iter().map(delete_of).collect();
        delete(invocation, Namespace::QueryConfigs, invocation.budget, deletes).await
    }

    /// The requests for keys of one letter, a word each, and how long they took.
    fn requests(fakes: &Fakes, start: Instant) -> String {
        let requests = fakes.kv.requests.borrow();
        let words: Vec<String> = requests.iter().map(|keys| keys.concat()).collect();
        format!("{} in {:?}", words.join(" "), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_after_an_attempt_and_how_much_later() {
        let fails = |kind| KvFault::Fails(kv_error(kind));
        let is_done = KvFault::IsDoneAndListsAsUnsuccessful(Keys::Named(&["b"]));
        let with_wait = KvFault::ListsAndAsksToWait(Keys::Named(&["b"]), Duration::from_secs(7));
        for (name, fault, expected) in [
            ("one key is listed", lists(&["b"]), "abc b in 1s"),
            ("one is done, and listed all the same", is_done, "abc b in 1s"),
            ("one key is listed, with a wait", with_wait, "abc b in 7s"),
            ("timed out", fails(TimedOut), "abc ab c in 500ms"),
            ("transient", fails(Transient), "abc abc in 500ms"),
            ("transient, with a wait", asks_to_wait(7), "abc abc in 7s"),
            ("too soon", fails(RateLimited), "abc abc in 1s"),
            ("refused, as by a 413", fails(RefusedContent), "abc ab c in 0ns"),
        ] {
            let (fakes, start) = (Fakes::new(), Instant::now());
            fakes.kv.faults.then([fault]);
            let failures = put_keys(&fakes.invocation(Source::Stream), &["a", "b", "c"]).await;
            assert_eq!(failures, Failures::new(), "{name}");
            assert_eq!(requests(&fakes, start), expected, "{name}");
            assert_eq!(fakes.kv.keys(), ["a", "b", "c"], "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn which_keys_fail_and_what_may_be_done_of_them() {
        let transient = kv_error(Transient);
        let limited = kv_error(RateLimited);
        let timed_out = kv_error(TimedOut);
        let refused = kv_error(Refused);
        let content = kv_error(RefusedContent);
        let token = kv_error(AuthRejected);
        let no_token = kv_error(NoToken);
        let [listed, in_refusal] = [false, true].map(unsuccessful_error);
        let [unsent, cut] =
            [false, true].map(|is_sent| ServiceError::out_of_time(Service::Kv, is_sent));
        let fails = |error: &ServiceError| KvFault::Fails(error.clone());
        let four = |fault: KvFault| vec![fault; 4];
        let lost_and_refused = [vec![fails(&transient)], vec![fails(&content); 3]].concat();
        let times_out = vec![KvFault::IsDoneAndFails(Keys::All, timed_out.clone()); 9];
        let refuses = || KvFault::RefusesAndLists(Keys::All);
        let at_the_end = vec![asks_to_wait(299), refuses()];
        let refuses_b = [vec![refuses(); 5], vec![lists(&[]), refuses()]].concat();
        // The keys; what goes wrong; the requests, of up to four keys; the keys that fail, with a ? where they may
        // be done, and why.
        for (name, keys, faults, sent, failing, error) in [
            ("listed", "ab", four(lists(&["b"])), "ab b b b in 7s", "b?", &listed),
            ("transient", "ab", four(fails(&transient)), "ab ab ab ab in 3.5s", "a?b?", &transient),
            ("too soon", "ab", four(fails(&limited)), "ab ab ab ab in 7s", "ab", &limited),
            ("timed out", "abc", times_out, "abc ab a a b b c c c in 8.5s", "a?b?c?", &timed_out),
            ("lost, then refused", "ab", lost_and_refused, "ab ab a b in 500ms", "a?b?", &content),
            ("refused", "abcde", vec![fails(&refused)], "abcd e in 0ns", "abcd", &refused),
            ("refused alone", "ab", vec![fails(&content); 2], "ab a b in 0ns", "a", &content),
            (
                "one of a list",
                "abc",
                refuses_b,
                "abc abc abc abc ab a b c in 9s",
                "b?",
                &in_refusal,
            ),
            ("listed at the end", "ab", at_the_end, "ab ab in 299s", "a?b?", &listed),
            ("token", "abcde", vec![fails(&token)], "abcd in 0ns", "abcde", &token),
            ("no token", "abcde", vec![fails(&no_token)], "abcd in 0ns", "abcde", &no_token),
            ("hangs", "abcde", vec![KvFault::Hangs], "abcd in 300s", "a?b?c?d?e", &cut),
        ] {
            let keys: Vec<&str> = keys.split_inclusive(|_| true).collect();
            for is_delete in [false, true] {
                let (mut fakes, start) = (Fakes::new(), Instant::now());
                fakes.0.config.bulk_max_pairs = 4;
                fakes.kv.faults.then(faults.clone());
                let invocation = fakes.invocation(Source::Stream);
                let failures = if is_delete {
                    delete_keys(&invocation, &keys).await
                } else {
                    put_keys(&invocation, &keys).await
                };
                let mark = |failure: &Failure| if failure.may_be_done { "?" } else { "" };
                let failed =
                    failures.iter().map(|(key, failure)| format!("{key}{}", mark(failure)));
                assert_eq!(failed.collect::<String>(), failing, "{name}");
                let is_why = |failure: &Failure| [error, &unsent].contains(&&failure.error);
                assert!(failures.values().all(is_why), "{name}");
                assert_eq!(requests(&fakes, start), sent, "{name}");
                let stats = invocation.stats();
                let confirmed = (keys.len() - failures.len()) as u64;
                let counts = if is_delete { [0, confirmed] } else { [confirmed, 0] };
                assert_eq!([stats.settings_written, stats.query_configs_deleted], counts, "{name}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_everything_is_refused_no_more_than_100_requests_are_halved() {
        let fakes = Fakes::new();
        let keys: Vec<String> = (0..1_000).map(|number| format!("k{number:03}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let refused = kv_error(RefusedContent);
        fakes.kv.faults.then(vec![KvFault::Fails(refused.clone()); 1_000]);
        let failures = put_keys(&fakes.invocation(Source::Stream), &keys).await;
        let (alone, together): (Vec<_>, Vec<_>) =
            failures.into_values().map(|it| it.error).partition(|error| *error == refused);
        assert!((1..100).contains(&alone.len()), "{} are known to be refused alone", alone.len());
        assert_eq!(together, vec![kv_error(Refused); 1_000 - alone.len()]);
        assert_eq!(fakes.kv.requests.borrow().len(), 1 + 2 * MAX_HALVINGS);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_read_brings_is_visited_before_the_next_request() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation(Source::Stream);
        fakes.kv.faults.then([KvFault::Fails(kv_error(RefusedContent))]);
        let keys = (0..200).map(|number| format!("{number:03}"));
        let mut requests = Vec::new();
        read(&invocation, Namespace::Settings, invocation.budget, keys, |_, _| {
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
        fn a_pair_takes_no_more_than_is_reckoned(key in r"[\x00-\x1f]{0,100}|(?s:.*)") {
            let [pair] = pairs(&[&key]).try_into().unwrap();
            let written = serde_json::to_string(&pair).unwrap().len() + ",".len();
            prop_assert!((written..=written + 20 + 5 * key.len()).contains(&pair_bytes(&pair)));
        }
    }
}
