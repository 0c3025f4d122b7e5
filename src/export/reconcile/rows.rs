//! The keys of a part in one namespace: what KV lists, and what items ask for. Pure.
//!
//! A key takes some 70 bytes, whatever the length of its name and value: hashes stand for them. Names
//! are held of the keys that may have to be written, and of those no more than [`Names`] takes.
//!
//! | KV lists the key | an item asks for it | then it is |
//! | --- | --- | --- |
//! | no | and can be exported | missing |
//! | by another environment | and can be exported | conflicting, and differs |
//! | with another digest, or without our metadata | and can be exported | stale |
//! | with this digest | | right |
//! | | and its API key is temporarily unavailable | failed |
//! | | and can't be exported, or is of another account than the run's | left alone |
//! | as ours | no | orphaned, unless [`super::owners`] protects it |
//! | as ours, of another account than the run's | no | left alone |
//! | as a stranger's or another environment's | no | foreign |

use std::collections::{BTreeMap, BTreeSet};

use super::names::{Kind, Name, Names};
use super::owners::{OwnerHash, owner_hash};
use super::report::{Class, Counts};
use crate::index::IndexRef;
use crate::item::ItemKey;
use crate::kv::{Digest, Metadata};

/// Bytes of a hash that are kept. 96 bits: with ten million keys the odds that any two share them
/// are below one in 10^15.
const HASH_BYTES: usize = 12;

/// Keys that KV lacks and that are remembered as such. The rest of them wait until these are written.
const MAX_UNLISTED: usize = 500_000;

/// The page of keys that were read one by one.
pub const READ_ALONE: u32 = 0;

/// The beginning of a SHA-256.
pub type Hash = [u8; HASH_BYTES];

/// What an item that asks for a key would have under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Value(Digest),
    /// The item can't be exported: what KV holds stays.
    Rejected,
    /// Its API key is temporarily unavailable.
    Unknown,
    /// Whatever it is: the run is limited to one account, and the item is another one's.
    OfAnotherAccount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Ours,
    /// Ours, for another account than the run's.
    OursElsewhere,
    AnotherEnvironment,
    /// Nobody's exporter, or one that wrote no metadata.
    Stranger,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// No item asks for it, and it is not this run's to remove.
    #[default]
    Unclaimed,
    Orphaned,
    Withheld,
    Right,
    Differs,
    /// It can't be compared, or led to a key that can't be read.
    Unknown,
    /// It could not be read: it is neither compared nor written.
    Unreadable,
    LeftAlone,
}

/// What is known of one key.
#[derive(Default)]
struct Row {
    /// Of the value in KV, by metadata of ours.
    digest: Option<Hash>,
    /// Of the index that metadata of ours names.
    owner: Option<OwnerHash>,
    /// The name of the key and of the item that has it, where they are held.
    name: Option<u32>,
    /// The page of the listing.
    page: u32,
    /// `None` where KV lacks it.
    writer: Option<Writer>,
    state: State,
    /// Whether several items ask for it.
    conflicting: bool,
    /// Whether the item that KV names asks for it.
    owner_claims: bool,
    /// Whether an item asks for it that may be exported.
    desired: bool,
}

#[derive(Default)]
pub struct Rows {
    rows: BTreeMap<Hash, Row>,
    names: Names,
    pub listed: usize,
    /// Missing keys beyond [`MAX_UNLISTED`].
    missing_beyond: u64,
}

impl Rows {
    /// Takes in a key that KV holds, with its metadata; answers whose it is, if it is ours.
    /// `only_account` is that of a run of one account.
    pub fn list(
        &mut self,
        key: &str,
        page: u32,
        metadata: Option<&Metadata>,
        environment: &str,
        only_account: Option<&str>,
    ) -> Option<OwnerHash> {
        let ours = metadata.filter(|metadata| metadata.is_of(environment));
        let writer = match (ours, metadata) {
            (Some(ours), _) if only_account.is_none_or(|only| ours.index.account == only) => {
                Writer::Ours
            }
            (Some(_), _) => Writer::OursElsewhere,
            (None, Some(_)) => Writer::AnotherEnvironment,
            (None, None) => Writer::Stranger,
        };
        let owner = ours.map(|ours| owner_hash(&ours.index));
        let digest = ours.and_then(|ours| ours.digest).map(|digest| short(&digest));
        let state = if writer == Writer::Ours { State::Orphaned } else { State::Unclaimed };
        let row = Row { digest, owner, page, writer: Some(writer), state, ..Row::default() };
        self.listed += usize::from(self.rows.insert(hash(key), row).is_none());
        owner
    }

    /// Takes in a key that could not be read, or that leads to one: it is left as it is, and failed. If
    /// KV does not list it, nothing is known of it.
    pub fn note_unreadable(&mut self, key: &str) {
        let row = self.rows.entry(hash(key)).or_default();
        row.state = if row.writer.is_some() { State::Unknown } else { State::Unreadable };
    }

    /// Whether KV holds the key or an item asks for it.
    pub fn holds(&self, key: &str) -> bool {
        self.rows.contains_key(&hash(key))
    }

    /// Takes in that an item of the run asks for a key; answers whether another one does too. Of
    /// several, the one that KV names has it, else the first by account and index.
    pub fn claim(&mut self, key: &str, index: &IndexRef, item: &ItemKey, claim: Claim) -> bool {
        let hash = hash(key);
        if !self.rows.contains_key(&hash) {
            if claim == Claim::OfAnotherAccount {
                return false;
            }
            if self.rows.len() - self.listed >= MAX_UNLISTED {
                self.missing_beyond += u64::from(matches!(claim, Claim::Value(_)));
                return false;
            }
        }
        let row = self.rows.entry(hash).or_default();
        let is_readable = row.state != State::Unreadable;
        let is_first = !row.is_claimed() || !(is_readable || row.desired);
        let is_owner = row.owner == Some(owner_hash(index));
        let comes_before = || {
            let current = row.name.and_then(|name| self.names.get(name));
            current.is_some_and(|current| *item < *current.item)
        };
        let has_it = is_first || is_owner || (!row.owner_claims && comes_before());
        row.conflicting |= !is_first;
        row.owner_claims |= is_owner;
        row.desired |= matches!(claim, Claim::Value(_) | Claim::Unknown);
        if has_it && is_readable {
            row.state = match claim {
                Claim::Value(digest) if row.digest == Some(short(&digest)) => State::Right,
                Claim::Value(_) => State::Differs,
                Claim::Unknown => State::Unknown,
                Claim::Rejected | Claim::OfAnotherAccount => State::LeftAlone,
            };
            let kind = match (row.state, row.writer) {
                (State::Differs, None) => Kind::Missing,
                (State::Differs, Some(_)) => Kind::Stale,
                _ => Kind::Kept,
            };
            // What is right for its owner stays so, whoever else asks.
            let is_final = row.state == State::Right && is_owner;
            row.name = if is_final { None } else { self.names.add(kind, key, item) };
        }
        !is_first
    }

    /// Whether a key could not be read.
    pub fn is_unreadable(&self, key: &str) -> bool {
        self.rows.get(&hash(key)).is_some_and(|row| row.state == State::Unreadable)
    }

    /// The orphaned keys, each with its owner and what becomes of it.
    pub fn orphaned(&mut self) -> impl Iterator<Item = (Hash, OwnerHash, &mut State)> {
        let rows = self.rows.iter_mut().filter(|(_, row)| row.state == State::Orphaned);
        rows.filter_map(|(key, row)| Some((*key, row.owner?, &mut row.state)))
    }

    /// The pages of the listing on which keys of a class are.
    pub fn pages_with(&self, class: Class) -> BTreeSet<u32> {
        self.rows.values().filter(|row| row.is(class)).map(|row| row.page).collect()
    }

    pub fn is(&self, key: &str, class: Class) -> bool {
        self.rows.get(&hash(key)).is_some_and(|row| row.is(class))
    }

    /// Whether other accounts' items can change what a run of one account makes of the keys.
    pub fn depend_on_other_accounts(&self) -> bool {
        self.rows.values().any(|row| {
            let is_elsewhere = row.writer == Some(Writer::OursElsewhere);
            row.is_claimed() == is_elsewhere
        })
    }

    /// How many keys there are of each class that the rows tell by themselves.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        counts[Class::Desired] += self.missing_beyond;
        counts[Class::Missing] += self.missing_beyond;
        for row in self.rows.values() {
            counts.iter_mut().for_each(|(class, count)| *count += u64::from(row.is(class)));
        }
        counts
    }

    /// Listed keys of ours, of which the brake on deletes takes its share.
    pub fn ours(&self) -> u64 {
        self.rows.values().filter(|row| row.writer == Some(Writer::Ours)).count() as u64
    }

    /// Keys that a repair would rewrite; those that another environment has written are only taken
    /// where `takes_keys`.
    pub fn rewrites(&self, takes_keys: bool) -> u64 {
        let is_rewritten = |row: &&Row| match row.writer {
            None => false,
            Some(Writer::AnotherEnvironment) => takes_keys && row.state == State::Differs,
            Some(_) => row.state == State::Differs,
        };
        self.rows.values().filter(is_rewritten).count() as u64
    }

    /// The names of keys to write, in the order in which their items were read. Of the conflicting
    /// ones, those are written that are stale or of another environment.
    pub fn to_write(&self, classes: &[Class]) -> Vec<&Name> {
        let rows = self.rows.values().filter(|row| row.is_to_write(classes));
        let mut places: Vec<u32> = rows.filter_map(|row| row.name).collect();
        places.sort_unstable();
        places.into_iter().filter_map(|place| self.names.get(place)).collect()
    }

    /// Whether the names of all keys of these classes are held.
    pub fn holds_all_names(&self, classes: &[Class]) -> bool {
        classes.iter().all(|class| match class {
            Class::Missing => self.missing_beyond == 0 && !self.names.are_full(Kind::Missing),
            _ => !self.names.are_full(Kind::Stale),
        })
    }

    /// Names of keys of a class, as far as they are held.
    pub fn names_of(&self, class: Class) -> impl Iterator<Item = &str> {
        let rows = self.rows.values().filter(move |row| row.is(class));
        rows.filter_map(|row| self.names.get(row.name?)).map(|name| &*name.key)
    }
}

impl Row {
    fn is_to_write(&self, classes: &[Class]) -> bool {
        self.state == State::Differs && classes.iter().any(|class| self.is(*class))
    }

    /// Whether an item asks for it, as far as items have been taken in.
    fn is_claimed(&self) -> bool {
        !matches!(self.state, State::Unclaimed | State::Orphaned)
    }

    fn is(&self, class: Class) -> bool {
        let of_another_environment = self.writer == Some(Writer::AnotherEnvironment);
        match class {
            Class::Desired => self.desired,
            Class::Listed => self.writer.is_some(),
            Class::Missing => self.state == State::Differs && self.writer.is_none(),
            Class::Stale => {
                self.state == State::Differs && self.writer.is_some() && !of_another_environment
            }
            Class::Orphaned => self.state == State::Orphaned,
            Class::Withheld => self.state == State::Withheld,
            Class::Foreign => {
                let is_theirs = of_another_environment || self.writer == Some(Writer::Stranger);
                is_theirs && self.state == State::Unclaimed
            }
            Class::Conflicting => {
                self.conflicting || (of_another_environment && self.state != State::Unclaimed)
            }
            Class::Failed => {
                matches!(self.state, State::Unknown | State::Unreadable) && !of_another_environment
            }
            Class::Rejected | Class::Dangling | Class::Written | Class::Deleted => false,
        }
    }
}

pub fn hash(key: &str) -> Hash {
    short(&Digest::of(key.as_bytes()))
}

fn short(digest: &Digest) -> Hash {
    std::array::from_fn(|place| digest.as_bytes()[place])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(name: &str) -> IndexRef {
        IndexRef::parse("a", name).unwrap()
    }

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn metadata(name: &str, held: &str, environment: &str) -> Metadata {
        let environment = Some(environment.into());
        Metadata { index: index(name), environment, digest: Some(digest(held)) }
    }

    /// Keys that KV lists, each with the index that it names and the value that it holds.
    fn listed(rows: &[(&str, &str, &str)]) -> Rows {
        let mut keys = Rows::default();
        for (key, name, held) in rows {
            keys.list(key, 0, Some(&metadata(name, held, "prod")), "prod", None);
        }
        keys
    }

    fn claim(keys: &mut Rows, key: &str, name: &str, claim: Claim) {
        keys.claim(key, &index(name), &ItemKey::of_index(&index(name)), claim);
    }

    fn asks(keys: &mut Rows, key: &str, name: &str, value: &str) {
        claim(keys, key, name, Claim::Value(digest(value)));
    }

    fn to_write(keys: &Rows, class: Class) -> Vec<String> {
        let names = keys.to_write(&[class]);
        names.into_iter().map(|name| format!("{} {}", name.key, name.item)).collect()
    }

    fn counted(keys: &Rows) -> Vec<(Class, u64)> {
        let counts = keys.counts();
        counts.into_iter().filter(|(_, n)| *n > 0).collect()
    }

    #[test]
    fn a_key_is_right_stale_missing_or_unclaimed() {
        let mut keys = listed(&[("k1", "i", "v1"), ("k2", "i", "old"), ("k4", "i", "v4")]);
        for (key, value) in [("k1", "v1"), ("k2", "v2"), ("k3", "v3")] {
            asks(&mut keys, key, "i", value);
        }
        let expected = [
            (Class::Desired, 3),
            (Class::Listed, 3),
            (Class::Missing, 1),
            (Class::Stale, 1),
            (Class::Orphaned, 1),
        ];
        assert_eq!(counted(&keys), expected);
        assert_eq!(keys.ours(), 3);
        assert_eq!(to_write(&keys, Class::Stale), ["k2 a/i"]);
        assert_eq!(to_write(&keys, Class::Missing), ["k3 a/i"]);
        assert!(keys.is("k4", Class::Orphaned) && !keys.is("k1", Class::Orphaned));
    }

    #[test]
    fn a_strangers_key_is_stale_if_it_is_asked_for_and_foreign_if_not() {
        let mut keys = Rows::default();
        for key in ["k1", "k2"] {
            keys.list(key, 0, None, "prod", None);
        }
        asks(&mut keys, "k1", "i", "v");
        let expected =
            [(Class::Desired, 1), (Class::Listed, 2), (Class::Stale, 1), (Class::Foreign, 1)];
        assert_eq!(counted(&keys), expected);
        assert_eq!(keys.ours(), 0);
        let is_foreign = |key| keys.is(key, Class::Foreign);
        assert!(is_foreign("k2") && !is_foreign("k1") && !is_foreign("k9"));
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
                    match name {
                        "c" => claim(&mut keys, "k", name, Claim::Rejected),
                        name => asks(&mut keys, "k", name, &format!("v{name}")),
                    }
                }
                assert_eq!(to_write(&keys, Class::Stale), expected, "{named} {order:?}");
                let counts = keys.counts();
                let counted = (counts[Class::Desired], counts[Class::Conflicting]);
                assert_eq!(counted, (1, 1), "{named} {order:?}");
            }
        }
    }

    #[test]
    fn a_missing_key_is_the_first_claimants() {
        for order in [["a", "b"], ["b", "a"]] {
            let mut keys = Rows::default();
            for name in order {
                asks(&mut keys, "k", name, "v");
            }
            assert_eq!(to_write(&keys, Class::Missing), ["k a/a"]);
            assert_eq!(keys.counts()[Class::Conflicting], 1);
        }
    }

    #[test]
    fn a_key_whose_api_key_is_unavailable_or_that_cannot_be_read_failed() {
        let mut keys = listed(&[("k1", "i", "v")]);
        keys.note_unreadable("k3");
        for key in ["k1", "k2"] {
            claim(&mut keys, key, "i", Claim::Unknown);
        }
        asks(&mut keys, "k3", "i", "v");
        let expected = [(Class::Desired, 3), (Class::Listed, 1), (Class::Failed, 3)];
        assert_eq!(counted(&keys), expected);
        assert!(keys.to_write(&[Class::Missing, Class::Stale]).is_empty());
    }

    #[test]
    fn a_key_of_another_environment_conflicts_and_is_no_stale_one() {
        let mut keys = Rows::default();
        keys.list("k", 0, Some(&metadata("i", "v", "test")), "prod", None);
        asks(&mut keys, "k", "i", "v");
        let expected = [(Class::Desired, 1), (Class::Listed, 1), (Class::Conflicting, 1)];
        assert_eq!(counted(&keys), expected);
        assert_eq!((keys.rewrites(true), keys.rewrites(false), keys.ours()), (1, 0, 0));
        assert_eq!(to_write(&keys, Class::Conflicting), ["k a/i"]);
    }

    #[test]
    fn a_run_of_one_account_leaves_another_accounts_key_to_it_while_it_asks_for_it() {
        let other = IndexRef::parse("b", "j").unwrap();
        let named_other = Metadata { index: other.clone(), environment: None, digest: None };
        let rows = || {
            let mut keys = Rows::default();
            keys.list("k", 0, Some(&named_other), "prod", Some("a"));
            keys
        };
        let mut keys = rows();
        assert!(!keys.depend_on_other_accounts());
        assert_eq!(counted(&keys), [(Class::Listed, 1)]);
        asks(&mut keys, "k", "i", "v");
        assert!(keys.depend_on_other_accounts());
        let stale = [(Class::Desired, 1), (Class::Listed, 1), (Class::Stale, 1)];
        assert_eq!(counted(&keys), stale);
        keys.claim("k", &other, &ItemKey::of_index(&other), Claim::OfAnotherAccount);
        let left = [(Class::Desired, 1), (Class::Listed, 1), (Class::Conflicting, 1)];
        assert_eq!(counted(&keys), left);
    }

    #[test]
    fn missing_keys_without_a_name_are_counted_and_wait() {
        let mut keys = Rows::default();
        for number in 0..MAX_UNLISTED + 2 {
            asks(&mut keys, &number.to_string(), "i", "v");
        }
        assert_eq!(keys.counts()[Class::Missing], MAX_UNLISTED as u64 + 2);
        assert!(!keys.holds_all_names(&[Class::Missing]));
    }
}
