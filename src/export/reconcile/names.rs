//! Names of keys, and the items that have them. Pure.

use std::rc::Rc;

use enum_map::{Enum, EnumMap};

use crate::item::ItemKey;

/// What the names of one kind take at the most, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What an allocation takes beside what it holds, in bytes.
const ALLOCATION: usize = 16;

/// What a key is named for. Each kind has room of its own, so that what may never be written leaves
/// room for what will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub enum Kind {
    /// KV lacks it.
    Missing,
    /// KV holds another value, and the brakes may refuse to rewrite it.
    Stale,
    /// It stays as it is.
    Kept,
}

#[derive(Debug)]
pub struct Name {
    pub key: Box<str>,
    pub item: Rc<ItemKey>,
}

#[derive(Default)]
pub struct Names {
    names: Vec<Name>,
    /// What the names of each kind take.
    bytes: EnumMap<Kind, usize>,
    are_full: EnumMap<Kind, bool>,
}

impl Names {
    /// Adds a key and its item; answers with the place of the name, `None` where there is no room left
    /// for this kind.
    pub fn add(&mut self, kind: Kind, key: &str, item: &ItemKey) -> Option<u32> {
        // The keys of one item come one after the other.
        let previous = self.names.last().map(|name| &name.item);
        let held = previous.filter(|previous| ***previous == *item).cloned();
        let item_bytes = size_of::<ItemKey>() + item.pk.len() + item.sk.len() + 3 * ALLOCATION;
        let more = size_of::<Name>()
            + key.len()
            + ALLOCATION
            + if held.is_some() { 0 } else { item_bytes };
        self.are_full[kind] |= self.bytes[kind] + more > MAX_BYTES;
        if self.are_full(kind) {
            return None;
        }
        self.bytes[kind] += more;
        let item = held.unwrap_or_else(|| Rc::new(item.clone()));
        self.names.push(Name { key: key.into(), item });
        u32::try_from(self.names.len() - 1).ok()
    }

    pub fn get(&self, place: u32) -> Option<&Name> {
        self.names.get(place as usize)
    }

    /// Whether names of a kind had to be left out.
    pub fn are_full(&self, kind: Kind) -> bool {
        self.are_full[kind]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(number: usize) -> ItemKey {
        ItemKey { pk: "a".into(), sk: format!("INDEX#{number}") }
    }

    #[test]
    fn a_name_gives_its_key_and_its_item() {
        let mut names = Names::default();
        let added: Vec<u32> = (0..1_000)
            .flat_map(|number| [(number, "shop"), (number, "id")])
            .map(|(number, kind)| {
                names.add(Kind::Missing, &format!("{kind}-{number}"), &item(number)).unwrap()
            })
            .collect();
        for (place, name) in added.into_iter().map(|name| names.get(name).unwrap()).enumerate() {
            let kind = ["shop", "id"][place % 2];
            assert_eq!(*name.key, format!("{kind}-{}", place / 2));
            assert_eq!(*name.item, item(place / 2));
            assert_eq!(Rc::strong_count(&name.item), 2, "an item's name is held once");
        }
    }

    #[test]
    fn names_are_bounded_in_bytes_and_those_of_one_kind_leave_room_for_the_others() {
        let mut names = Names::default();
        let long = "k".repeat(512);
        for kind in [Kind::Kept, Kind::Stale, Kind::Missing] {
            assert!(!names.are_full(kind));
            let is_added = |number: &usize| names.add(kind, &long, &item(*number)).is_some();
            let added = (0..40_000).filter(is_added).count();
            assert!(names.are_full(kind) && names.bytes[kind] <= MAX_BYTES);
            assert!((22_000..26_000).contains(&added), "{added}");
        }
    }
}
