//! The secrets that this process holds: nothing that a service says is shown with a part of one.

use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};

/// The most characters that are shown of what a service says.
const MAX_SHOWN: usize = 300;

/// How many characters in a row show a part of a secret: more than two texts share by chance.
const SHARED_BY_CHANCE: usize = 12;

static HELD: Mutex<Vec<SecretString>> = Mutex::new(Vec::new());

/// Notes a secret; each is noted once.
pub fn hold(secret: &SecretString) {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if !held.iter().any(|held| held.expose_secret() == secret.expose_secret()) {
        held.push(secret.clone());
    }
}

/// The beginning of what a service says, with `***` for each secret, and for each part of one.
pub fn without_secrets(said: &str) -> String {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut shown = String::new();
    let mut rest = said;
    for _ in 0..MAX_SHOWN {
        let Some(next) = rest.chars().next() else { break };
        let secret = held.iter().find_map(|secret| starts_with(rest, secret.expose_secret()));
        match secret {
            None => shown.push(next),
            Some(_) if shown.ends_with("***") => {}
            Some(_) => shown.push_str("***"),
        }
        rest = &rest[secret.unwrap_or(next.len_utf8())..];
    }
    shown
}

/// How many bytes of a secret `text` begins with: of all of it, or of a part that is no chance.
fn starts_with(text: &str, secret: &str) -> Option<usize> {
    if !secret.is_empty() && text.starts_with(secret) {
        return Some(secret.len());
    }
    let part = text.get(..SHARED_BY_CHANCE)?;
    secret.contains(part).then_some(SHARED_BY_CHANCE)
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
        hold(&"0123456789abcdefghijklmnopqrstuv".into());
        hold(&"s3cr3t".into());
        for (said, shown) in [
            ("signed by s3cr3t.", "signed by ***."),
            ("token 0123456789abcdefghijklmnopqrstuv, denied", "token ***, denied"),
            ("cut 6789abcdefghijklmnopqrst", "cut ***"),
            ("a token's beginning: 0123456", "a token's beginning: 0123456"),
        ] {
            assert_eq!(without_secrets(said), shown);
        }
        let at_the_end = format!("{}0123456789abcdefghijklmnopqrstuv", "x".repeat(295));
        assert!(!without_secrets(&at_the_end).contains('0'));
    }
}
