//! What the table asks for, in a fixed 29 bytes a key: names and values are not held. Pure.

use crate::index::IndexRef;
use crate::kv::Digest;

/// Bytes of a hash that are kept. 96 bits: with ten million keys the odds that any two share them
/// are below one in 10^15.
const HASH_BYTES: usize = 12;

/// Rows lie in buckets by the first byte of the key's hash, so that no growth copies them all.
const BUCKETS: usize = 256;

type Short = [u8; HASH_BYTES];

/// What an item asks for under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A value with this digest.
    Value(Digest),
    /// The item can't be exported: what KV holds stays.
    Rejected,
    /// The API key is unavailable: whether KV is right is open.
    Unknown,
}

/// How KV compares with the table under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// As the table asks for.
    Right,
    /// Another value.
    Stale,
    /// The item that has the key can't be exported.
    Rejected,
    /// Whether it is right is open.
    Unknown,
    /// No item asks for the key.
    NotWanted,
}

const REJECTED: u8 = 1;
const UNKNOWN: u8 = 2;
const LISTED: u8 = 4;
const TO_WRITE: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    key: Short,
    digest: Short,
    owner: [u8; 4],
    flags: u8,
}

/// The keys of one namespace that the table asks for.
pub struct DesiredKeys {
    buckets: Vec<Vec<Row>>,
    owners: Vec<IndexRef>,
}

impl Default for DesiredKeys {
    fn default() -> Self {
        Self { buckets: vec![Vec::new(); BUCKETS], owners: Vec::new() }
    }
}

/// Distinct keys by what is known of them once the listing is through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unlisted {
    /// KV lacks them.
    pub missing: u64,
    /// KV lacks them, and whether it should is open.
    pub unknown: u64,
}

impl DesiredKeys {
    /// Takes in what `owner` asks for under `key`. Rows of one owner come one after another.
    pub fn add(&mut self, key: &str, owner: &IndexRef, wanted: Wanted) {
        if self.owners.last() != Some(owner) {
            self.owners.push(owner.clone());
        }
        let position = u32::try_from(self.owners.len() - 1).unwrap_or(u32::MAX);
        let (digest, flags) = match wanted {
            Wanted::Value(digest) => (short(&digest), 0),
            Wanted::Rejected => ([0; HASH_BYTES], REJECTED),
            Wanted::Unknown => ([0; HASH_BYTES], UNKNOWN),
        };
        let key = short(&Digest::of(key.as_bytes()));
        let row = Row { key, digest, owner: position.to_le_bytes(), flags };
        self.buckets[usize::from(key[0])].push(row);
    }

    /// Has to be called between adding and looking up.
    pub fn sort(&mut self) {
        let owners = &self.owners;
        for bucket in &mut self.buckets {
            bucket.sort_unstable_by(|a, b| {
                a.key.cmp(&b.key).then_with(|| owner(owners, a).cmp(&owner(owners, b)))
            });
        }
    }

    /// Distinct keys, those left out that only rejected items ask for.
    pub fn desired(&self) -> u64 {
        self.count_groups(|group| group.iter().any(|row| row.flags & REJECTED == 0))
    }

    /// Keys that several items ask for.
    pub fn conflicting(&self) -> u64 {
        self.count_groups(|group| group.len() > 1)
    }

    /// Whether several items ask for `key`.
    pub fn is_conflicting(&self, key: &str) -> bool {
        let (bucket, range) = self.find(key);
        self.buckets[bucket][range].len() > 1
    }

    /// Whether any item asks for `key`.
    pub fn asks_for(&self, key: &str) -> bool {
        let (_, range) = self.find(key);
        !range.is_empty()
    }

    /// Compares a listed key. Of several items that ask for it the one that KV names has it, else
    /// the first by account and index. What isn't right is marked to be written.
    pub fn compare(
        &mut self,
        key: &str,
        named: Option<&IndexRef>,
        digest: Option<Digest>,
    ) -> Compared {
        let (bucket, range) = self.find(key);
        let group = &mut self.buckets[bucket][range];
        let owners = &self.owners;
        let named = group.iter().position(|row| owner(owners, row) == named && named.is_some());
        for row in group.iter_mut() {
            row.flags |= LISTED;
        }
        let Some(row) = group.get_mut(named.unwrap_or(0)) else { return Compared::NotWanted };
        if row.flags & REJECTED != 0 {
            Compared::Rejected
        } else if row.flags & UNKNOWN != 0 {
            Compared::Unknown
        } else if digest.is_some_and(|digest| short(&digest) == row.digest) {
            Compared::Right
        } else {
            row.flags |= TO_WRITE;
            Compared::Stale
        }
    }

    /// Notes that KV has a key without comparing it.
    pub fn leave(&mut self, key: &str) {
        let (bucket, range) = self.find(key);
        for row in &mut self.buckets[bucket][range] {
            row.flags |= LISTED;
        }
    }

    /// Notes a key that another environment has written. With `rewrite` it is marked to be written;
    /// answers whether it is.
    pub fn take(&mut self, key: &str, rewrite: bool) -> bool {
        self.leave(key);
        let (bucket, range) = self.find(key);
        let Some(first) = self.buckets[bucket][range].first_mut() else { return false };
        let takes = rewrite && first.flags & (REJECTED | UNKNOWN) == 0;
        if takes {
            first.flags |= TO_WRITE;
        }
        takes
    }

    /// Marks what the listing did not show to be written, and counts it.
    pub fn close_listing(&mut self) -> Unlisted {
        let mut unlisted = Unlisted::default();
        for bucket in &mut self.buckets {
            for group in bucket.chunk_by_mut(|a, b| a.key == b.key) {
                let Some(first) = group.first_mut() else { continue };
                match first.flags & (LISTED | REJECTED | UNKNOWN) {
                    0 => {
                        first.flags |= TO_WRITE;
                        unlisted.missing += 1;
                    }
                    UNKNOWN => unlisted.unknown += 1,
                    _ => {}
                }
            }
        }
        unlisted
    }

    /// Whether `key` is to be written for `index`.
    pub fn is_to_write(&self, key: &str, index: &IndexRef) -> bool {
        let (bucket, range) = self.find(key);
        self.buckets[bucket][range]
            .iter()
            .any(|row| row.flags & TO_WRITE != 0 && owner(&self.owners, row) == Some(index))
    }

    /// Whether `key` is to be written because the listing did not show it.
    pub fn is_missing(&self, key: &str, index: &IndexRef) -> bool {
        let (bucket, range) = self.find(key);
        self.buckets[bucket][range].iter().any(|row| {
            row.flags & (TO_WRITE | LISTED) == TO_WRITE && owner(&self.owners, row) == Some(index)
        })
    }

    fn find(&self, key: &str) -> (usize, std::ops::Range<usize>) {
        let key = short(&Digest::of(key.as_bytes()));
        let number = usize::from(key[0]);
        let bucket = &self.buckets[number];
        let start = bucket.partition_point(|row| row.key < key);
        let end = start + bucket[start..].partition_point(|row| row.key == key);
        (number, start..end)
    }

    fn count_groups(&self, counts: impl Fn(&[Row]) -> bool) -> u64 {
        let groups = self.buckets.iter().flat_map(|bucket| bucket.chunk_by(|a, b| a.key == b.key));
        u64::try_from(groups.filter(|group| counts(group)).count()).unwrap_or(u64::MAX)
    }
}

fn owner<'a>(owners: &'a [IndexRef], row: &Row) -> Option<&'a IndexRef> {
    owners.get(usize::try_from(u32::from_le_bytes(row.owner)).ok()?)
}

fn short(digest: &Digest) -> Short {
    let mut short = [0; HASH_BYTES];
    short.copy_from_slice(&digest.as_bytes()[..HASH_BYTES]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str) -> IndexRef {
        IndexRef::parse("a", name).unwrap()
    }

    fn value(text: &str) -> Wanted {
        Wanted::Value(Digest::of(text.as_bytes()))
    }

    fn rows(entries: &[(&str, &str, Wanted)]) -> DesiredKeys {
        let mut rows = DesiredKeys::default();
        for (key, owner, wanted) in entries {
            rows.add(key, &index(owner), *wanted);
        }
        rows.sort();
        rows
    }

    #[test]
    fn a_row_is_29_bytes() {
        assert_eq!(size_of::<Row>(), 29);
    }

    #[test]
    fn listed_keys_are_right_stale_or_not_wanted_and_the_rest_is_missing() {
        let mut rows =
            rows(&[("k1", "i", value("v1")), ("k2", "i", value("v2")), ("k3", "i", value("v3"))]);
        let digest = |text: &str| Some(Digest::of(text.as_bytes()));
        let i = index("i");
        assert_eq!(rows.compare("k1", Some(&i), digest("v1")), Compared::Right);
        assert_eq!(rows.compare("k2", Some(&i), digest("old")), Compared::Stale);
        assert_eq!(rows.compare("k9", Some(&i), digest("v1")), Compared::NotWanted);
        assert_eq!(rows.close_listing(), Unlisted { missing: 1, unknown: 0 });
        let to_write: Vec<bool> =
            ["k1", "k2", "k3"].iter().map(|k| rows.is_to_write(k, &i)).collect();
        assert_eq!(to_write, [false, true, true]);
        assert!(rows.is_missing("k3", &i) && !rows.is_missing("k2", &i));
        assert_eq!((rows.desired(), rows.conflicting()), (3, 0));
    }

    #[test]
    fn a_key_without_our_metadata_that_an_item_asks_for_is_stale() {
        let mut rows = rows(&[("k", "i", value("v"))]);
        assert_eq!(rows.compare("k", None, None), Compared::Stale);
    }

    #[test]
    fn of_several_claimants_the_one_that_kv_names_has_the_key_else_the_first() {
        let entries =
            [("k", "b", value("vb")), ("k", "a", value("va")), ("k", "c", Wanted::Rejected)];
        let digest = |text: &str| Some(Digest::of(text.as_bytes()));
        let compare = |named: &str, held: &str| {
            rows(&entries).compare("k", Some(&index(named)), digest(held))
        };
        assert_eq!(compare("b", "vb"), Compared::Right);
        assert_eq!(compare("a", "vb"), Compared::Stale);
        assert_eq!(compare("z", "va"), Compared::Right);
        assert_eq!(compare("z", "vb"), Compared::Stale);
        assert_eq!(compare("c", "x"), Compared::Rejected);
        let mut missing = rows(&entries);
        assert_eq!(missing.close_listing().missing, 1);
        assert!(missing.is_to_write("k", &index("a")) && !missing.is_to_write("k", &index("b")));
        assert_eq!(missing.conflicting(), 1);
    }

    #[test]
    fn a_key_of_another_environment_is_taken_only_on_request() {
        let entries = [("k1", "a", value("v")), ("k2", "b", Wanted::Rejected)];
        let mut keys = rows(&entries);
        assert!(!keys.take("k1", false) && !keys.is_to_write("k1", &index("a")));
        assert!(keys.take("k1", true) && keys.is_to_write("k1", &index("a")));
        assert!(!keys.is_missing("k1", &index("a")), "it is a rewrite");
        assert!(!keys.take("k2", true) && !keys.take("k9", true));
    }

    #[test]
    fn rejected_and_unknown_keys_are_never_written() {
        let mut rows = rows(&[("k1", "a", Wanted::Rejected), ("k2", "b", Wanted::Unknown)]);
        assert_eq!(rows.close_listing(), Unlisted { missing: 0, unknown: 1 });
        assert!(!rows.is_to_write("k1", &index("a")) && !rows.is_to_write("k2", &index("b")));
        assert_eq!(rows.desired(), 1);
    }
}
