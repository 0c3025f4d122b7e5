//! How far a chain of runs has come, and the text that carries it from one run to the next. Pure.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enum_map::EnumMap;
use serde::{Deserialize, Serialize};

use super::Reconcile;
use super::report::Found;
use crate::kv::Digest;
use crate::kv::limits::{MAX_BULK_GET_KEYS, MAX_LIST_KEYS};
use crate::ports::Namespace;

/// What every `continue` starts with; changes with its fields.
const VERSION: &str = "6.";

/// Keys that one part lists at the most. With 70 bytes each they take a quarter of the memory that
/// the function has.
const PART_KEYS: usize = 1_000_000;

/// One in so many parts of the time left is for listing, at the least, and where it is not known yet how
/// long a pass takes.
const SHARE_TO_LIST: u32 = 8;

/// What writes and deletes take beside the passes, with time to spare.
const TIME_TO_MEND: Duration = Duration::from_secs(30);

/// Orphans that are settled in one go. Their values take some 10 MB, and each look is a pass over the
/// table whatever their number.
const CHUNK_KEYS: usize = 5_000;

/// Characters of the checksum that tells whether a `continue` is whole.
const CHECKSUM_CHARACTERS: usize = 16;

/// So many rewritten keys are no sign of a bad release.
const FEW_REWRITES: u64 = 100;

/// Where a part begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub namespace: Namespace,
    /// The last key before it; `None` at the beginning.
    pub after: Option<String>,
    /// A cursor of the listing that leads to the page of the next key.
    pub cursor: Option<String>,
}

impl Place {
    /// The beginning of the namespace after this one, if there is one.
    pub fn next_namespace(namespace: Namespace) -> Option<Self> {
        (namespace == Namespace::Settings)
            .then(|| Self { namespace: Namespace::QueryConfigs, ..Self::default() })
    }
}

/// What the chain has seen of one namespace, and let through its brakes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Listed keys of ours.
    pub ours: u64,
    pub desired: u64,
    pub deleted: u64,
    pub rewritten: u64,
}

/// What the brakes have let through of a namespace's part and is still to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Allowed {
    pub writes: bool,
    pub rewrites: u64,
    pub deletes: u64,
    /// So many more keys may be deleted that the repair itself leaves behind.
    pub more_deletes: u64,
}

impl Allowed {
    pub fn any(self) -> bool {
        self.writes || self.deletes > 0
    }
}

/// A part that was compared and counted, and is to be repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    pub allowed: EnumMap<Namespace, Allowed>,
    /// Where the part ends; `None` where it goes to the end of both namespaces.
    pub end: Option<Place>,
    /// Orphans that are looked at together at the most.
    pub chunk_keys: usize,
}

impl Repair {
    pub fn new(allowed: EnumMap<Namespace, Allowed>, end: Option<Place>) -> Self {
        Self { allowed, end, chunk_keys: CHUNK_KEYS }
    }

    /// Makes the chunks smaller, after a whole run that did not get through one. False where that
    /// can't be.
    pub fn divide_chunks(&mut self) -> bool {
        let can_be_smaller = self.chunk_keys > MAX_BULK_GET_KEYS;
        self.chunk_keys = (self.chunk_keys / 8).max(MAX_BULK_GET_KEYS);
        can_be_smaller
    }
}

/// Requests to Cloudflare that the next run has to count as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// How many there were in the last minutes.
    pub number: usize,
    /// When the run ended.
    pub until: SystemTime,
}

impl Requests {
    /// How long ago they were made, at least.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.until).unwrap_or_default()
    }
}

/// How far a chain of runs has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it goes on; `None` where it has come to its end.
    pub place: Option<Place>,
    /// What is still to be repaired there, if that was compared before.
    pub repair: Option<Repair>,
    /// Keys that the next part lists at the most.
    part_keys: usize,
    /// Whether a part was left out for good.
    pub left_out: bool,
    pub tallies: EnumMap<Namespace, Tally>,
    /// What the runs so far have found.
    pub found: Found,
    /// Deletes and rewrites that a repair was refused.
    pub refused: u64,
    /// What was asked of Cloudflare just before.
    pub requests: Option<Requests>,
    /// `None` before the first pass over the table.
    longest_pass: Option<Duration>,
    /// Fields of the request that are the same in all runs of a chain.
    apply: bool,
    preview: bool,
    system_account_id: Option<String>,
}

impl Progress {
    pub fn at_start(request: &Reconcile) -> Self {
        Self {
            place: Some(Place::default()),
            part_keys: PART_KEYS,
            apply: request.apply,
            preview: request.preview,
            system_account_id: request.system_account_id.clone(),
            ..Self::default()
        }
    }

    /// Whether it is a chain of runs with these fields.
    pub fn belongs_to(&self, request: &Reconcile) -> bool {
        self.apply == request.apply
            && self.preview == request.preview
            && self.system_account_id == request.system_account_id
    }

    /// How many keys the next part may list after these.
    pub fn room_after(&self, listed: usize) -> usize {
        self.part_keys.saturating_sub(listed)
    }

    /// The share of the desired keys that was rewritten, in percent: of the namespace that has more. Few
    /// keys are none.
    pub fn rewritten_percent(&self) -> u64 {
        let percent = |tally: &Tally| match tally.rewritten {
            0..=FEW_REWRITES => 0,
            // The alarm rings beyond 2 %: a part of one more counts.
            rewritten => rewritten.saturating_mul(100).div_ceil(tally.desired.max(1)),
        };
        self.tallies.values().map(percent).max().unwrap_or_default()
    }

    pub fn note_pass(&mut self, took: Duration) {
        self.longest_pass = self.longest_pass.max(Some(took));
    }

    /// For how long a part is listed, of the time that is left. The rest is for three passes over the
    /// table, which take as long for a small part as for a large one: the one that compares, and the
    /// looks before and after a delete.
    pub fn time_to_list(&self, left: Duration) -> Duration {
        let Some(pass) = self.longest_pass else { return left / SHARE_TO_LIST };
        left.saturating_sub(3 * pass + TIME_TO_MEND).clamp(left / SHARE_TO_LIST, left / 2)
    }

    /// Halves the next part, after one of so many keys that could not be compared in a whole run.
    /// False where a part can't be smaller.
    pub fn halve_parts(&mut self, keys: usize) -> bool {
        let keys = keys.min(self.part_keys);
        self.part_keys = (keys / 2).max(MAX_LIST_KEYS);
        keys > MAX_LIST_KEYS
    }

    pub fn to_text(&self) -> String {
        // Numbers and strings can always be written.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{VERSION}{}.{}", checksum(&json), URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads a text; `None` where it isn't one of ours, or was cut.
    pub fn parse(text: &str) -> Option<Self> {
        let (sum, json) = text.strip_prefix(VERSION)?.split_once('.')?;
        let json = URL_SAFE_NO_PAD.decode(json).ok()?;
        (sum == checksum(&json)).then(|| serde_json::from_slice(&json).ok())?
    }
}

fn checksum(bytes: &[u8]) -> String {
    let mut sum = Digest::of(bytes).to_string();
    sum.truncate(CHECKSUM_CHARACTERS);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn progress() -> Progress {
        let request = Reconcile { apply: true, ..Reconcile::default() };
        let mut progress = Progress::at_start(&request);
        progress.place = Some(Place { after: Some("a-i".to_owned()), ..Place::default() });
        let mut allowed = EnumMap::<Namespace, Allowed>::default();
        allowed[Namespace::Settings].deletes = 7;
        progress.repair = Some(Repair::new(allowed, Place::next_namespace(Namespace::Settings)));
        progress.tallies[Namespace::Settings].deleted = 3;
        progress
    }

    #[test]
    fn a_text_is_read_as_it_was_written() {
        assert_eq!(Progress::parse(&progress().to_text()), Some(progress()));
    }

    #[test]
    fn a_text_holds_names_of_any_characters_and_is_refused_wherever_it_is_cut() {
        for name in ["\"'\\", "a\nb\r\t\0", "ключ 🗝 ’", "*", "", &"\u{10ffff}".repeat(128)]
        {
            let mut progress = progress();
            let (after, cursor) = (Some(name.to_owned()), Some(name.to_owned()));
            progress.place = Some(Place { namespace: Namespace::Settings, after, cursor });
            let text = progress.to_text();
            assert_eq!(Progress::parse(&text), Some(progress));
            assert!((0..text.len()).all(|at| Progress::parse(&text[..at]).is_none()), "{name:?}");
            assert!((1..text.len()).all(|at| Progress::parse(&text[at..]).is_none()), "{name:?}");
        }
    }

    #[test]
    fn chunks_are_divided_down_to_one_read() {
        let mut repair = Repair::new(EnumMap::default(), None);
        let sizes: Vec<usize> =
            std::iter::from_fn(|| repair.divide_chunks().then_some(repair.chunk_keys)).collect();
        assert_eq!(sizes, [625, 100]);
    }

    #[test]
    fn a_chain_belongs_to_requests_with_the_same_fields() {
        let request = Reconcile { apply: true, ..Reconcile::default() };
        assert!(progress().belongs_to(&request));
        let of_account = Reconcile { system_account_id: Some("a".to_owned()), ..request.clone() };
        let preview = Reconcile { preview: true, ..Reconcile::default() };
        for other in [Reconcile::default(), of_account, preview] {
            assert!(!progress().belongs_to(&other), "{other:?}");
        }
    }

    #[test]
    fn what_is_listed_leaves_time_for_three_of_the_longest_pass_and_for_mending() {
        let seconds = Duration::from_secs;
        let mut progress = progress();
        let time_to_list = |progress: &Progress| progress.time_to_list(seconds(800)).as_secs();
        assert_eq!(time_to_list(&progress), 100, "how long a pass takes is open");
        for (pass, time) in [(99_500, 400), (150_000, 320), (120_000, 320), (480_000, 100)] {
            progress.note_pass(Duration::from_millis(pass));
            assert_eq!(time_to_list(&progress), time, "{pass}");
        }
    }

    #[test]
    fn parts_are_halved_down_to_a_page() {
        let mut progress = progress();
        assert!(progress.halve_parts(50_000));
        assert_eq!(progress.part_keys, 25_000);
        assert!(progress.halve_parts(1_500));
        assert_eq!(progress.part_keys, 1_000);
        assert!(!progress.halve_parts(1_000) && !progress.halve_parts(7));
        assert_eq!(progress.part_keys, 1_000);
    }

    #[test]
    fn requests_count_as_made_no_earlier_than_they_were() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(100_001);
        let requests = Requests { number: 1, until: at };
        assert_eq!(requests.age(at + Duration::from_secs(30)), Duration::from_secs(30));
        assert_eq!(requests.age(SystemTime::UNIX_EPOCH), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_text_that_was_cut_or_changed_is_refused(at in any::<prop::sample::Index>(), to in "[!-~]") {
            let text = progress().to_text();
            let at = at.index(text.len());
            prop_assert_eq!(Progress::parse(&text[..at]), None);
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assert!(changed == text || Progress::parse(&changed).is_none());
        }

        #[test]
        fn any_other_text_is_refused(text in ".*") {
            prop_assert_eq!(Progress::parse(&text), None);
        }
    }
}
