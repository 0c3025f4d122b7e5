//! Carries out what the plan lets through: writes first, then deletes. Nothing is deleted on the
//! scan's or the listing's word: settling and the removal of query configs look for themselves.

use std::collections::{BTreeMap, BTreeSet};

use enum_map::EnumMap;
use tracing::error;

use super::orphans::{remove_left_behind, remove_orphans};
use super::part::{Lister, Part, Section};
use super::progress::{Allowed, Place, Repair};
use super::report::{Class, Examples, Found};
use super::scan::warn_rejected;
use super::write::write;
use crate::error_chain::Chain;
use crate::export::api_keys::ApiKeys;
use crate::export::error::KeyError;
use crate::item::{ItemKey, ItemKind, Rejection};
use crate::ports::{Namespace, Services};

pub type Failed = BTreeMap<String, KeyError>;

/// What became of a repair.
#[derive(Default)]
pub struct Outcome {
    /// Written, deleted, failed and rejected.
    pub done: Found,
    pub examples: Examples,
    /// Stale keys that were rewritten; what failed may have been.
    pub rewritten: u64,
    /// What was written for items that no longer ask for it, and is still to be removed.
    pub left_behind: BTreeMap<ItemKey, BTreeSet<String>>,
    /// How much of that is more than the brake lets through.
    pub refused_deletes: u64,
    /// What is still to be done.
    pub left: EnumMap<Namespace, Allowed>,
    /// Where time, requests or memory ended; `None` where the part is repaired.
    pub interrupted_at: Option<Place>,
    /// Whether anything was tried.
    pub got_on: bool,
}

/// A step of a repair was interrupted: another run goes on.
pub struct Interrupted;

/// Repairs a part, as far as the brakes allow it; an audit leaves all of it.
pub async fn carry_out<S: Services>(
    lister: &Lister<'_, S>,
    part: &Part,
    repair: &Repair,
    api_keys: &ApiKeys,
) -> Outcome {
    let mut outcome = Outcome { left: repair.allowed, ..Outcome::default() };
    if !lister.request.apply {
        return outcome;
    }
    let is_last_of_its_namespace =
        |section: &Section| section.next.is_none() || section.next == repair.end;
    for section in &part.sections {
        let namespace = section.namespace();
        let written = write(lister, section, api_keys, &mut outcome).await;
        remove_left_behind(lister, namespace, api_keys, &mut outcome).await;
        if written.is_err() {
            let is_open = |section: &&Section| outcome.left[section.namespace()].any();
            let open = part.sections.iter().find(is_open);
            outcome.interrupted_at = open.map(|open| open.begin.clone());
            return outcome;
        }
        if is_last_of_its_namespace(section) {
            let left = &mut outcome.left[namespace];
            (left.writes, left.rewrites) = (false, 0);
        }
    }
    for section in &part.sections {
        let removed =
            remove_orphans(lister, section, repair.chunk_keys, api_keys, &mut outcome).await;
        if let Err(at) = removed {
            outcome.interrupted_at.get_or_insert(at);
        } else if is_last_of_its_namespace(section) {
            outcome.left[section.namespace()].deletes = 0;
        }
    }
    outcome
}

impl Outcome {
    /// Counts keys that were written, or deleted.
    pub fn note(&mut self, namespace: Namespace, class: Class, keys: usize) {
        self.got_on |= keys > 0;
        self.done[namespace][class] += keys as u64;
    }

    /// Counts what failed in a step, unless the time was up: then another run tries it again.
    pub fn fail_all(&mut self, namespace: Namespace, failed: Failed) -> Result<(), Interrupted> {
        if failed.values().any(KeyError::is_out_of_time) {
            return Err(Interrupted);
        }
        for (key, error) in failed {
            self.fail(namespace, &key, &error);
        }
        Ok(())
    }

    pub fn fail(&mut self, namespace: Namespace, key: &str, error: &KeyError) {
        // An outage fails every key: the counts tell how many, the log the first ones.
        if !self.examples.are_full(Class::Failed) {
            error!(key, error = %Chain(error), "a key could not be compared or repaired");
        }
        self.note(namespace, Class::Failed, 1);
        self.examples.add(Class::Failed, key);
    }

    /// Counts and logs an item that can't be exported any more.
    pub fn reject(&mut self, namespace: Namespace, item: &ItemKey, rejection: &Rejection) {
        let (index, key) = match item.kind() {
            ItemKind::IndexSettings(index) => (index.clone(), index.index_id()),
            ItemKind::QueryConfig(config) => (config.index.clone(), config.kv_key()),
            ItemKind::Skipped => return,
        };
        warn_rejected(&index, &key, rejection);
        self.done[namespace][Class::Rejected] += 1;
        self.examples.add(Class::Rejected, &key);
    }
}
