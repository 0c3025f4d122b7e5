//! Index ids that active aliases point at and that have neither an item nor a key.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::Reconciling;
use super::report::MAX_EXAMPLES;
use crate::export::table::read_items;
use crate::index::IndexRef;
use crate::item::ItemKey;
use crate::ports::Services;

impl<S: Services> Reconciling<'_, S> {
    /// Counts them. The listing has taken out those that have a key.
    pub(super) async fn find_dangling(&mut self) {
        let mut dangling: BTreeSet<String> = std::mem::take(&mut self.pointed_at);
        dangling.retain(|index_id| !self.settings.asks_for(index_id));
        if self.account.is_some() && !dangling.is_empty() {
            dangling = self.without_items(dangling).await;
        }
        self.report.settings.dangling = u64::try_from(dangling.len()).unwrap_or(u64::MAX);
        for index_id in &dangling {
            self.report.example("dangling", index_id);
        }
        if !dangling.is_empty() {
            let names: Vec<&str> = dangling.iter().take(MAX_EXAMPLES).map(String::as_str).collect();
            warn!(
                dangling = dangling.len(),
                examples = names.join(", "),
                "active aliases point at index ids that have neither an item nor a key"
            );
        }
    }

    /// Those that have no item of any account. A run of one account has not seen the others' items;
    /// where they can't be read either, nothing is known to dangle.
    async fn without_items(&mut self, mut index_ids: BTreeSet<String>) -> BTreeSet<String> {
        let candidates: BTreeMap<ItemKey, String> = index_ids
            .iter()
            .flat_map(|index_id| {
                IndexRef::all_with_id(index_id)
                    .map(|index| (ItemKey::of_index(&index), index_id.clone()))
            })
            .collect();
        match read_items(self.invocation, candidates.keys().cloned()).await {
            Ok(found) => {
                for index_id in found.keys().filter_map(|key| candidates.get(key)) {
                    index_ids.remove(index_id);
                }
                index_ids
            }
            Err(error) => {
                self.stop(format!("dangling aliases could not be looked up: {error}"));
                BTreeSet::new()
            }
        }
    }
}
