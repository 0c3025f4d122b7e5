//! Index ids that active aliases point at and that have neither an item nor a key.

use std::collections::{BTreeMap, BTreeSet};

use tracing::warn;

use super::part::Part;
use super::report::{KeyClass, MAX_EXAMPLES};
use super::run::Run;
use crate::export::table::read_items;
use crate::index::IndexRef;
use crate::item::ItemKey;
use crate::kv::check_key;
use crate::ports::{Namespace, Services};

impl<S: Services> Run<'_, S> {
    /// Counts, names and logs the dangling index ids of a part.
    pub(super) async fn find_dangling(&mut self, part: &Part) {
        let mut dangling = part.pointed_at.clone();
        dangling.retain(|index_id| !part.keys.holds(index_id));
        if self.account().is_some() && !dangling.is_empty() {
            dangling = self.without_items(dangling).await;
            dangling = self.without_keys(part, dangling).await;
        }
        self.report.settings.dangling += u64::try_from(dangling.len()).unwrap_or(u64::MAX);
        for index_id in &dangling {
            self.report.add_example(KeyClass::Dangling, index_id);
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

    /// Those that have no key. A run of one account has listed only what starts with its name.
    async fn without_keys(
        &mut self,
        part: &Part,
        mut index_ids: BTreeSet<String>,
    ) -> BTreeSet<String> {
        let unlisted =
            index_ids.iter().filter(|key| !part.matches_prefix(key) && check_key(key).is_ok());
        let (found, failures) =
            self.read_values(Namespace::Settings, unlisted.cloned().collect()).await;
        if let Some(error) = failures.values().next() {
            self.stop(format!("dangling aliases could not be looked up: {error}"));
        }
        index_ids.retain(|key| !found.contains_key(key) && !failures.contains_key(key));
        index_ids
    }
}
