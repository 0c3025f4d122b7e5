//! What a command is given: `NAME=value`, the words that `make` takes.

use std::collections::BTreeMap;

use crate::failure::Failure;

/// The values by their names. An empty value counts as absent, so that `make` can hand over all of its
/// variables.
#[derive(Debug, Default)]
pub struct Given(BTreeMap<String, String>);

pub enum About<'a> {
    Index(&'a str, &'a str),
    Key(&'a str),
}

impl Given {
    /// Takes the arguments of a command that knows these names.
    pub fn take(args: impl Iterator<Item = String>, known: &[&str]) -> Result<Self, Failure> {
        let mut given = BTreeMap::new();
        for arg in args {
            let (name, value) = arg.split_once('=').unwrap_or((&arg, ""));
            if !known.contains(&name) || !arg.contains('=') {
                let known = known.join("=… ");
                return Err(Failure::usage(format!("{arg} is not one of {known}=…")));
            }
            if !value.is_empty() {
                given.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(Self(given))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A switch; off if it is not given.
    pub fn switch(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            Some("true") => Ok(true),
            None | Some("false") => Ok(false),
            Some(_) => Err(Failure::usage(format!("{name} is true or false"))),
        }
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let parsed = self.text(name).map(str::parse).transpose();
        parsed.map_err(|_| Failure::usage(format!("{name} is a number")))
    }

    /// The key, else the account and the index.
    pub fn about(&self, command: &str) -> Result<About<'_>, Failure> {
        match (self.text("KEY"), self.index()) {
            (Some(key), _) => Ok(About::Key(key)),
            (None, Some((account, index))) => Ok(About::Index(account, index)),
            (None, None) => {
                Err(Failure::usage(format!("{command} needs ACCOUNT and INDEX, or KEY")))
            }
        }
    }

    /// The account and the index, which both have to be given.
    pub fn index(&self) -> Option<(&str, &str)> {
        self.text("ACCOUNT").zip(self.text("INDEX"))
    }
}
