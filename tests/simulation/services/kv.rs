//! KV, in memory: each key by itself, as bulk requests are, and answers that may be a minute old.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::kv::{Metadata, Pair, StoredValue};
use ecom_settings_exporter::ports::{BulkReply, KvError, KvStore, ListPage, Namespace};

use super::ports::Ports;
use crate::checks;
use crate::world::faults::{Call, Failure, Fault};
use crate::world::held::{Change, Held};
use crate::world::past::Step;
use crate::world::state::State;

impl Ports {
    fn note_fault(&self, fault: Fault, key: (Namespace, String)) {
        let mut state = self.state.borrow_mut();
        if matches!(fault, Fault::Fail { why: Failure::RefusedContent, .. }) {
            state.invocations[self.invocation].refused.insert(key.clone());
        }
        state.uncertain.insert(key);
    }

    /// Carries out a bulk request on the keys that the fault allows.
    async fn bulk(
        &self,
        namespace: Namespace,
        changes: Vec<(String, Option<Rc<Held>>)>,
    ) -> Result<BulkReply, KvError> {
        {
            let mut state = self.state.borrow_mut();
            checks::request(&mut state, self.invocation, namespace, &changes);
        }
        let (fault, _) = self.enter(Call::KvWrite).await;
        let done = |at: usize| match fault {
            Fault::None | Fault::Crash { .. } | Fault::Hang { .. } => true,
            Fault::Fail { done, .. } => done,
            Fault::Half { .. } => at.is_multiple_of(2),
            Fault::Unsuccessful { all, done } => done || !(all || at.is_multiple_of(2)),
            Fault::Late => false,
        };
        let mut unsuccessful = BTreeSet::new();
        let mut late: Vec<Change> = Vec::new();
        for (at, (key, held)) in changes.into_iter().enumerate() {
            if let Fault::Unsuccessful { all, .. } = fault
                && (all || at.is_multiple_of(2))
            {
                unsuccessful.insert(key.clone());
            }
            if fault != Fault::None {
                self.note_fault(fault, (namespace, key.clone()));
            }
            if done(at) {
                let mut state = self.state.borrow_mut();
                checks::effect(&mut state, self.invocation, namespace, &key, held.as_ref());
                state.set_held(namespace, &key, held);
            } else {
                late.push((namespace, key, held));
            }
        }
        match fault {
            Fault::Late => {
                let mut state = self.state.borrow_mut();
                let state = &mut *state;
                let after = Duration::from_secs(*state.choices.pick(&LANDS_AFTER));
                state.late.push((state.now() + after, late));
                Err(failure(Failure::TooMuch))
            }
            Fault::Crash { .. } => self.crash().await,
            Fault::Hang { .. } => pending().await,
            Fault::Fail { why, .. } | Fault::Half { why } => Err(failure(why)),
            Fault::None | Fault::Unsuccessful { .. } => {
                Ok(BulkReply { unsuccessful, retry_after: None })
            }
        }
    }
}

/// When a request may land that its client gave up, in seconds: Cloudflare's own time-out is at 100.
const LANDS_AFTER: [u64; 5] = [0, 1, 10, 50, 100];

fn failure(why: Failure) -> KvError {
    let reason = format!("{why:?}");
    match why {
        Failure::Transient => KvError::Transient { reason, retry_after: None },
        Failure::RateLimited(seconds) => {
            KvError::Transient { reason, retry_after: Some(Duration::from_secs(seconds)) }
        }
        Failure::TooMuch => KvError::TooMuch { reason },
        Failure::Refused => KvError::Refused { reason },
        Failure::RefusedContent => KvError::RefusedContent { reason },
        Failure::Auth => KvError::AuthRejected { reason },
        Failure::NoToken => KvError::NoToken { reason },
    }
}

/// The step as of which an answer about these keys is given, where it is an old one.
fn old_moment(state: &mut State, namespace: Namespace, keys: &[&String]) -> Option<Step> {
    let oldest = state.oldest_visible();
    let pasts = keys.iter().filter_map(|key| state.kv.get(&(namespace, (*key).clone())));
    let changes = pasts.flat_map(|past| past.spans().map(|(step, _, _)| step));
    let mut changes: Vec<Step> = changes.filter(|step| *step > oldest).collect();
    changes.sort_unstable_by(|a, b| b.cmp(a));
    let options = u32::try_from(changes.len()).unwrap();
    let chosen = if changes.is_empty() {
        return None;
    } else if state.shape.scripted {
        0
    } else if let Some(small) = &mut state.shape.small {
        let left = small.old_answers.checked_sub(1)?;
        let chosen = state.choices.below(options + 1).checked_sub(1)?;
        small.old_answers = left;
        chosen
    } else {
        // Nearly always as it is now.
        (state.choices.below(8) == 1).then_some(())?;
        state.choices.below(options)
    };
    state.stats.old_answers += 1;
    Some(changes[chosen as usize] - 1)
}

/// What KV tells the invocation of a key, as of a step.
fn answer(
    state: &mut State,
    invocation: usize,
    namespace: Namespace,
    key: &str,
    moment: Option<Step>,
) -> Option<Rc<Held>> {
    let past = state.kv.get(&(namespace, key.to_owned()));
    let now = past.and_then(|past| past.last()).cloned().flatten();
    let told = match moment {
        Some(moment) => past.and_then(|past| past.at(moment)).cloned().flatten(),
        None => now.clone(),
    };
    if told != now {
        state.note(|| {
            let told = told.as_deref().map(|held| held.value.as_str());
            format!("  [{invocation}] is told an old answer about {key}: {told:?}")
        });
        checks::old_answer(state, invocation, namespace, key, told.as_deref(), now.as_deref());
    }
    let from = state.oldest_visible();
    state.invocations[invocation].seen.add(namespace, key, from, told.clone());
    told
}

impl KvStore for Ports {
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError> {
        let changes = pairs.iter().map(|Pair { key, entry }| {
            let stored = entry.to_stored();
            checks::schemas::pair(namespace, &stored);
            let metadata = stored.metadata.map(|json| json.get().to_owned());
            (key.clone(), Some(Held::new(namespace, stored.value, metadata)))
        });
        self.bulk(namespace, changes.collect()).await
    }

    async fn delete(&self, namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError> {
        self.bulk(namespace, keys.iter().map(|key| (key.clone(), None)).collect()).await
    }

    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError> {
        self.state.borrow_mut().invocations[self.invocation].kv_reads += 1;
        let (fault, old) = self.enter(Call::KvRead).await;
        if let Fault::Fail { why, .. } = fault {
            return Err(failure(why));
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let each = !state.shape.is_plain();
        let all: Vec<&String> = keys.iter().collect();
        let of_all = if old && !each { old_moment(state, namespace, &all) } else { None };
        let mut found = BTreeMap::new();
        for key in keys {
            let moment = if old && each { old_moment(state, namespace, &[key]) } else { of_all };
            let Some(held) = answer(state, self.invocation, namespace, key, moment) else {
                continue;
            };
            let value = held.value.clone();
            let metadata = held.metadata.clone();
            let metadata = metadata.and_then(|json| serde_json::from_str(&json).ok());
            found.insert(key.clone(), StoredValue { value, metadata });
        }
        Ok(found)
    }

    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError> {
        let (fault, old) = self.enter(Call::KvRead).await;
        if let Fault::Fail { why, .. } = fault {
            return Err(failure(why));
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let oldest = state.oldest_visible();
        let name = state.environment_of(self.invocation).name;
        let run = &mut state.invocations[self.invocation];
        run.seen.listed_from.entry(namespace).or_insert(oldest);
        let random = !state.shape.is_plain();
        let keys: Vec<String> = state
            .kv
            .range((namespace, cursor.unwrap_or_default().to_owned())..)
            .take_while(|((found, _), _)| *found == namespace)
            .map(|((_, key), _)| key)
            .filter(|key| key.starts_with(prefix) && Some(key.as_str()) != cursor)
            .cloned()
            .collect();
        let mut page = ListPage::default();
        for key in keys {
            if page.keys.len() == state.shape.page {
                page.cursor = page.keys.last().map(|(key, _)| key.clone());
                break;
            }
            let moment = if old && random { old_moment(state, namespace, &[&key]) } else { None };
            let held = answer(state, self.invocation, namespace, &key, moment);
            let Some(held) = held else { continue };
            let ours = &mut state.invocations[self.invocation].seen.listed_ours;
            *ours.entry(namespace).or_default() += u64::from(held.is_ours(name));
            let metadata = held.metadata.as_deref();
            page.keys.push((key, metadata.and_then(Metadata::parse)));
        }
        Ok(page)
    }
}
