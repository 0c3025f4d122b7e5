//! The keys of a part of a namespace: what KV lists there, and what items ask for. Pure.
//!
//! A key takes some 65 bytes, whatever the length of its name and value: hashes stand for them. Names
//! are held of the keys that may have to be written alone, and of those no more than
//! [`MAX_OPEN_BYTES`].

use std::collections::{BTreeMap, BTreeSet};

use super::listed::Listed;
use super::row::{Hash, KeyState, PartCounts, Row, ToWrite, Wanted, hash, index_hash, short};
use crate::index::IndexRef;
use crate::item::{ItemKey, ItemKind};
use crate::kv::Metadata;

/// Keys that KV lacks and that are remembered as such. Of the rest, several items that ask for one
/// key are not told from each other until KV has it.
const MAX_UNLISTED: usize = 500_000;

/// What the names of keys that may have to be written take, in bytes.
const MAX_OPEN_BYTES: usize = 16 * 1024 * 1024;

/// The keys of a part.
#[derive(Default)]
pub struct PartKeys {
    rows: BTreeMap<Hash, Row>,
    unlisted: usize,
    /// Missing keys beyond [`MAX_UNLISTED`].
    missing_beyond: u64,
    /// Keys that are not known to be right, each with the item that has it.
    open: BTreeMap<String, ItemKey>,
    open_bytes: usize,
    /// Whether keys had to be left out of `open`.
    overflowed: bool,
}

impl PartKeys {
    /// Takes in a listed key; `only_account` is that of a run of one account.
    pub fn list(
        &mut self,
        key: &str,
        page: u16,
        metadata: Option<&Metadata>,
        environment: &str,
        only_account: Option<&str>,
    ) {
        let row = Row::listed(page, metadata, environment, only_account);
        self.rows.insert(hash(key), row);
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether KV lists the key or an item asks for it.
    pub fn holds(&self, key: &str) -> bool {
        self.rows.contains_key(&hash(key))
    }

    /// Takes in that an item asks for a key; answers whether another one does too. Of several, the
    /// one that KV names has the key, else the first by account and index.
    pub fn claim(&mut self, key: &str, index: &IndexRef, item: &ItemKey) -> bool {
        let hash = hash(key);
        if !self.rows.contains_key(&hash) {
            if self.unlisted == MAX_UNLISTED {
                return false;
            }
            self.unlisted += 1;
        }
        let row = self.rows.entry(hash).or_insert_with(Row::unlisted);
        let is_first = row.verdict == KeyState::Unclaimed;
        let is_named = row.named == Some(index_hash(index));
        let comes_before = || {
            let holder = self.open.get(key).and_then(index_of);
            holder.is_some_and(|holder| *index < holder)
        };
        let has_it = is_first || is_named || (!row.named_claims && comes_before());
        row.conflicting |= !is_first;
        row.named_claims |= is_named;
        if has_it {
            row.verdict = KeyState::Unknown;
            self.hold(key, item);
        }
        !is_first
    }

    /// Compares a key with what an item that has claimed it asks for.
    pub fn judge(&mut self, key: &str, item: &ItemKey, wanted: Wanted) {
        let Some(row) = self.rows.get_mut(&hash(key)) else {
            self.missing_beyond += u64::from(matches!(wanted, Wanted::Value(_)));
            self.overflowed = true;
            return;
        };
        row.desired |= wanted != Wanted::Rejected;
        let holder = self.open.get(key);
        let has_it = holder == Some(item) || (holder.is_none() && row.verdict == KeyState::Unknown);
        if !has_it {
            return;
        }
        row.verdict = match wanted {
            Wanted::Value(digest) if row.digest == Some(short(&digest)) => KeyState::Right,
            Wanted::Value(_) => KeyState::Differs,
            Wanted::Rejected => KeyState::Rejected,
            Wanted::Unknown => KeyState::Unknown,
        };
        // The name stays held where KV names another index: an item that comes earlier may still take the key.
        if row.verdict == KeyState::Right && row.named_claims {
            self.release(key);
        }
    }

    /// Counts the keys.
    pub fn counts(&self) -> PartCounts {
        let missing = self.missing_beyond;
        let mut counts = PartCounts { desired: missing, missing, ..PartCounts::default() };
        for row in self.rows.values() {
            row.count(&mut counts);
        }
        counts
    }

    /// The keys of a class, each with the item that has it, as far as their names are held.
    pub fn to_write(&self, class: ToWrite) -> impl Iterator<Item = (&String, &ItemKey)> {
        self.open.iter().filter(move |(key, _)| {
            self.rows.get(&hash(key)).and_then(Row::to_write) == Some(class)
        })
    }

    /// The keys of which it is open whether they are right, as far as their names are held.
    pub fn unknown(&self) -> impl Iterator<Item = &String> {
        self.open.keys().filter(|key| {
            let row = self.rows.get(&hash(key));
            row.is_some_and(|row| row.verdict == KeyState::Unknown)
        })
    }

    /// Whether KV lists a key.
    pub fn is_listed(&self, key: &str) -> bool {
        self.rows.get(&hash(key)).is_some_and(|row| row.listed.is_some())
    }

    /// Whether the names of all keys are held that may have to be written.
    pub fn holds_all_names(&self) -> bool {
        !self.overflowed
    }

    /// What is to be written of a key that an item asks for, if that item has it; for a second pass
    /// over the items, where not all names are held.
    pub fn to_write_of(&self, key: &str, item: &ItemKey) -> Option<ToWrite> {
        if self.open.get(key).is_some_and(|holder| holder != item) {
            return None;
        }
        self.rows.get(&hash(key)).map_or(Some(ToWrite::Missing), Row::to_write)
    }

    /// The pages that list a key of ours that no item asks for.
    pub fn pages_with_unclaimed(&self) -> BTreeSet<u16> {
        self.rows.values().filter(|row| row.is_unclaimed()).map(|row| row.page).collect()
    }

    /// Whether a key is ours and no item asks for it.
    pub fn is_unclaimed(&self, key: &str) -> bool {
        self.rows.get(&hash(key)).is_some_and(Row::is_unclaimed)
    }

    /// Whether a key is not ours and no item asks for it.
    pub fn is_foreign(&self, key: &str) -> bool {
        let class = self.rows.get(&hash(key)).map(Row::class);
        class == Some(Some(Listed::Foreign))
    }

    fn hold(&mut self, key: &str, item: &ItemKey) {
        let bytes = bytes_of(key, item);
        if self.open_bytes + bytes > MAX_OPEN_BYTES {
            self.overflowed = true;
            return;
        }
        self.release(key);
        self.open_bytes += bytes;
        self.open.insert(key.to_owned(), item.clone());
    }

    /// Forgets the name of a key that has been dealt with.
    pub fn release(&mut self, key: &str) {
        if let Some(item) = self.open.remove(key) {
            self.open_bytes -= bytes_of(key, &item);
        }
    }
}

fn index_of(item: &ItemKey) -> Option<IndexRef> {
    match item.kind() {
        ItemKind::IndexSettings(index) => Some(index),
        ItemKind::QueryConfig(config) => Some(config.index),
        ItemKind::Skipped => None,
    }
}

fn bytes_of(key: &str, item: &ItemKey) -> usize {
    // Three strings of 24 bytes each, and the tree around them.
    const FRAME: usize = 100;
    FRAME + key.len() + item.pk.len() + item.sk.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Digest;

    fn index(name: &str) -> IndexRef {
        IndexRef::parse("a", name).unwrap()
    }

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn metadata(name: &str, held: &str, environment: &str) -> Metadata {
        Metadata {
            index: index(name),
            environment: Some(environment.into()),
            digest: Some(digest(held)),
        }
    }

    /// Keys that KV lists, each with the index that it names and the value that it holds.
    fn listed(rows: &[(&str, &str, &str)]) -> PartKeys {
        let mut keys = PartKeys::default();
        for (key, name, held) in rows {
            keys.list(key, 0, Some(&metadata(name, held, "prod")), "prod", None);
        }
        keys
    }

    fn asks(keys: &mut PartKeys, key: &str, name: &str, wanted: Wanted) {
        let item = ItemKey::of_index(&index(name));
        keys.claim(key, &index(name), &item);
        keys.judge(key, &item, wanted);
    }

    fn wants(keys: &mut PartKeys, key: &str, name: &str, value: &str) {
        asks(keys, key, name, Wanted::Value(digest(value)));
    }

    fn names(keys: &PartKeys, class: ToWrite) -> Vec<String> {
        keys.to_write(class).map(|(key, item)| format!("{key} {item}")).collect()
    }

    #[test]
    fn a_key_is_right_stale_missing_or_unclaimed() {
        let mut keys = listed(&[("k1", "i", "v1"), ("k2", "i", "old"), ("k4", "i", "v4")]);
        for (key, value) in [("k1", "v1"), ("k2", "v2"), ("k3", "v3")] {
            wants(&mut keys, key, "i", value);
        }
        let expected = PartCounts {
            desired: 3,
            listed: 3,
            ours: 3,
            missing: 1,
            stale: 1,
            unclaimed: 1,
            ..PartCounts::default()
        };
        assert_eq!(keys.counts(), expected);
        assert_eq!(names(&keys, ToWrite::Stale), ["k2 a/i"]);
        assert_eq!(names(&keys, ToWrite::Missing), ["k3 a/i"]);
        assert!(keys.is_unclaimed("k4") && !keys.is_unclaimed("k1") && keys.holds_all_names());
        assert_eq!(keys.pages_with_unclaimed(), BTreeSet::from([0]));
    }

    #[test]
    fn a_stranger_s_key_is_stale_if_it_is_asked_for_and_foreign_if_not() {
        let mut keys = PartKeys::default();
        for key in ["k1", "k2"] {
            keys.list(key, 0, None, "prod", None);
        }
        wants(&mut keys, "k1", "i", "v");
        assert_eq!((keys.counts().stale, keys.counts().foreign, keys.counts().ours), (1, 1, 0));
        assert!(keys.is_foreign("k2") && !keys.is_foreign("k1") && !keys.is_foreign("k9"));
    }

    #[test]
    fn of_several_claimants_the_one_that_kv_names_has_the_key_else_the_first() {
        for (named, held, expected) in [
            ("b", "vb", vec![]),
            ("a", "vb", vec!["k a/a"]),
            ("z", "vb", vec!["k a/a"]),
            ("c", "x", vec![]),
        ] {
            for order in [["a", "b", "c"], ["c", "b", "a"], ["b", "a", "c"]] {
                let mut keys = listed(&[("k", named, held)]);
                for name in order {
                    let wanted = match name {
                        "c" => Wanted::Rejected,
                        name => Wanted::Value(digest(&format!("v{name}"))),
                    };
                    asks(&mut keys, "k", name, wanted);
                }
                assert_eq!(names(&keys, ToWrite::Stale), expected, "{named} {order:?}");
                let counts = keys.counts();
                assert_eq!((counts.desired, counts.conflicting), (1, 1), "{named} {order:?}");
            }
        }
    }

    #[test]
    fn a_missing_key_is_the_first_claimant_s() {
        for order in [["a", "b"], ["b", "a"]] {
            let mut keys = PartKeys::default();
            for name in order {
                wants(&mut keys, "k", name, "v");
            }
            assert_eq!(names(&keys, ToWrite::Missing), ["k a/a"]);
            assert_eq!(keys.counts().conflicting, 1);
        }
    }

    #[test]
    fn a_key_whose_api_key_is_unavailable_is_neither_written_nor_unclaimed() {
        let mut keys = listed(&[("k1", "i", "v")]);
        for key in ["k1", "k2"] {
            asks(&mut keys, key, "i", Wanted::Unknown);
        }
        let counts = keys.counts();
        assert_eq!((counts.unknown, counts.desired, counts.missing), (2, 2, 0));
        assert_eq!(names(&keys, ToWrite::Missing).len() + names(&keys, ToWrite::Stale).len(), 0);
    }

    #[test]
    fn a_key_of_another_environment_conflicts_and_is_no_stale_one() {
        let mut keys = PartKeys::default();
        keys.list("k", 0, Some(&metadata("i", "v", "test")), "prod", None);
        wants(&mut keys, "k", "i", "v");
        let counts = keys.counts();
        assert_eq!((counts.taken, counts.conflicting, counts.stale, counts.ours), (1, 1, 0, 0));
        assert_eq!(names(&keys, ToWrite::Taken), ["k a/i"]);
    }

    #[test]
    fn names_are_bounded_in_bytes_and_a_second_pass_finds_the_rest() {
        let mut keys = PartKeys::default();
        let long = "q".repeat(1_000);
        let item =
            |number: usize| ItemKey { pk: "a".into(), sk: format!("INDEX#i#QUERY#{number}{long}") };
        for number in 0..20_000 {
            let key = format!("k{number}");
            keys.claim(&key, &index("i"), &item(number));
            keys.judge(&key, &item(number), Wanted::Value(digest("v")));
        }
        assert!(!keys.holds_all_names());
        assert!(keys.open_bytes <= MAX_OPEN_BYTES && keys.open.len() > 10_000);
        assert_eq!(keys.counts().missing, 20_000);
        assert_eq!(keys.to_write_of("k19999", &item(19_999)), Some(ToWrite::Missing));
        assert_eq!(keys.to_write_of("k0", &item(1)), None, "another item has it");
    }
}
