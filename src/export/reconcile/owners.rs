//! Whose the listed keys of the settings namespace are, and what protects those that no item asks
//! for. Pure.
//!
//! A key names its index in its metadata. So the listing and one pass over the table tell what
//! settling would make of it, without a look at its value. The shop id that a value names is not in
//! the metadata: a key with the same owner stands for it.
//!
//! | no item asks for the key, and | then it is |
//! | --- | --- |
//! | another item's write alias names it as a shop id | withheld |
//! | its owner has no item, and another item's active alias points at it | withheld |
//! | its owner's item can't be exported | kept |
//! | anything else | orphaned |

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher};

use super::rows::{Hash, Rows, State, hash};
use crate::index::IndexRef;
use crate::item::ItemKey;
use crate::item::alias_targets::AliasTarget;

/// Stands for an item: of the index that owns keys, or another that points at one.
pub type OwnerHash = u64;

/// What the table says of an owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum OwnerItem {
    #[default]
    Absent,
    Exportable,
    Rejected,
}

/// The owners of listed keys, and who points at them.
#[derive(Default)]
pub struct Owners {
    items: BTreeMap<OwnerHash, OwnerItem>,
    /// An owner, and an item whose active alias points at it.
    pointed_at: BTreeSet<(OwnerHash, OwnerHash)>,
    /// A key, and an item whose write alias names it as a shop id.
    named_keys: BTreeSet<(Hash, OwnerHash)>,
}

impl Owners {
    pub fn add(&mut self, owner: OwnerHash) {
        self.items.entry(owner).or_default();
    }

    pub fn have(&self, index: &IndexRef) -> bool {
        self.items.contains_key(&owner_hash(index))
    }

    /// Takes in an item, and whether it can be exported.
    pub fn note_item(&mut self, index: &IndexRef, exportable: bool) {
        if let Some(item) = self.items.get_mut(&owner_hash(index)) {
            *item = if exportable { OwnerItem::Exportable } else { OwnerItem::Rejected };
        }
    }

    /// Takes in what an active alias of the item `by` points at.
    pub fn note_target(&mut self, target: &AliasTarget, by: &ItemKey, rows: &Rows) {
        let by = item_hash(by);
        let (AliasTarget::IndexId(name) | AliasTarget::ShopId(name)) = target;
        let owners = IndexRef::all_with_id(name).map(|index| owner_hash(&index));
        let owners = owners.filter(|owner| self.items.contains_key(owner));
        self.pointed_at.extend(owners.map(|owner| (owner, by)));
        if let AliasTarget::ShopId(shop_id) = target
            && rows.holds(shop_id)
        {
            self.named_keys.insert((hash(shop_id), by));
        }
    }

    /// Says which orphaned keys are protected. Called once all items have been taken in.
    pub fn protect(&mut self, rows: &mut Rows) {
        // Whoever names a key of an owner as a shop id points at the owner.
        for (key, owner, _) in rows.orphaned() {
            let by = self.named_keys.range((key, 0)..=(key, u64::MAX));
            self.pointed_at.extend(by.map(|(_, by)| (owner, *by)));
        }
        for (key, owner, state) in rows.orphaned() {
            *state = self.state_of(key, owner);
        }
    }

    fn state_of(&self, key: Hash, owner: OwnerHash) -> State {
        let mut named = self.named_keys.range((key, 0)..=(key, u64::MAX));
        let mut pointers = self.pointed_at.range((owner, 0)..=(owner, u64::MAX));
        match self.items.get(&owner).copied().unwrap_or_default() {
            _ if named.any(|(_, by)| *by != owner) => State::Withheld,
            OwnerItem::Rejected => State::LeftAlone,
            OwnerItem::Absent if pointers.any(|(_, by)| *by != owner) => State::Withheld,
            OwnerItem::Absent | OwnerItem::Exportable => State::Orphaned,
        }
    }
}

pub fn owner_hash(index: &IndexRef) -> OwnerHash {
    item_hash(&ItemKey::of_index(index))
}

fn item_hash(key: &ItemKey) -> OwnerHash {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::report::Class;
    use super::super::rows::Claim;
    use super::*;
    use crate::kv::Metadata;

    fn index(name: &str) -> IndexRef {
        IndexRef::parse("a", name).unwrap()
    }

    /// Rows of the keys, each with its owner, and what the table says of them.
    struct Case {
        rows: Rows,
        owners: Owners,
    }

    impl Case {
        fn listing(keys: &[(&str, &str)]) -> Self {
            let (mut rows, mut owners) = (Rows::default(), Owners::default());
            for (key, owner) in keys {
                let metadata = Metadata { index: index(owner), environment: None, digest: None };
                let owner = rows.list(key, 0, Some(&metadata), "prod", None);
                owners.add(owner.unwrap());
            }
            Self { rows, owners }
        }

        fn pointed_at(mut self, target: AliasTarget, by: &str) -> Self {
            self.owners.note_target(&target, &ItemKey::of_index(&index(by)), &self.rows);
            self
        }

        fn item(mut self, name: &str, exportable: bool) -> Self {
            self.owners.note_item(&index(name), exportable);
            self
        }

        fn classes(mut self) -> Vec<Option<Class>> {
            self.owners.protect(&mut self.rows);
            let class_of = |key| {
                let classes = [Class::Orphaned, Class::Withheld];
                classes.into_iter().find(|class| self.rows.is(key, *class))
            };
            let is_listed = |key: &&str| self.rows.is(key, Class::Listed);
            ["a-gone", "s", "k1", "k2"].into_iter().filter(is_listed).map(class_of).collect()
        }
    }

    fn gone() -> Case {
        Case::listing(&[("a-gone", "gone"), ("s", "gone")])
    }

    fn index_id(id: &str) -> AliasTarget {
        AliasTarget::IndexId(id.to_owned())
    }

    fn shop_id(id: &str) -> AliasTarget {
        AliasTarget::ShopId(id.to_owned())
    }

    #[test]
    fn what_nothing_protects_is_orphaned() {
        assert_eq!(gone().classes(), [Some(Class::Orphaned); 2]);
        assert_eq!(
            gone().item("gone", true).classes(),
            [Some(Class::Orphaned); 2],
            "it has other keys"
        );
    }

    #[test]
    fn what_an_alias_points_at_by_any_name_is_withheld_whenever_it_is_met() {
        for target in [index_id("a-gone"), shop_id("a-gone"), shop_id("s")] {
            let classes = gone().pointed_at(target.clone(), "live").classes();
            assert_eq!(classes, [Some(Class::Withheld); 2], "{target:?}");
        }
        let moved = gone().pointed_at(index_id("a-gone"), "live").item("gone", true);
        assert_eq!(moved.classes(), [Some(Class::Orphaned); 2], "its item's keys serve the alias");
    }

    #[test]
    fn a_key_that_a_write_alias_names_is_withheld_even_if_its_owner_has_an_item() {
        let classes = gone().item("gone", true).pointed_at(shop_id("s"), "live").classes();
        assert_eq!(classes, [Some(Class::Orphaned), Some(Class::Withheld)]);
    }

    #[test]
    fn an_alias_to_itself_protects_nothing() {
        let classes = gone().item("gone", true).pointed_at(shop_id("s"), "gone").classes();
        assert_eq!(classes, [Some(Class::Orphaned); 2]);
    }

    #[test]
    fn what_a_rejected_item_owns_is_kept() {
        assert_eq!(gone().item("gone", false).classes(), [None; 2]);
    }

    #[test]
    fn a_name_that_can_mean_two_indexes_points_at_both() {
        let metadata = |account: &str, name: &str| Metadata {
            index: IndexRef::parse(account, name).unwrap(),
            environment: None,
            digest: None,
        };
        let mut case = Case::listing(&[]);
        for (key, metadata) in [("k1", metadata("a", "b-c")), ("k2", metadata("a-b", "c"))] {
            let owner = case.rows.list(key, 0, Some(&metadata), "prod", None);
            case.owners.add(owner.unwrap());
        }
        assert_eq!(
            case.pointed_at(index_id("a-b-c"), "live").classes(),
            [Some(Class::Withheld); 2]
        );
    }

    #[test]
    fn a_key_that_an_item_asks_for_has_no_class() {
        let mut case = gone();
        let item = ItemKey::of_index(&index("i"));
        case.rows.claim("s", &index("i"), &item, Claim::Rejected);
        assert_eq!(case.classes(), [Some(Class::Orphaned), None]);
    }
}
