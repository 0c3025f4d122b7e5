//! What the settings' pass over the table has seen of the query configs: a small fleet's are compared
//! without another pass. Pure.

use crate::item::{ItemKey, Rejection};
use crate::kv::Digest;

/// What is held of query configs, in bytes. A table that has more is passed over once more.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What a query config asks for.
pub struct Claim {
    /// The item.
    pub item: ItemKey,
    /// The digest of its value, or why it can't be exported.
    pub wanted: Result<Digest, Rejection>,
}

/// The query configs of a whole table, if they fit.
#[derive(Default)]
pub struct KeptClaims {
    claims: Vec<Claim>,
    bytes: usize,
    state: State,
}

#[derive(Default, PartialEq)]
enum State {
    #[default]
    NoPass,
    Complete,
    TooMany,
}

impl KeptClaims {
    /// Begins with a pass over the table.
    pub fn begin() -> Self {
        Self { state: State::Complete, ..Self::default() }
    }

    /// Keeps a claim, if it fits.
    pub fn keep(&mut self, claim: Claim) {
        if self.state != State::Complete {
            return;
        }
        self.bytes += size_of::<Claim>() + claim.item.pk.len() + claim.item.sk.len();
        self.claims.push(claim);
        if self.bytes > MAX_BYTES {
            *self = Self { state: State::TooMany, ..Self::default() };
        }
    }

    /// All of them; `None` where no pass was made, or where they did not fit.
    pub fn all(&self) -> Option<&[Claim]> {
        (self.state == State::Complete).then_some(&self.claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(number: usize) -> Claim {
        let item = ItemKey { pk: "a".into(), sk: format!("INDEX#i#QUERY#{number}") };
        Claim { item, wanted: Ok(Digest::of(b"v")) }
    }

    #[test]
    fn claims_of_a_pass_are_kept_unless_they_are_too_many() {
        assert!(KeptClaims::default().all().is_none(), "no pass");
        let mut kept = KeptClaims::begin();
        for number in 0..1_000 {
            kept.keep(claim(number));
        }
        assert_eq!(kept.all().map(<[Claim]>::len), Some(1_000));
        for number in 0..200_000 {
            kept.keep(claim(number));
        }
        assert!(kept.all().is_none() && kept.claims.capacity() == 0);
    }
}
