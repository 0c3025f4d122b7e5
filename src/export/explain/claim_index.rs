//! Which items name which keys and indexes, remembered from a pass over the table.
//!
//! A key that KV lacks says nothing of its index. The pass has to find the item that asks for the key,
//! and by then it has gone by others that may ask for the index's other key or point at it. So it
//! remembers of each item a few bytes, by which those few can be read again.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::item::alias_targets::{AliasTarget, alias_targets};
use crate::item::keys::claimed_shop_id;
use crate::item::{Item, ItemKey, ItemKind};

/// What may be remembered: a quarter of the function's default memory, enough for more
/// than half a million items that have a shop id or an alias.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Items by the hashes of the names in their shop ids and active aliases.
pub struct ClaimIndex {
    /// The name whose items are remembered whatever happens.
    asked: u64,
    max_bytes: usize,
    /// The keys of the items, one after another.
    keys: String,
    /// Where an item's partition key ends in them, and its sort key.
    ends: Vec<(usize, usize)>,
    /// The hash of a name, and its item.
    rows: Vec<(u64, usize)>,
    forgot_some: bool,
}

impl ClaimIndex {
    /// An index of no items yet, for the question about `key`.
    pub fn about(key: &str) -> Self {
        Self::bounded(key, MAX_BYTES)
    }

    fn bounded(key: &str, max_bytes: usize) -> Self {
        let (keys, ends, rows) = (String::new(), Vec::new(), Vec::new());
        Self { asked: hash(key), max_bytes, keys, ends, rows, forgot_some: false }
    }

    /// Takes in an item. Nothing of a query config counts.
    pub fn add(&mut self, key: &ItemKey, item: &Item) {
        let kind = key.kind();
        if matches!(kind, ItemKind::QueryConfig(_)) {
            return;
        }
        let attributes = item.attributes();
        let targets = alias_targets(&key.pk, &attributes).into_iter().map(|target| match target {
            AliasTarget::IndexId(name) | AliasTarget::ShopId(name) => hash(&name),
        });
        let shop_id = match kind {
            ItemKind::IndexSettings(_) => claimed_shop_id(&attributes),
            ItemKind::QueryConfig(_) | ItemKind::Skipped => None,
        };
        let mut names: BTreeSet<u64> = targets.chain(shop_id.map(hash)).collect();
        if self.bytes() > self.max_bytes && !names.is_empty() {
            self.forgot_some = true;
            names.retain(|name| *name == self.asked);
        }
        if names.is_empty() {
            return;
        }
        let end_of_pk = self.keys.len() + key.pk.len();
        self.keys.extend([key.pk.as_str(), key.sk.as_str()]);
        let item = self.ends.len();
        self.ends.push((end_of_pk, self.keys.len()));
        self.rows.extend(names.into_iter().map(|name| (name, item)));
    }

    /// The items that name one of these, and perhaps a few others.
    pub fn items_that_name<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> BTreeSet<ItemKey> {
        let names: BTreeSet<u64> = names.into_iter().map(hash).collect();
        let rows = self.rows.iter().filter(|(name, _)| names.contains(name));
        rows.filter_map(|(_, item)| self.key_of(*item)).collect()
    }

    /// Whether items had to be left out.
    pub fn forgot_some(&self) -> bool {
        self.forgot_some
    }

    fn key_of(&self, item: usize) -> Option<ItemKey> {
        let begins = item.checked_sub(1).map_or(0, |before| self.ends[before].1);
        let (end_of_pk, end) = *self.ends.get(item)?;
        let part = |from, to| self.keys.get(from..to).map(str::to_owned);
        Some(ItemKey { pk: part(begins, end_of_pk)?, sk: part(end_of_pk, end)? })
    }

    fn bytes(&self) -> usize {
        let rows = self.rows.len() * size_of::<(u64, usize)>();
        self.keys.len() + self.ends.len() * size_of::<(usize, usize)>() + rows
    }
}

fn hash(name: impl AsRef<str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.as_ref().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::index_item;
    use serde_json::json;

    fn add(index: &mut ClaimIndex, name: &str, attributes: serde_json::Value) {
        let (key, item) = index_item(name, &attributes);
        index.add(&key, &item);
    }

    fn found(index: &ClaimIndex, name: &str) -> Vec<String> {
        index.items_that_name([name]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn items_are_found_by_their_shop_ids_and_by_what_they_point_at() {
        let mut index = ClaimIndex::about("s");
        add(&mut index, "one", json!({"shop_id": {"S": "s"}, "read_alias": {"S": "a-x"}}));
        add(&mut index, "two", json!({"read_alias": {"S": "a-x"}}));
        add(&mut index, "three", json!({}));
        assert_eq!(found(&index, "s"), ["a/one"]);
        assert_eq!(found(&index, "a-x"), ["a/one", "a/two"]);
        assert!(found(&index, "a-one").is_empty() && !index.forgot_some());
    }

    #[test]
    fn past_its_bound_it_remembers_who_names_what_was_asked_about() {
        let mut index = ClaimIndex::bounded("s", 1);
        add(&mut index, "first", json!({"shop_id": {"S": "t"}}));
        assert!(!index.forgot_some());
        add(&mut index, "plain", json!({}));
        assert!(!index.forgot_some(), "nothing of it is left out");
        add(&mut index, "late", json!({"shop_id": {"S": "s"}, "read_alias": {"S": "a-x"}}));
        assert_eq!(found(&index, "s"), ["a/late"]);
        assert!(found(&index, "a-x").is_empty() && index.forgot_some());
    }
}
