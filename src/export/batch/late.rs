//! Late records: what the table says now decides, because an old image may not be the newest.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::outcome::RecordOutcome;
use super::plan::{BatchPlan, Deciding, PlannedItem, Task};
use crate::error_chain::Chain;
use crate::export::api_keys::Exportable;
use crate::export::invocation::Invocation;
use crate::export::table::read_items_until;
use crate::item::{Item, ItemKey, QueryConfig, Rejection};
use crate::ports::Services;

/// How long a batch waits for the table before the images decide: the records in time wait with the
/// late ones.
const TIME_FOR_LATE_ITEMS: Duration = Duration::from_secs(10);

/// Reads the items whose deciding records are late, and lets the table decide for them. Of an item that
/// it no longer has, nothing is exported; where the item can't be exported, or the table can't be read,
/// the image decides.
pub async fn let_the_table_decide<S: Services>(
    invocation: &Invocation<'_, S>,
    BatchPlan { settings, query_configs, outcomes }: &mut BatchPlan,
) {
    let mut keys = open_keys(settings, ItemKey::of_index);
    keys.extend(open_keys(query_configs, ItemKey::of_query_config));
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
                error = %Chain(&error),
                "late records are exported from their images: the table can't be read"
            );
            return;
        }
    };
    for PlannedItem { name, deciding, task, .. } in settings {
        let decode = |item: &Item| Exportable::decode(name, item, invocation.config);
        let found = items.get(&ItemKey::of_index(name)).map(decode);
        decide(deciding, task, found, outcomes);
    }
    for PlannedItem { name, deciding, task, .. } in query_configs {
        let decode = |item: &Item| QueryConfig::decode(name, &item.attributes());
        let found = items.get(&ItemKey::of_query_config(name)).map(decode);
        decide(deciding, task, found, outcomes);
    }
}

fn open_keys<N, T>(items: &[PlannedItem<N, T>], key: impl Fn(&N) -> ItemKey) -> Vec<ItemKey> {
    let open = items.iter().filter(|item| is_open(&item.deciding, &item.task));
    open.map(|item| key(&item.name)).collect()
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
    deciding.record.changed_at = None;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::receipt::Record;

    fn late() -> Deciding {
        let record = Record { changed_at: Some("t".into()), sequence_number: None };
        Deciding { position: 0, created_at: Some(7.0), late: true, record }
    }

    fn decided(
        found: Option<Result<&'static str, Rejection>>,
    ) -> (Task<&'static str>, Deciding, RecordOutcome) {
        let mut deciding = late();
        let mut task = Task::Export("image");
        let mut outcomes = [RecordOutcome::Exported];
        decide(&mut deciding, &mut task, found, &mut outcomes);
        let [outcome] = outcomes;
        (task, deciding, outcome)
    }

    #[test]
    fn the_tables_version_is_exported() {
        let (task, deciding, outcome) = decided(Some(Ok("table")));
        assert_eq!((task, deciding.record.changed_at), (Task::Export("table"), None));
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
        assert_eq!((task, deciding.record), (Task::Export("image"), late().record));
        assert_eq!(outcome, RecordOutcome::Exported);
    }

    #[test]
    fn records_in_time_and_removals_are_not_read() {
        let in_time = Deciding { late: false, ..late() };
        assert!(is_open(&late(), &Task::Export(())));
        assert!(!is_open(&in_time, &Task::Export(())));
        assert!(!is_open(&late(), &Task::<()>::Remove));
    }
}
