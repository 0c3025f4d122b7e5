//! What KV does beyond the rules that all tests share: it fails in many ways, and its responses may be
//! a minute old.

use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::ports::{Cause, KvError, Namespace};

use crate::memory::{Keys, KvFault};
use crate::world::{Failure, Fault, Held, State, Step};

impl Fault {
    /// Returns what it is for a request to KV.
    pub fn of_kv(self) -> Option<KvFault> {
        let keys = |all| if all { Keys::All } else { Keys::EverySecond };
        Some(match self {
            Self::None => return None,
            Self::Crash { done: true } | Self::Hang { done: true } => KvFault::IsDoneAndHangs,
            Self::Crash { .. } | Self::Hang { .. } => KvFault::Hangs,
            Self::Fail { why, done: true } => KvFault::IsDoneAndFails(Keys::All, failure(why)),
            Self::Fail { why, .. } => KvFault::Fails(failure(why)),
            Self::Half { why } => KvFault::IsDoneAndFails(Keys::EverySecond, failure(why)),
            Self::Unsuccessful { all, done: true } => {
                KvFault::IsDoneAndListsAsUnsuccessful(keys(all))
            }
            Self::Unsuccessful { all, .. } => KvFault::ListsAsUnsuccessful(keys(all)),
            Self::Straggles => KvFault::Fails(failure(Failure::TooMuch)),
        })
    }
}

pub fn failure(why: Failure) -> KvError {
    let cause = Cause::new(format!("{why:?}"));
    match why {
        Failure::Transient | Failure::NotFound => KvError::Transient(cause),
        Failure::RateLimited(seconds) => {
            KvError::RateLimited(Cause { asked_wait: Some(Duration::from_secs(seconds)), ..cause })
        }
        Failure::TooMuch => KvError::TooMuch(cause),
        Failure::Refused => KvError::Refused(cause),
        Failure::RefusedContent => KvError::RefusedContent(cause),
        Failure::Auth => KvError::AuthRejected(cause),
        Failure::NoToken => KvError::NoToken(cause),
    }
}

/// Returns the step as of which a response about these keys is given, where it is a stale one.
pub fn stale_moment(state: &mut State, namespace: Namespace, keys: &[&String]) -> Option<Step> {
    let oldest = state.oldest_visible();
    let pasts = keys.iter().filter_map(|key| state.kv.get(&(namespace, (*key).clone())));
    let changes = pasts.flat_map(|past| past.spans().map(|(step, _, _)| step));
    let mut changes: Vec<Step> = changes.filter(|step| *step > oldest).collect();
    changes.sort_unstable_by(|a, b| b.cmp(a));
    let options = u32::try_from(changes.len()).unwrap();
    let chosen = if changes.is_empty() {
        return None;
    } else if let Some(small) = &mut state.shape.small {
        let left = small.stale_reads.checked_sub(1)?;
        let chosen = state.choices.below(options + 1).checked_sub(1)?;
        small.stale_reads = left;
        chosen
    } else {
        // Nearly always as it is now.
        (state.choices.below(8) == 1).then_some(())?;
        state.choices.below(options)
    };
    state.count("stale reads", 1);
    Some(changes[chosen as usize] - 1)
}

/// Returns what KV tells the invocation about a key, as of a step.
pub fn tell(
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
            format!("  [{invocation}] gets a stale response about {key}: {told:?}")
        });
        let owner = |held: &Option<Rc<Held>>| held.as_ref().map(|held| held.owner.clone());
        if now.is_some() && owner(&told) != owner(&now) {
            state.excused.misread.insert((namespace, key.to_owned()));
        }
    }
    let from = state.oldest_visible();
    state.invocations[invocation].seen.add(namespace, key, from, told.clone());
    told
}
