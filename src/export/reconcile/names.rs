//! Names of keys and of the items that have them, in one piece of memory. Pure.

use crate::item::ItemKey;

/// What the names of a part take at the most, in bytes.
const MAX_BYTES: usize = 16 * 1024 * 1024;

// Places in the text fit 32 bits.
const _: () = assert!(MAX_BYTES <= u32::MAX as usize);

/// Where a piece of the text begins and ends.
type Range = [u32; 2];

/// Names of keys, each with the item that has it.
#[derive(Default)]
pub struct Names {
    text: String,
    /// A key, and the place of its item.
    keys: Vec<(Range, u32)>,
    /// Partition key and sort key.
    items: Vec<[Range; 2]>,
    full: bool,
}

impl Names {
    /// Adds a key and its item; `None` where there is no room left.
    pub fn add(&mut self, key: &str, item: &ItemKey) -> Option<u32> {
        let more = key.len() + item.pk.len() + item.sk.len();
        self.full |= self.bytes() + more > MAX_BYTES;
        if self.full {
            return None;
        }
        // The keys of one item come one after the other.
        let previous = self.items.last();
        if !previous.is_some_and(|[pk, sk]| self.at(*pk) == item.pk && self.at(*sk) == item.sk) {
            let ranges = [&item.pk, &item.sk].map(|text| self.push(text));
            self.items.push(ranges);
        }
        let key = self.push(key);
        self.keys.push((key, place(self.items.len() - 1)));
        Some(place(self.keys.len() - 1))
    }

    /// The key of a name.
    pub fn key(&self, name: u32) -> &str {
        self.keys.get(name as usize).map_or("", |(key, _)| self.at(*key))
    }

    /// The item of a name.
    pub fn item(&self, name: u32) -> Option<ItemKey> {
        let (_, item) = self.keys.get(name as usize)?;
        let [pk, sk] = self.items.get(*item as usize)?.map(|range| self.at(range).to_owned());
        Some(ItemKey { pk, sk })
    }

    /// Whether names had to be left out.
    pub fn are_full(&self) -> bool {
        self.full
    }

    fn bytes(&self) -> usize {
        self.text.len()
            + self.keys.len() * size_of::<(Range, u32)>()
            + self.items.len() * size_of::<[Range; 2]>()
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

/// A place in memory of at most [`MAX_BYTES`].
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
            .map(|(number, kind)| names.add(&format!("{kind}-{number}"), &item(number)).unwrap())
            .collect();
        for (place, name) in added.into_iter().enumerate() {
            let kind = ["shop", "id"][place % 2];
            assert_eq!(names.key(name), format!("{kind}-{}", place / 2));
            assert_eq!(names.item(name), Some(item(place / 2)));
        }
        assert_eq!(names.items.len(), 1_000, "an item's name is held once");
    }

    #[test]
    fn names_are_bounded_in_bytes() {
        let mut names = Names::default();
        let long = "k".repeat(512);
        let added = (0..40_000).filter(|number| names.add(&long, &item(*number)).is_some()).count();
        assert!(names.are_full() && names.bytes() <= MAX_BYTES);
        assert!((25_000..32_000).contains(&added), "{added}");
    }
}
