//! Names of keys and of the items that have them, in one piece of memory. Pure.

use crate::item::ItemKey;

/// What the names of one kind take at the most, in bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;

// Places in the text fit 32 bits.
const _: () = assert!(KINDS * MAX_BYTES <= u32::MAX as usize);

/// What a key is named for. Each kind has room of its own, so that what may never be written leaves
/// room for what will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// KV lacks it.
    Missing,
    /// KV holds another value, and the brakes may refuse to rewrite it.
    Stale,
    /// It stays as it is.
    Kept,
}

const KINDS: usize = 3;

/// Where a piece of the text begins and ends.
type Range = [u32; 2];

#[derive(Default)]
pub struct Names {
    text: String,
    /// A key, and the place of its item.
    keys: Vec<(Range, u32)>,
    /// Partition key and sort key.
    items: Vec<[Range; 2]>,
    /// What the names of each kind take, in bytes.
    bytes: [usize; KINDS],
    are_full: [bool; KINDS],
}

impl Names {
    /// Adds a key and its item; `None` where there is no room left for this kind.
    pub fn add(&mut self, kind: Kind, key: &str, item: &ItemKey) -> Option<u32> {
        // The keys of one item come one after the other.
        let previous = self.items.last();
        let is_new =
            !previous.is_some_and(|[pk, sk]| self.at(*pk) == item.pk && self.at(*sk) == item.sk);
        let item_bytes = item.pk.len() + item.sk.len() + size_of::<[Range; 2]>();
        let more = key.len() + size_of::<(Range, u32)>() + if is_new { item_bytes } else { 0 };
        self.are_full[kind as usize] |= self.bytes[kind as usize] + more > MAX_BYTES;
        if self.are_full(kind) {
            return None;
        }
        self.bytes[kind as usize] += more;
        if is_new {
            let ranges = [&item.pk, &item.sk].map(|text| self.push(text));
            self.items.push(ranges);
        }
        let key = self.push(key);
        self.keys.push((key, place(self.items.len() - 1)));
        Some(place(self.keys.len() - 1))
    }

    pub fn key(&self, name: u32) -> &str {
        self.keys.get(name as usize).map_or("", |(key, _)| self.at(*key))
    }

    pub fn item(&self, name: u32) -> Option<ItemKey> {
        let (_, item) = self.keys.get(name as usize)?;
        let [pk, sk] = self.items.get(*item as usize)?.map(|range| self.at(range).to_owned());
        Some(ItemKey { pk, sk })
    }

    /// Whether names of a kind had to be left out.
    pub fn are_full(&self, kind: Kind) -> bool {
        self.are_full[kind as usize]
    }

    fn push(&mut self, text: &str) -> Range {
        let begins = place(self.text.len());
        self.text.push_str(text);
        [begins, place(self.text.len())]
    }

    fn at(&self, [begins, ends]: Range) -> &str {
        self.text.get(begins as usize..ends as usize).unwrap_or_default()
    }
}

/// A place in memory of at most [`MAX_BYTES`] of each kind.
fn place(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
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
        for (place, name) in added.into_iter().enumerate() {
            let kind = ["shop", "id"][place % 2];
            assert_eq!(names.key(name), format!("{kind}-{}", place / 2));
            assert_eq!(names.item(name), Some(item(place / 2)));
        }
        assert_eq!(names.items.len(), 1_000, "an item's name is held once");
    }

    #[test]
    fn names_are_bounded_in_bytes_and_those_of_one_kind_leave_room_for_the_others() {
        let mut names = Names::default();
        let long = "k".repeat(512);
        for kind in [Kind::Kept, Kind::Stale, Kind::Missing] {
            assert!(!names.are_full(kind));
            let is_added = |number: &usize| names.add(kind, &long, &item(*number)).is_some();
            let added = (0..40_000).filter(is_added).count();
            assert!(names.are_full(kind) && names.bytes[kind as usize] <= MAX_BYTES);
            assert!((12_500..16_000).contains(&added), "{added}");
        }
    }
}
