//! What to do, in one sentence: about the worst that was found. Pure.
//!
//! | found | advice |
//! | --- | --- |
//! | the item can't be exported | have the field corrected; for an account without an API key: have one created |
//! | several items ask for a key | have it removed from the wrong one |
//! | another environment has written a key | re-export, and separate the namespaces |
//! | missing, or stale | re-export; if only the API key differs: repair the account |
//! | an alias points at nothing | have the alias or the item corrected |
//! | withheld | have the alias switched off, then repair the account |
//! | orphaned | repair the account; where no value leads to the key: repair all |
//! | its value's index, or the key's other item, can't be exported | explain that one |
//! | foreign | nothing |
//! | all right | nothing |

use super::gathered::{AskedItem, Gathered, KeyFacts, Unclaimed, Wanted};
use super::judge::{Judged, Verdict};
use crate::export::differs::cut;
use crate::index::IndexRef;
use crate::item::{ItemKey, Rejection};

/// The most items that a sentence names.
const MAX_NAMED: usize = 3;

/// The longest name in a sentence, in characters.
const MAX_NAME_CHARACTERS: usize = 200;

/// The sentence, without its full stop.
pub fn advice(gathered: &Gathered, judged: &[Judged<'_>]) -> String {
    let mut advice = match (&gathered.item, &gathered.index) {
        (AskedItem::Rejected(rejection), Some(index)) => rejected(gathered, index, rejection),
        _ => match judged.iter().min_by_key(|key| urgency(key.verdict)) {
            Some(worst) => about(gathered, worst),
            None => nothing_to_do(),
        },
    };
    if judged.iter().any(Judged::is_without_api_key) {
        advice += "; marqo_api_key was not compared, because the account's API key was unavailable";
    }
    if gathered.forgot_some {
        advice += "; the table is too large to tell from a key who else names the index, so ask again by account and index";
    }
    advice
}

/// The lower, the more urgent.
fn urgency(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Conflicting => 0,
        Verdict::Missing => 1,
        Verdict::Stale => 2,
        Verdict::Dangling => 3,
        Verdict::Withheld => 4,
        Verdict::Orphaned => 5,
        Verdict::Rejected => 6,
        Verdict::Foreign => 7,
        Verdict::Right => 8,
    }
}

fn about(gathered: &Gathered, judged: &Judged<'_>) -> String {
    let facts = judged.facts;
    let key = &facts.key;
    match judged.verdict {
        Verdict::Conflicting => conflicting(gathered, judged),
        Verdict::Missing => match (&facts.owner, &facts.wanted) {
            (Some(owner), Wanted::ValueWithoutApiKey(_)) => format!(
                "KV lacks {key}, and the account's API key was unavailable: when the gateway of its cell gives it again, run {}",
                re_export(gathered, owner)
            ),
            (Some(owner), _) => format!("KV lacks {key}: run {}", re_export(gathered, owner)),
            (None, _) => nothing_to_do(),
        },
        Verdict::Stale => match &facts.owner {
            Some(owner) if judged.differs == ["marqo_api_key"] => format!(
                "KV holds another API key than the account has now: run make reconcile APPLY=true ACCOUNT={}, which corrects all indexes of the account",
                argument(&owner.account)
            ),
            Some(owner) => format!(
                "KV holds something else under {key} than the table asks for: run {}",
                re_export(gathered, owner)
            ),
            None => nothing_to_do(),
        },
        Verdict::Dangling => format!(
            "Nothing is under {key}, and active aliases of {} point at it: have them switched off or pointed elsewhere, or have the index written again",
            names_of_items(gathered.pointers.iter())
        ),
        Verdict::Withheld => withheld(gathered, facts),
        Verdict::Orphaned => orphaned(gathered, facts),
        Verdict::Rejected => {
            let index = facts.owner.as_ref().or(facts.named.as_ref());
            let arguments = index.map(|index| format!(" {}", arguments(index))).unwrap_or_default();
            format!(
                "Key {key} stays as it is, because the record that it is for cannot be exported: run make explain{arguments}"
            )
        }
        Verdict::Foreign if judged.of_another_environment => format!(
            "Nothing is to be done here: no item asks for {key}, and another environment has written it"
        ),
        Verdict::Foreign => format!(
            "Nothing is to be done by the exporter: no item asks for {key}, and it is not the exporter's, so delete it by hand if it should go"
        ),
        Verdict::Right => nothing_to_do(),
    }
}

fn nothing_to_do() -> String {
    "Nothing is to be done: KV holds what the table asks for, and the edge shows it within a minute"
        .to_owned()
}

fn rejected(gathered: &Gathered, index: &IndexRef, rejection: &Rejection) -> String {
    let path = cut(&rejection.path, MAX_NAME_CHARACTERS);
    let reason = &rejection.reason;
    let kept = "until then KV keeps what it holds";
    match path.as_str() {
        "system_account_id" => format!(
            "The field system_account_id cannot be exported, because {reason}: have that put right, then run {}; {kept}",
            re_export(gathered, index)
        ),
        path => format!("The field {path} {reason}: have it corrected in the admin tool; {kept}"),
    }
}

fn conflicting(gathered: &Gathered, judged: &Judged<'_>) -> String {
    let KeyFacts { key, claimants, owner, .. } = judged.facts;
    match owner {
        Some(owner) if claimants.len() == 1 => {
            let environment = judged.provenance.environment.as_deref().unwrap_or("without a name");
            format!(
                "Environment {environment} has written {key}: run {} to take it, and give each environment a namespace of its own",
                re_export(gathered, owner)
            )
        }
        _ => format!(
            "Items {} ask for {key}, and each export takes it from the other: have it removed from the record that should not have it",
            names(claimants.iter().map(ToString::to_string))
        ),
    }
}

fn withheld(gathered: &Gathered, KeyFacts { key, wanted, named, .. }: &KeyFacts) -> String {
    let pointers = match wanted {
        Wanted::Unclaimed(Unclaimed::Withheld(pointers)) => names_of_items(pointers.iter()),
        _ => names_of_items(gathered.pointers.iter()),
    };
    format!(
        "Key {key} stays because active aliases of {pointers} point at it: have them switched off or pointed elsewhere, then run make reconcile APPLY=true{}",
        account(gathered, named.as_ref())
    )
}

fn orphaned(gathered: &Gathered, facts: &KeyFacts) -> String {
    let KeyFacts { key, wanted, named, .. } = facts;
    if matches!(wanted, Wanted::Unclaimed(Unclaimed::OfUnknownQueryConfig)) {
        return format!(
            "No item asks for {key}, and its value does not say which query config it is of: delete it by hand"
        );
    }
    // A run of one account lists what begins with the account, and finds what the values there name.
    let index_id = named.as_ref().map(IndexRef::index_id);
    let leads_there =
        |other: &KeyFacts| Some(&other.key) == index_id.as_ref() && other.stored.is_some();
    let of_account = gathered.of_query_config || gathered.keys.iter().any(leads_there);
    let account = if of_account { account(gathered, named.as_ref()) } else { String::new() };
    format!("No item asks for {key}: run make reconcile APPLY=true{account}, which deletes it")
}

fn re_export(gathered: &Gathered, index: &IndexRef) -> String {
    let query_configs = if gathered.of_query_config { " QUERY_CONFIGS=true" } else { "" };
    format!("make re-export {}{query_configs}", arguments(index))
}

fn account(gathered: &Gathered, named: Option<&IndexRef>) -> String {
    let index = named.or(gathered.index.as_ref());
    index.map(|index| format!(" ACCOUNT={}", argument(&index.account))).unwrap_or_default()
}

fn arguments(index: &IndexRef) -> String {
    format!("ACCOUNT={} INDEX={}", argument(&index.account), argument(&index.name))
}

/// A name as a shell takes it.
fn argument(name: &str) -> String {
    let name = cut(name, MAX_NAME_CHARACTERS);
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if name.chars().all(is_plain) { name } else { format!("'{}'", name.replace('\'', r"'\''")) }
}

fn names_of_items<'k>(items: impl ExactSizeIterator<Item = &'k ItemKey>) -> String {
    names(items.map(ToString::to_string))
}

fn names(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(MAX_NAMED);
    let named: Vec<String> =
        names.take(MAX_NAMED).map(|name| cut(&name, MAX_NAME_CHARACTERS)).collect();
    match (named.as_slice(), more) {
        ([first @ .., last], 0) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        (_, 0) => named.concat(),
        _ => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted() {
        let listed = |all: &[&str]| names(all.iter().map(|name| (*name).to_owned()));
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
