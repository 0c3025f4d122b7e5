//! How far a chain of runs has come, what its brakes let through, and the text that carries it from one run to
//! the next. Pure.
//!
//! The brakes bound how much a chain deletes and rewrites in a namespace. So a repair that is pointed at the wrong
//! namespace, or at a half-restored table, does no harm. What would exceed a brake is not begun, none of it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enum_map::EnumMap;
use serde::{Deserialize, Serialize};

use super::Reconcile;
use super::part::Part;
use super::report::{Action, Actions, Class, Findings};
use crate::export::judge::{KvKey, Range};
use crate::kv::{Digest, Namespace};

/// What every `continue` starts with. It has to change when the fields do.
const VERSION: &str = "12.";

/// Keys that a chain may delete in a small namespace.
const MIN_DELETES: u64 = 100;
/// The share of the keys of ours that a chain may delete in a larger namespace, in percent.
const DELETES_PERCENT: u64 = 2;
/// Keys that a chain may rewrite in a small namespace.
const MIN_REWRITES: u64 = 1_000;
/// The share of the desired keys that a chain may rewrite in a larger namespace, in percent.
const REWRITES_PERCENT: u64 = 30;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The keys that the next run may compare.
    pub range: Range,
    /// The listing's cursor for the page with the first one. Without it the listing begins anew.
    pub cursor: Option<String>,
    /// Whether these keys are a part that was compared and counted, and is still to be repaired.
    pub is_open: bool,
    pub tallies: EnumMap<Namespace, Tally>,
    pub findings: Findings,
    /// What the brakes have not let through.
    pub refused: Actions,
    /// What they have not let through in this run.
    #[serde(skip)]
    pub refused_now: Actions,
    /// Whether something was left to the next chain.
    pub left_out: bool,
}

/// What a chain has seen of one namespace, and let through its brakes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Listed keys of ours.
    pub ours: u64,
    pub let_through: Actions,
    /// What was let through of the open part, and is still to be done.
    pub allowed: Actions,
}

impl Progress {
    /// Opens a part that is compared for the first time: counts what is found of it, and asks the brakes.
    pub fn begin(&mut self, part: &Part, request: &Reconcile) {
        self.is_open = true;
        self.range.to = part.end().cloned();
        let (found, ours) = part.compare();
        self.findings.add(&found);
        for (namespace, counts) in found.counts {
            let tally = &mut self.tallies[namespace];
            tally.ours += ours[namespace];
            tally.allowed = Actions::default();
            self.ask_brake(namespace, Action::Delete, counts[Class::Orphaned], part, request);
            self.ask_brake(namespace, Action::Rewrite, counts[Class::Stale], part, request);
        }
    }

    /// Leaves the keys from this one on to the next run. An open part stays open if it ends later, because it was
    /// not listed whole this time.
    pub fn advance(&mut self, from: KvKey, cursor: Option<String>) {
        if self.range.to.as_ref() == Some(&from) {
            (self.range.to, self.is_open) = (None, false);
        }
        (self.range.from, self.cursor) = (from, cursor);
    }

    /// Lets through an action on this many keys, all or none. What is let through counts as done.
    pub fn ask_brake(
        &mut self,
        namespace: Namespace,
        action: Action,
        keys: u64,
        part: &Part,
        request: &Reconcile,
    ) -> bool {
        let tally = &mut self.tallies[namespace];
        let desired = self.findings.counts[namespace][Class::Desired];
        let (min, all, percent, raised) = match action {
            Action::Delete => (MIN_DELETES, tally.ours, DELETES_PERCENT, request.delete_up_to),
            Action::Rewrite => (MIN_REWRITES, desired, REWRITES_PERCENT, request.rewrite_up_to),
        };
        let limit = min.max(all.saturating_mul(percent) / 100).max(raised.unwrap_or_default());
        let left =
            if part.lets(action) { limit.saturating_sub(tally.let_through[action]) } else { 0 };
        let lets_through = keys <= left;
        if lets_through {
            tally.let_through[action] += keys;
            tally.allowed[action] += keys;
        } else {
            self.refused[action] += keys;
            self.refused_now[action] += keys;
        }
        lets_through
    }

    pub fn to_text(&self, request: &Reconcile, environment: &str) -> String {
        // Numbers and strings can always be written.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let sum = checksum(&json, request, environment);
        format!("{VERSION}{sum}.{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Returns `None` where the text isn't ours, was cut, or belongs to another request or environment.
    pub fn parse(text: &str, request: &Reconcile, environment: &str) -> Option<Self> {
        let (sum, json) = text.strip_prefix(VERSION)?.split_once('.')?;
        let json = URL_SAFE_NO_PAD.decode(json).ok()?;
        let is_ours = sum == checksum(&json, request, environment);
        is_ours.then(|| serde_json::from_slice(&json).ok())?
    }
}

/// Returns the checksum of a progress, and of what is the same in all requests of its chain.
fn checksum(json: &[u8], request: &Reconcile, environment: &str) -> String {
    let Reconcile { apply, preview, system_account_id, .. } = request;
    let chain = format!("{environment} {apply} {preview} {system_account_id:?}");
    Digest::of(&[chain.as_bytes(), json].concat()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVIRONMENT: &str = "prod";

    fn repair() -> Reconcile {
        Reconcile { apply: true, ..Reconcile::default() }
    }

    /// The progress of a chain that has come to a key of any characters.
    fn progress(name: &str) -> Progress {
        let mut progress = Progress::default();
        progress.advance(KvKey::of_settings(name), Some(name.to_owned()));
        progress.tallies[Namespace::Settings].ours = 3;
        progress.refused[Action::Rewrite] = 5;
        progress
    }

    #[test]
    fn a_text_is_read_as_it_was_written_and_refused_wherever_it_is_cut_or_changed() {
        for name in ["", "\"'\\", "a\nb\r\t\0", "ключ 🗝 ’", &"\u{10ffff}".repeat(128)] {
            let text = progress(name).to_text(&repair(), ENVIRONMENT);
            let parse = |text: &str| Progress::parse(text, &repair(), ENVIRONMENT);
            assert_eq!(parse(&text), Some(progress(name)));
            assert!((0..text.len()).all(|at| parse(&text[..at]).is_none()), "{name:?}");
            assert!((1..text.len()).all(|at| parse(&text[at..]).is_none()), "{name:?}");
            for at in 0..text.len() {
                let mut changed = text.clone();
                changed.replace_range(at..=at, if text[at..].starts_with('A') { "B" } else { "A" });
                assert_eq!(parse(&changed), None, "{name:?} changed at {at}");
            }
        }
    }

    #[test]
    fn a_chain_belongs_to_requests_with_the_same_fields_in_the_same_environment() {
        let text = progress("k").to_text(&repair(), ENVIRONMENT);
        let raised = Reconcile { delete_up_to: Some(9), ..repair() };
        let of_account = Reconcile { system_account_id: Some("a".to_owned()), ..repair() };
        let preview = Reconcile { preview: true, ..Reconcile::default() };
        for (name, request, environment, belongs) in [
            ("the same", repair(), ENVIRONMENT, true),
            ("other brakes", raised, ENVIRONMENT, true),
            ("an audit", Reconcile::default(), ENVIRONMENT, false),
            ("one account", of_account, ENVIRONMENT, false),
            ("a preview", preview, ENVIRONMENT, false),
            ("another environment", repair(), "dev", false),
        ] {
            let parsed = Progress::parse(&text, &request, environment);
            assert_eq!(parsed.is_some(), belongs, "{name}");
        }
    }

    #[test]
    fn a_chain_may_change_keys_up_to_its_brake_and_not_one_more() {
        let all = u64::MAX;
        let nothing = [0, 0];
        // Each pair is of deletes and rewrites: all keys, what was let through, and the raised number.
        for (name, [ours, desired], has_indexes, before, raised, most) in [
            ("a small namespace", [5_049, 3_336], true, nothing, nothing, [100, 1_000]),
            ("just larger", [5_050, 3_337], true, nothing, nothing, [101, 1_001]),
            ("a larger one", [10_050, 10_000], true, nothing, nothing, [201, 3_000]),
            ("huge numbers", [all, all], true, nothing, nothing, [all / 100, all / 100]),
            ("raised", nothing, true, nothing, [4_002, 4_003], [4_002, 4_003]),
            ("raised to less", nothing, true, nothing, [99, 999], [100, 1_000]),
            ("raised without an end", nothing, true, nothing, [all, all], [all, all]),
            ("no index items", [10_050, 0], false, nothing, nothing, [0, 1_000]),
            ("no index items, raised", [10_050, 0], false, nothing, [all, all], [0, all]),
            ("some is done", nothing, true, [60, 1_500], [2_000, 2_000], [1_940, 500]),
            ("all is done", nothing, true, [60, 1_500], nothing, [40, 0]),
        ] {
            let namespace = Namespace::Settings;
            let mut part = Part::default();
            part.table.has_indexes = has_indexes;
            let [delete_up_to, rewrite_up_to] = raised.map(Some);
            let request = Reconcile { delete_up_to, rewrite_up_to, ..repair() };
            let mut chain = Progress::default();
            chain.tallies[namespace].ours = ours;
            chain.tallies[namespace].let_through = Actions::from_array(before);
            chain.findings.counts[namespace][Class::Desired] = desired;
            let actions = [Action::Delete, Action::Rewrite];
            for ((action, before), most) in actions.into_iter().zip(before).zip(most) {
                let ask = |keys| {
                    let mut after = chain.clone();
                    let lets_through = after.ask_brake(namespace, action, keys, &part, &request);
                    let tally = after.tallies[namespace];
                    let of_chain = tally.let_through[action] - before;
                    (lets_through, of_chain, tally.allowed[action], after.refused[action])
                };
                assert_eq!(ask(most), (true, most, most, 0), "{name}, {action:?}");
                if most < all {
                    let refused = (false, 0, 0, most + 1);
                    assert_eq!(ask(most + 1), refused, "{name}, {action:?}: nothing is begun");
                }
            }
        }
    }
}
