//! Late records: what the table says now decides, because an old image may not be the newest.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::outcome::RecordOutcome;
use super::plan::{BatchPlan, Deciding, Task};
use crate::export::api_keys::Exportable;
use crate::export::invocation::Invocation;
use crate::export::table::read_items_until;
use crate::item::{ItemKey, QueryConfig, Rejection};
use crate::ports::Services;

/// How long a batch waits for the table before the images decide: the records in time wait with the
/// late ones.
const TIME_FOR_LATE_ITEMS: Duration = Duration::from_secs(10);

/// Reads the items whose deciding records are late, and lets the table decide for them. Of an item that
/// it no longer has, nothing is exported; where the item can't be exported, or the table can't be read,
/// the image decides.
pub async fn let_the_table_decide<S: Services>(
    invocation: &Invocation<'_, S>,
    plan: &mut BatchPlan,
) {
    let settings = plan.settings.iter().filter(|item| is_open(&item.deciding, &item.task));
    let configs = plan.query_configs.iter().filter(|item| is_open(&item.deciding, &item.task));
    let keys: Vec<ItemKey> = settings
        .map(|item| ItemKey::of_index(&item.index))
        .chain(configs.map(|item| ItemKey::of_query_config(&item.query_config)))
        .collect();
    if keys.is_empty() {
        return;
    }
    let records = keys.len();
    let until = invocation.deadline.min(Instant::now() + TIME_FOR_LATE_ITEMS);
    let items = match read_items_until(invocation, until, keys).await {
        Ok(items) => items,
        Err(error) => {
            warn!(
                records,
                error = %error,
                "late records are exported from their images: the table can't be read"
            );
            return;
        }
    };
    let BatchPlan { settings, query_configs, outcomes } = plan;
    for item in settings {
        let found = items.get(&ItemKey::of_index(&item.index));
        let decoded = found.map(|found| Exportable::decode(&item.index, found, invocation.config));
        decide(&mut item.deciding, &mut item.task, decoded, outcomes);
    }
    for item in query_configs {
        let found = items.get(&ItemKey::of_query_config(&item.query_config));
        let decoded =
            found.map(|found| QueryConfig::decode(&item.query_config, &found.attributes()));
        decide(&mut item.deciding, &mut item.task, decoded, outcomes);
    }
}

/// Whether the table is to decide: of a removal it is read in any case.
fn is_open<T>(deciding: &Deciding, task: &Task<T>) -> bool {
    deciding.late && matches!(task, Task::Export(_))
}

fn decide<T>(
    deciding: &mut Deciding,
    task: &mut Task<T>,
    found: Option<Result<T, Rejection>>,
    outcomes: &mut [RecordOutcome],
) {
    if !is_open(deciding, task) {
        return;
    }
    *task = match found {
        None => {
            outcomes[deciding.position] = RecordOutcome::Superseded;
            Task::Nothing
        }
        Some(Ok(item)) => Task::Export(item),
        // The image decides.
        Some(Err(_)) => return,
    };
    deciding.changed_at = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(
        found: Option<Result<&'static str, Rejection>>,
    ) -> (Task<&'static str>, Deciding, RecordOutcome) {
        let mut deciding =
            Deciding { position: 0, sequence_number: None, late: true, changed_at: Some(7.0) };
        let mut task = Task::Export("image");
        let mut outcomes = [RecordOutcome::Exported];
        decide(&mut deciding, &mut task, found, &mut outcomes);
        let [outcome] = outcomes;
        (task, deciding, outcome)
    }

    #[test]
    fn the_tables_version_is_exported() {
        let (task, deciding, outcome) = decided(Some(Ok("table")));
        assert_eq!((task, deciding.changed_at), (Task::Export("table"), None));
        assert_eq!(outcome, RecordOutcome::Exported);
    }

    #[test]
    fn an_item_that_is_gone_asks_for_nothing_and_supersedes_its_record() {
        let (task, _, outcome) = decided(None);
        assert_eq!((task, outcome), (Task::Nothing, RecordOutcome::Superseded));
    }

    #[test]
    fn an_item_that_cannot_be_exported_leaves_the_decision_to_the_image() {
        let (task, deciding, outcome) = decided(Some(Err(Rejection::new("x", "is broken"))));
        assert_eq!((task, deciding.changed_at), (Task::Export("image"), Some(7.0)));
        assert_eq!(outcome, RecordOutcome::Exported);
    }

    #[test]
    fn records_in_time_and_removals_are_not_read() {
        let deciding =
            |late| Deciding { position: 0, sequence_number: None, late, changed_at: None };
        assert!(is_open(&deciding(true), &Task::Export(())));
        assert!(!is_open(&deciding(false), &Task::Export(())));
        assert!(!is_open(&deciding(true), &Task::<()>::Remove));
    }
}
