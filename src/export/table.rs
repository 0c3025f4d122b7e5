//! Reads of the settings table: items, and passes over all of it.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::invocation::Invocation;
use super::retry::with_retries;
use crate::item::{Item, ItemKey};
use crate::ports::{
    ScanColumns, Service, ServiceError, Services, SettingsTable, TablePage, TablePart,
};

/// Returns the items that the table has, read by `until`. Keys that the table can't hold are not asked for.
pub async fn read_items<S: Services>(
    invocation: &Invocation<'_, S>,
    until: Instant,
    keys: impl IntoIterator<Item = ItemKey>,
) -> Result<BTreeMap<ItemKey, Item>, ServiceError> {
    let keys: Vec<ItemKey> = keys.into_iter().filter(ItemKey::fits_the_table).collect();
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    invocation.call(Service::Table, until, invocation.services.table().get(&keys)).await
}

pub async fn read_page<S: Services>(
    invocation: &Invocation<'_, S>,
    part: TablePart<'_>,
    after: Option<&ItemKey>,
) -> Result<TablePage, ServiceError> {
    let page = || invocation.services.table().page(part, after);
    with_retries(invocation, Service::Table, invocation.budget.deadline, page).await
}

/// Makes a pass over the table. A pass that fails has no result. While a page is visited no request is under way,
/// so a visit may take its time.
pub async fn pass<S: Services>(
    invocation: &Invocation<'_, S>,
    columns: ScanColumns,
    mut visit: impl AsyncFnMut(Vec<(ItemKey, Item)>),
) -> Result<(), ServiceError> {
    // These are read at the same time. A page holds 1 MB.
    let segments = match columns {
        // A batch, or a person, waits for it.
        ScanColumns::Claims => 8,
        // A reconcile leaves the table's other users their capacity.
        ScanColumns::All => 2,
    };
    let mut open: Vec<(u32, Option<ItemKey>)> =
        (0..segments).map(|number| (number, None)).collect();
    while !open.is_empty() {
        let pages = open.iter().map(|(segment, after)| {
            let part = TablePart::Segment { columns, segment: *segment, segments };
            read_page(invocation, part, after.as_ref())
        });
        let pages = try_join_all(pages).await?;
        let mut left = Vec::new();
        for ((segment, _), page) in open.into_iter().zip(pages) {
            if page.last_read.is_some() {
                left.push((segment, page.last_read));
            }
            visit(page.items).await;
        }
        open = left;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{Fakes, TableChange, index, index_item};
    use crate::kv::Source;
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn a_throttled_page_is_asked_for_four_times_and_one_that_fails_once() {
        let throttles = |times| (0..times).map(|_| TableChange::Throttles).collect::<Vec<_>>();
        for (name, changes, is_read, reads) in [
            ("throttled three times", throttles(3), true, 4),
            ("throttled four times", throttles(4), false, 4),
            ("failed", vec![TableChange::Fails], false, 1),
        ] {
            let fakes = Fakes::new();
            fakes.table.put(index_item("i", &json!({})));
            fakes.table.changes.then(changes);
            let invocation = fakes.invocation(Source::ReExport);
            let page = read_page(&invocation, TablePart::Account(&index("i").account), None).await;
            assert_eq!(page.is_ok_and(|page| page.items.len() == 1), is_read, "{name}");
            assert_eq!(invocation.stats().table_requests, reads, "{name}");
        }
    }
}
