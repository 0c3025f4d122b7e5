//! The secrets that this process has. What a service says is shown without any part of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use secrecy::{ExposeSecret, SecretString};

/// How many characters of what a service says are shown.
const MAX_SHOWN: usize = 300;

/// How many bytes in a row count as a part of a secret. Two texts do not share that many by chance.
const PART: usize = 12;

/// The token and AWS's secrets, for as long as the process lives.
static CREDENTIALS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The API keys of this invocation.
static API_KEYS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn lock(secrets: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    secrets.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn hold_credential(secret: &SecretString) {
    lock(&CREDENTIALS).insert(secret.expose_secret().to_owned());
}

pub fn hold_api_key(api_key: &SecretString) {
    lock(&API_KEYS).insert(api_key.expose_secret().to_owned());
}

/// Forgets the API keys: none outlives its invocation.
pub fn forget_api_keys() {
    lock(&API_KEYS).clear();
}

/// Returns the beginning of what a service says, with `***` for each secret and each part of one.
pub fn without_secrets(said: &str) -> String {
    // Enough for the beginning that is shown, and for secrets that leave less of it.
    let said: String = said.chars().take(4 * MAX_SHOWN).collect();
    let (credentials, api_keys) = (lock(&CREDENTIALS), lock(&API_KEYS));
    // A reconcile holds an API key of each account: each is looked up, and not compared with all that is said.
    let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (at, part) in said.as_bytes().windows(PART).enumerate() {
        places.entry(part).or_default().push(at);
    }
    let mut is_secret = vec![false; said.len()];
    for secret in credentials.union(&api_keys).filter(|secret| !secret.is_empty()) {
        if secret.len() < PART {
            let whole = said.match_indices(secret.as_str());
            whole.for_each(|(at, _)| is_secret[at..][..secret.len()].fill(true));
        }
        let parts = secret.as_bytes().windows(PART).filter_map(|part| places.get(part));
        parts.flatten().for_each(|at| is_secret[*at..][..PART].fill(true));
    }
    let mut shown = String::new();
    for (at, character) in said.char_indices() {
        if !is_secret[at] {
            shown.push(character);
        } else if at == 0 || !is_secret[at - 1] {
            shown.push_str("***");
        }
    }
    shown.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_text_its_beginning_is_shown() {
        assert_eq!(without_secrets("short"), "short");
        assert_eq!(without_secrets(&"ü".repeat(1_000_000)), "ü".repeat(300));
    }

    #[test]
    fn a_secret_is_not_shown_whole_cut_or_quoted() {
        hold_credential(&"0123456789abcdefghijklmnopqrstuv".into());
        hold_credential(&"s3cr3t".into());
        hold_api_key(&"äpi-kéy-of-äcct1".into());
        hold_api_key(&"".into());
        for (said, shown) in [
            ("signed by s3cr3t.", "signed by ***."),
            ("token 0123456789abcdefghijklmnopqrstuv, denied", "token ***, denied"),
            ("cut 6789abcdefghijklmnopqrst", "cut ***"),
            ("a token's beginning: 0123456", "a token's beginning: 0123456"),
            ("for äpi-kéy-of-äcct1", "for ***"),
            ("s3cr3ts3cr3t", "***"),
        ] {
            assert_eq!(without_secrets(said), shown);
        }
        let at_the_end = format!("{}0123456789abcdefghijklmnopqrstuv", "x".repeat(295));
        assert_eq!(without_secrets(&at_the_end), format!("{}***", "x".repeat(295)));
    }
}
