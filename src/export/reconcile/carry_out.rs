//! Carries out what the plan lets through: writes first, then deletes. Nothing is deleted on the
//! scan's or the listing's word: settling and the removal of query configs look for themselves.

use std::collections::BTreeSet;

use tracing::error;

use super::orphans::{Interrupted, remove_left_behind, remove_orphans};
use super::part::{Lister, Part};
use super::progress::{Allowed, Place};
use super::report::{Class, Examples, Findings};
use super::rows::{ToWrite, number};
use super::scan::warn_rejected;
use super::write::write;
use crate::error_chain::Chain;
use crate::export::api_keys::ApiKeys;
use crate::export::error::KeyError;
use crate::item::{ItemKey, ItemKind, Rejection};
use crate::ports::{Namespace, Services};

/// What a repair changed in one namespace, as the brakes count it: what failed may have been done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changed {
    pub deleted: u64,
    pub rewritten: u64,
}

impl Changed {
    /// Whether it is anything.
    pub fn any(&self) -> bool {
        self.deleted + self.rewritten > 0
    }
}

/// What became of a repair.
#[derive(Default)]
pub struct Outcome {
    /// Written, deleted, failed and rejected.
    pub done: Findings,
    pub examples: Examples,
    /// Of the settings and of the query configs.
    pub changed: [Changed; 2],
    /// What was written for items that no longer ask for it, and is more than the brake lets through.
    pub refused_deletes: u64,
    /// What is still to be done, and where; `None` where the part is repaired.
    pub remains: Option<(Place, [Allowed; 2])>,
    /// Whether anything was tried.
    pub got_on: bool,
}

/// Repairs a part, as far as the brakes allow it.
pub async fn carry_out<S: Services>(
    lister: &Lister<'_, S>,
    part: &Part,
    mut allowed: [Allowed; 2],
    takes_keys: bool,
    api_keys: &ApiKeys,
) -> Outcome {
    let mut outcome = Outcome::default();
    for section in &part.sections {
        let allows = allowed_of(&mut allowed, section.namespace);
        let classes = classes_to_write(*allows, takes_keys);
        let (step, left_behind) = write(lister, section, classes, api_keys, &mut outcome).await;
        let keys = number(left_behind.values().map(BTreeSet::len).sum());
        if keys <= allows.more_deletes {
            allows.more_deletes -= keys;
            remove_left_behind(lister, left_behind, api_keys, &mut outcome).await;
        } else {
            outcome.refused_deletes += keys;
        }
        if step == Step::Interrupted {
            let begins_at = part.sections.first().unwrap_or(section).begins_at();
            outcome.remains = Some((begins_at, allowed));
            return outcome;
        }
        (allows.writes, allows.rewrites) = (false, false);
    }
    let mut interrupted = None;
    for section in &part.sections {
        let allows = allowed_of(&mut allowed, section.namespace);
        let removed =
            remove_orphans(lister, part, section, allows.deletes, api_keys, &mut outcome).await;
        allows.deletes = 0;
        if let Err(Interrupted { at, left }) = removed {
            allows.deletes = left;
            interrupted.get_or_insert(at);
        }
    }
    outcome.remains = interrupted.map(|at| (at, allowed));
    outcome
}

/// What is allowed in a namespace.
pub fn allowed_of(allowed: &mut [Allowed; 2], namespace: Namespace) -> &mut Allowed {
    match namespace {
        Namespace::Settings => &mut allowed[0],
        Namespace::QueryConfigs => &mut allowed[1],
    }
}

fn classes_to_write(allowed: Allowed, takes_keys: bool) -> &'static [ToWrite] {
    match (allowed.writes, allowed.rewrites, takes_keys) {
        (false, ..) => &[],
        (true, false, _) => &[ToWrite::Missing],
        (true, true, false) => &[ToWrite::Missing, ToWrite::Stale],
        (true, true, true) => &[ToWrite::Missing, ToWrite::Stale, ToWrite::Taken],
    }
}

/// Whether a step of a repair came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Finished,
    /// Time, requests or memory ended: another run goes on.
    Interrupted,
}

impl Outcome {
    /// What was changed in a namespace.
    pub fn changed_in(&self, namespace: Namespace) -> Changed {
        match namespace {
            Namespace::Settings => self.changed[0],
            Namespace::QueryConfigs => self.changed[1],
        }
    }

    fn changed(&mut self, namespace: Namespace) -> &mut Changed {
        match namespace {
            Namespace::Settings => &mut self.changed[0],
            Namespace::QueryConfigs => &mut self.changed[1],
        }
    }

    /// Counts keys that were written, of which KV had listed so many.
    pub fn note_written(&mut self, namespace: Namespace, written: usize, rewritten: usize) {
        self.got_on |= written > 0;
        self.done.of(namespace)[Class::Written] += number(written);
        self.changed(namespace).rewritten += number(rewritten);
    }

    /// Counts keys that were deleted.
    pub fn note_deleted(&mut self, namespace: Namespace, deleted: u64) {
        self.got_on |= deleted > 0;
        self.done.of(namespace)[Class::Deleted] += deleted;
        self.changed(namespace).deleted += deleted;
    }

    /// Counts keys of which it is unknown whether a delete was carried out.
    pub fn note_delete_failed(&mut self, namespace: Namespace, key: &str, error: &KeyError) {
        self.changed(namespace).deleted += 1;
        self.fail(namespace, key, error);
    }

    /// Counts a key that failed.
    pub fn fail(&mut self, namespace: Namespace, key: &str, error: &KeyError) {
        // An outage fails every key: the counts tell how many, the log the first ones.
        if !self.examples.are_full(Class::Failed) {
            error!(key, error = %Chain(error), "a key could not be compared or repaired");
        }
        self.got_on = true;
        self.done.of(namespace)[Class::Failed] += 1;
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
        self.done.of(namespace)[Class::Rejected] += 1;
        self.examples.add(Class::Rejected, &key);
    }
}
