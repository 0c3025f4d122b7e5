//! What to do, in one sentence: about the worst that was found. Pure.
//!
//! | found | advice |
//! | --- | --- |
//! | the item can't be exported | have the field corrected; for an account without an API key: have one created |
//! | several items ask for a key | have it removed from the wrong one |
//! | another environment has written a key | re-export, and separate the namespaces |
//! | missing, or stale | re-export; if only the API key differs: repair the account |
//! | an alias points at nothing | have the alias or the item corrected |
//! | withheld | have the alias switched off, then repair |
//! | orphaned | repair |
//! | its value's index, or the key's other item, can't be exported | explain that one |
//! | foreign | nothing |
//! | all right | nothing, but for aliases of its own that point at nothing |
//!
//! A repair is one of the account where that finds each of these keys, else one of everything.

use std::collections::BTreeSet;

use super::judge::{JudgedKey, KeyVerdict};
use super::{AskedItem, Findings, KeyFacts};
use crate::export::differs::cut;
use crate::export::settle::decide::Decision;
use crate::index::IndexRef;
use crate::item::Rejection;
use crate::item::keys::query_config_key_prefix;
use crate::kv::metadata::is_environment;
use crate::kv::{Metadata, StoredSettings};

const MAX_NAMED: usize = 3;

/// The longest name in a list, in characters.
const MAX_NAME_CHARACTERS: usize = 200;

pub const DRY_RUN: &str =
    "KV was not read, because this is a dry run: set CLOUDFLARE_ACCOUNT_ID to compare";

const NOTHING: &str = "Nothing is to be done: KV holds what the table asks for, and the edge shows it within a minute";

/// The sentence, without its full stop.
pub fn advice(findings: &Findings, judged: &[JudgedKey<'_>]) -> String {
    let worst = judged.iter().min_by_key(|key| key.verdict);
    let mut advice = match (&findings.item, &findings.index, worst) {
        (AskedItem::Rejected(rejection), Some(index), _) => rejected(findings, index, rejection),
        (_, _, Some(worst)) if worst.verdict != KeyVerdict::Right => about(findings, judged, worst),
        _ if findings.dangling.is_empty() => NOTHING.to_owned(),
        _ => "KV holds what the table asks for".to_owned(),
    };
    if !findings.dangling.is_empty() {
        advice += &format!(
            "; active aliases of this index point at {}, of which there is neither an item nor a key: have them switched off or pointed elsewhere",
            names(&findings.dangling)
        );
    }
    let was_compared_in_part =
        |facts: &KeyFacts| facts.stored.is_some() && facts.without_api_key.is_some();
    if judged.iter().any(|key| was_compared_in_part(key.facts)) {
        advice += "; marqo_api_key was not compared, because the account's API key was unavailable";
    }
    advice
}

fn about(findings: &Findings, all: &[JudgedKey<'_>], judged: &JudgedKey<'_>) -> String {
    let KeyFacts { key, claimants, decision, without_api_key, .. } = judged.facts;
    // Of several, it is only said which they are.
    let claimant = claimants.first();
    let of_another_environment = judged.metadata.is_some() && !judged.is_ours;
    let re_export = claimant.map(|claimant| re_export(findings, claimant)).unwrap_or_default();
    let repair_all = || repair_of(judged.verdict, findings, all);
    match judged.verdict {
        KeyVerdict::Conflicting if claimants.len() == 1 => {
            let environment = judged.metadata.as_ref().and_then(|it| it.environment.as_deref());
            let environment = environment.filter(|name| is_environment(name));
            format!(
                "Environment {} has written {key}: run {re_export} to take it, and give each environment a namespace of its own",
                environment.unwrap_or("without a name")
            )
        }
        KeyVerdict::Conflicting => format!(
            "Items {} ask for {key}, and each export takes it from the other: have it removed from the record that should not have it",
            names(claimants)
        ),
        KeyVerdict::Missing if without_api_key.is_some() => format!(
            "KV lacks {key}, and the account's API key was unavailable: when the gateway of its cell gives it again, run {re_export}"
        ),
        KeyVerdict::Missing => format!("KV lacks {key}: run {re_export}"),
        KeyVerdict::Stale if judged.differs == ["marqo_api_key"] => format!(
            "KV holds another API key than the account has now: run {}, which corrects all indexes of the account",
            repair(claimant.map(|claimant| claimant.account.as_str()))
        ),
        KeyVerdict::Stale => {
            format!("KV holds something else under {key} than the table asks for: run {re_export}")
        }
        KeyVerdict::Dangling => format!(
            "Nothing is under {key}, and active aliases of {} point at it: have them switched off or pointed elsewhere, or have the index written again",
            names(&findings.pointers)
        ),
        KeyVerdict::Withheld => {
            let pointers = match decision {
                Decision::Withhold(pointers) => pointers,
                _ => &findings.pointers,
            };
            format!(
                "Key {key} stays because active aliases of {} point at it: have them switched off or pointed elsewhere, then run {}",
                names(pointers),
                repair_all()
            )
        }
        KeyVerdict::Orphaned => match decision {
            Decision::LeaveAlone => format!(
                "No item asks for {key}, and its value does not say which query config it is of: delete it by hand"
            ),
            Decision::Undecided(_) => format!(
                "No item asks for {key}, and the account's API key was unavailable: when the gateway of its cell gives it again, run {}, which deletes the key",
                repair_all()
            ),
            _ => format!(
                "No item asks for {key}: if that is meant, run {}, which deletes it",
                repair_all()
            ),
        },
        KeyVerdict::Rejected => {
            let index = claimant.or(judged.named.as_ref()).map(arguments).unwrap_or_default();
            format!(
                "Key {key} stays as it is, because the record that it is for cannot be exported: run make explain{index}"
            )
        }
        KeyVerdict::Foreign if of_another_environment => format!(
            "Nothing is to be done here: no item asks for {key}, and another environment has written it"
        ),
        KeyVerdict::Foreign => format!(
            "Nothing is to be done by the exporter: no item asks for {key}, and it is not the exporter's, so delete it by hand if it should go"
        ),
        KeyVerdict::Right => NOTHING.to_owned(),
    }
}

fn rejected(findings: &Findings, index: &IndexRef, rejection: &Rejection) -> String {
    let path = cut(&rejection.path, MAX_NAME_CHARACTERS);
    let reason = &rejection.reason;
    let kept = "until then KV keeps what it holds";
    match path.as_str() {
        "system_account_id" => format!(
            "The field system_account_id cannot be exported, because {reason}: have that put right, then run {}; {kept}",
            re_export(findings, index)
        ),
        path => format!("The field {path} {reason}: have it corrected in the admin tool; {kept}"),
    }
}

/// A repair that finds every key of a verdict: of one account, if that does.
fn repair_of(verdict: KeyVerdict, findings: &Findings, all: &[JudgedKey<'_>]) -> String {
    let keys = all.iter().filter(|judged| judged.verdict == verdict);
    let mut accounts: BTreeSet<Option<&str>> =
        keys.map(|judged| account_whose_run_finds(judged, findings, all)).collect();
    let account = accounts.pop_first().flatten();
    repair(account.filter(|_| accounts.is_empty()))
}

/// The account whose run finds a key that no item asks for: it lists what begins with the account, and
/// reads the shop ids that the values there name.
fn account_whose_run_finds<'a>(
    judged: &'a JudgedKey<'_>,
    findings: &Findings,
    all: &[JudgedKey<'_>],
) -> Option<&'a str> {
    let Metadata { index, .. } = judged.metadata.as_ref()?;
    let key = &judged.facts.key;
    let listed = match findings.of_query_config {
        true => query_config_key_prefix(&index.account),
        false => format!("{}-", index.account),
    };
    let index_id = index.index_id();
    let leads_there = |other: &JudgedKey<'_>| {
        let stored = other.facts.stored.as_ref().filter(|_| other.is_ours);
        let settings = stored.and_then(|stored| StoredSettings::parse(&stored.value));
        other.facts.key == index_id
            && settings.is_some_and(|settings| settings.shop_id.as_ref() == Some(key))
    };
    let is_found = key.starts_with(&listed) || all.iter().any(leads_there);
    is_found.then_some(&*index.account)
}

/// A repair of one account, or of everything.
fn repair(account: Option<&str>) -> String {
    let account = account.map(|account| format!(" ACCOUNT={}", argument(account)));
    format!("make reconcile APPLY=true{}", account.unwrap_or_default())
}

fn re_export(findings: &Findings, index: &IndexRef) -> String {
    let query_configs = if findings.of_query_config { " QUERY_CONFIGS=true" } else { "" };
    format!("make re-export{}{query_configs}", arguments(index))
}

fn arguments(index: &IndexRef) -> String {
    format!(" ACCOUNT={} INDEX={}", argument(&index.account), argument(&index.name))
}

/// A name as a shell takes it.
fn argument(name: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    match name.chars().all(is_plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}

fn names<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let mut names: Vec<String> =
        all.into_iter().map(|name| cut(&name.to_string(), MAX_NAME_CHARACTERS)).collect();
    if names.len() > MAX_NAMED {
        let more = names.split_off(MAX_NAMED).len();
        return format!("{} and {more} more", names.join(", "));
    }
    match names.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted() {
        let listed = |all: &[&str]| names(all);
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b"]), "a and b");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        assert_eq!(listed(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }

    #[test]
    fn a_name_in_a_command_is_one_word_for_the_shell() {
        assert_eq!(argument("acct1-main_2.b"), "acct1-main_2.b");
        assert_eq!(argument("a b"), "'a b'");
        assert_eq!(argument("it's; rm"), r"'it'\''s; rm'");
    }
}
