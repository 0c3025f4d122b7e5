//! Holds a flood of removals. A removal is somebody's decision on one item; a script that empties the
//! table is not, and its orphans are reconcile's, whose brakes ask a person.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tracing::error;

use super::outcome::RecordOutcome;
use super::plan::{BatchPlan, SettingsItem, Task};
use crate::index::IndexRef;

const WINDOW: Duration = Duration::from_secs(600);

/// How many of the held items a log line names.
const NAMED: usize = 20;

/// The removals of index items that this process has carried out in the last ten minutes, with the
/// time of each.
#[derive(Debug, Default)]
pub struct Removals(RefCell<BTreeMap<IndexRef, SystemTime>>);

impl Removals {
    /// Takes the removals out of the plan where they and the earlier ones are more than `up_to`.
    pub fn hold_flood(&self, plan: &mut BatchPlan, up_to: usize, now: SystemTime) {
        let mut carried_out = self.0.borrow_mut();
        // A clock that was set back makes a removal count for longer.
        carried_out.retain(|_, at| now.duration_since(*at).unwrap_or_default() < WINDOW);
        let removals = || plan.settings.iter().filter(|item| is_removal(item));
        let new = removals().filter(|item| !carried_out.contains_key(&item.name)).count();
        if removals().next().is_none() || carried_out.len() + new <= up_to {
            return;
        }
        let held: Vec<SettingsItem> =
            plan.settings.extract_if(.., |item| is_removal(item)).collect();
        let names: Vec<String> =
            held.iter().take(NAMED).map(|item| item.name.to_string()).collect();
        error!(
            removals = held.len(),
            up_to,
            items = names.join(", "),
            "removals held: more indexes were removed within ten minutes than a process carries out"
        );
        for item in held {
            plan.outcomes[item.deciding.position] = RecordOutcome::Held;
        }
    }

    /// Counts a removal that was carried out. An item counts once, however often it is delivered.
    pub fn count(&self, index: &IndexRef, now: SystemTime) {
        self.0.borrow_mut().entry(index.clone()).or_insert(now);
    }
}

/// Whether keys go with the item: its late record may come before its REMOVE.
pub fn is_removal(item: &SettingsItem) -> bool {
    match item.task {
        Task::Remove => true,
        Task::Nothing => item.shop_ids_left_behind().next().is_some(),
        Task::Export(_) => false,
    }
}
