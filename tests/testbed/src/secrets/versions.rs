//! The versions of a secret, and the labels that say which of them counts.

use serde_json::{Value, json};

/// A secret. It has at least one version.
pub(super) struct Secret {
    versions: Vec<String>,
    current: usize,
    previous: Option<usize>,
}

impl Secret {
    pub fn new(value: &str) -> Self {
        Self { versions: vec![value.to_owned()], current: 0, previous: None }
    }

    pub fn current(&self) -> &str {
        &self.versions[self.current]
    }

    pub fn current_id(&self) -> String {
        id(self.current)
    }

    /// Adds a version that counts from now on.
    pub fn put(&mut self, value: &str) {
        self.versions.push(value.to_owned());
        self.make_current(self.versions.len() - 1);
    }

    /// Makes another version count. False if there is none with this id, or if the one to take the
    /// label from does not have it.
    pub fn move_current(&mut self, to: &str, from: &str) -> bool {
        let place = (0..self.versions.len()).find(|place| id(*place) == to);
        let allowed = from == self.current_id();
        match place {
            Some(place) if allowed => self.make_current(place),
            _ => return false,
        }
        true
    }

    /// The versions that have a label, as `ListSecretVersionIds` lists them.
    pub fn listed(&self) -> Vec<Value> {
        let labelled = [(Some(self.current), "AWSCURRENT"), (self.previous, "AWSPREVIOUS")];
        let listed = labelled.into_iter().filter_map(|(place, label)| Some((place?, label)));
        listed
            .map(|(place, label)| json!({"VersionId": id(place), "VersionStages": [label]}))
            .collect()
    }

    /// The version that counted until now becomes the previous one, as Secrets Manager does it.
    fn make_current(&mut self, place: usize) {
        if place != self.current {
            self.previous = Some(self.current);
            self.current = place;
        }
    }
}

fn id(place: usize) -> String {
    format!("00000000-0000-4000-8000-{place:012}")
}
