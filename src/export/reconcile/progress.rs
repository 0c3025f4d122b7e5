//! How far a chain of runs has come, and the text that carries it from one run to the next. Pure.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::report::Counts;
use super::{NAMESPACES, Reconcile};
use crate::kv::Digest;
use crate::ports::Namespace;

/// What every `continue` starts with; changes with its fields.
const VERSION: &str = "2.";

/// One in so many parts of the time left is for listing, at the least, and where it is not known yet how
/// long a pass takes.
const SHARE_TO_LIST: u32 = 8;

/// What writes and deletes take beside the passes, with time to spare.
const TIME_TO_MEND: Duration = Duration::from_secs(30);

/// Characters of the checksum that tells whether a `continue` is whole.
const CHECKSUM_CHARACTERS: usize = 16;

/// Where a part begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// In which namespace.
    pub namespace: Namespace,
    /// The last key before it; `None` at the beginning.
    pub after: Option<String>,
    /// The listing's cursor after that key.
    pub cursor: Option<String>,
}

/// What the chain has seen and done of one namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Listed keys of ours.
    pub ours: u64,
    /// Keys that the table asks for.
    pub desired: u64,
    /// Keys that were deleted.
    pub deleted: u64,
    /// Stale keys that were rewritten.
    pub rewritten: u64,
}

/// Requests to Cloudflare that the next run has to count as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// How many there were in the last minutes.
    pub number: usize,
    /// When the run ended, in whole seconds since the epoch, rounded up.
    pub until: u64,
}

/// How far a chain of runs has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it goes on.
    pub place: Place,
    /// Of the settings and of the query configs.
    tallies: [Tally; 2],
    /// What the runs so far have found, by namespace.
    pub found: [Counts; 2],
    /// Deletes and rewrites that were refused to them.
    pub refused: u64,
    /// What was asked of Cloudflare just before.
    pub requests: Option<Requests>,
    /// What the longest pass over the table took, in whole seconds, rounded up; `None` before the
    /// first one.
    pub pass_seconds: Option<u64>,
    apply: bool,
    system_account_id: Option<String>,
}

impl Place {
    /// The beginning of a namespace.
    pub fn beginning_of(namespace: Namespace) -> Self {
        Self { namespace, after: None, cursor: None }
    }
}

impl Requests {
    /// So many that were made until now.
    pub fn until(number: usize, now: SystemTime) -> Self {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { number, until: whole_seconds(now) }
    }

    /// How long ago they were made, at least.
    pub fn age(&self, now: SystemTime) -> Duration {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_secs(self.until))
    }
}

impl Progress {
    /// That of a first run.
    pub fn at_start(request: &Reconcile) -> Self {
        Self {
            place: Place::beginning_of(NAMESPACES[0]),
            tallies: [Tally::default(); 2],
            found: [Counts::default(); 2],
            refused: 0,
            requests: None,
            pass_seconds: None,
            apply: request.apply,
            system_account_id: request.system_account_id.clone(),
        }
    }

    /// What was seen and done of a namespace.
    pub fn tally(&mut self, namespace: Namespace) -> &mut Tally {
        match namespace {
            Namespace::Settings => &mut self.tallies[0],
            Namespace::QueryConfigs => &mut self.tallies[1],
        }
    }

    /// Counts the keys of a part no more, because it is compared once again. What a repair has deleted
    /// and rewritten stays counted.
    pub fn forget_part(&mut self, namespace: Namespace, before: Tally) {
        let is_audit = !self.apply;
        let tally = self.tally(namespace);
        if is_audit {
            (tally.deleted, tally.rewritten) = (before.deleted, before.rewritten);
        }
        (tally.ours, tally.desired) = (before.ours, before.desired);
    }

    /// Notes what a pass over the table took.
    pub fn note_pass(&mut self, took: Duration) {
        self.pass_seconds = self.pass_seconds.max(Some(whole_seconds(took)));
    }

    /// For how long a part of a namespace is listed, of the time that is left. The rest is for the
    /// pass over the table, which takes as long for a small part as for a large one, and for mending:
    /// of the settings that is about another pass, because what is orphaned is looked at before and
    /// after.
    pub fn time_to_list(&self, namespace: Namespace, left: Duration) -> Duration {
        let Some(pass) = self.pass_seconds.map(Duration::from_secs) else {
            return left / SHARE_TO_LIST;
        };
        let after_it = match namespace {
            Namespace::Settings => 2 * pass,
            Namespace::QueryConfigs => pass + pass / 4,
        };
        left.saturating_sub(after_it + TIME_TO_MEND).clamp(left / SHARE_TO_LIST, left / 2)
    }

    /// The text that the next run takes.
    pub fn to_text(&self) -> String {
        // Numbers and strings can always be written.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{VERSION}{}.{}", checksum(&json), URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads a text; `None` where it isn't one of ours, or was cut, or belongs to a run with another
    /// `apply` or account.
    pub fn parse(text: &str, apply: bool, system_account_id: Option<&str>) -> Option<Self> {
        let (sum, json) = text.strip_prefix(VERSION)?.split_once('.')?;
        let json = URL_SAFE_NO_PAD.decode(json).ok()?;
        let progress: Self = serde_json::from_slice(&json).ok()?;
        let same_run =
            progress.apply == apply && progress.system_account_id.as_deref() == system_account_id;
        (sum == checksum(&json) && same_run).then_some(progress)
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
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
        progress.place = Place {
            namespace: Namespace::QueryConfigs,
            after: Some("qcfg-größe-\"x\"".into()),
            cursor: Some("c/+=".into()),
        };
        *progress.tally(Namespace::Settings) =
            Tally { ours: 1, desired: 2, deleted: 3, rewritten: u64::MAX };
        progress.requests = Some(Requests { number: 600, until: 1_700_000_000 });
        progress.pass_seconds = Some(7);
        progress.found[1] = Counts { missing: 4, ..Counts::default() };
        progress.refused = 5;
        progress
    }

    #[test]
    fn a_text_carries_everything_and_fits_a_command_line() {
        let text = progress().to_text();
        assert_eq!(Progress::parse(&text, true, None), Some(progress()));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
    }

    #[test]
    fn a_part_that_is_compared_again_counts_once_and_its_deletes_stay_counted() {
        let mut progress = progress();
        let before = *progress.tally(Namespace::Settings);
        *progress.tally(Namespace::Settings) =
            Tally { ours: 11, desired: 12, deleted: 13, rewritten: 14 };
        progress.forget_part(Namespace::Settings, before);
        let expected = Tally { ours: 1, desired: 2, deleted: 13, rewritten: 14 };
        assert_eq!(*progress.tally(Namespace::Settings), expected);
    }

    #[test]
    fn an_audit_that_compares_a_part_again_forgets_all_that_it_has_counted_of_it() {
        let mut progress = Progress::at_start(&Reconcile::default());
        let before = Tally { ours: 1, desired: 2, deleted: 3, rewritten: 4 };
        *progress.tally(Namespace::Settings) =
            Tally { ours: 11, desired: 12, deleted: 13, rewritten: 14 };
        progress.forget_part(Namespace::Settings, before);
        assert_eq!(*progress.tally(Namespace::Settings), before);
    }

    #[test]
    fn a_text_of_another_run_or_version_is_refused() {
        let text = progress().to_text();
        assert_eq!(Progress::parse(&text, false, None), None);
        assert_eq!(Progress::parse(&text, true, Some("a")), None);
        assert_eq!(Progress::parse(&text.replacen("2.", "1.", 1), true, None), None);
    }

    #[test]
    fn what_is_listed_leaves_time_for_the_longest_pass_and_for_mending() {
        let seconds = Duration::from_secs;
        let mut progress = Progress::at_start(&Reconcile::default());
        let time_to_list = |progress: &Progress, namespace| {
            progress.time_to_list(namespace, seconds(800)).as_secs()
        };
        assert_eq!(time_to_list(&progress, Namespace::Settings), 100, "how long it takes is open");
        for (pass, settings, query_configs) in
            [(99_500, 400, 400), (200_000, 370, 400), (120_000, 370, 400), (480_000, 100, 170)]
        {
            progress.note_pass(Duration::from_millis(pass));
            assert_eq!(time_to_list(&progress, Namespace::Settings), settings, "{pass}");
            assert_eq!(time_to_list(&progress, Namespace::QueryConfigs), query_configs, "{pass}");
        }
    }

    #[test]
    fn requests_count_as_made_no_earlier_than_they_were() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(100_001);
        let requests = Requests::until(1, at);
        assert_eq!(requests.until, 101);
        assert!(requests.age(at + Duration::from_secs(30)) <= Duration::from_secs(30));
    }

    #[test]
    fn the_age_of_requests_is_never_negative() {
        let requests = Requests { number: 1, until: 100 };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(requests.age(at(130)), Duration::from_secs(30));
        assert_eq!(requests.age(at(99)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn a_text_that_was_cut_or_changed_is_refused(at in any::<prop::sample::Index>(), to in "[!-~]") {
            let text = progress().to_text();
            let at = at.index(text.len());
            prop_assert_eq!(Progress::parse(&text[..at], true, None), None);
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assert!(changed == text || Progress::parse(&changed, true, None).is_none());
        }

        #[test]
        fn any_other_text_is_refused(text in ".*") {
            prop_assert_eq!(Progress::parse(&text, false, None), None);
        }
    }
}
