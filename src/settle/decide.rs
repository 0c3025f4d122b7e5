//! The decision table of settling, row by row. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::claims::{Claims, Held};
use crate::entry::{Entry, Stored};
use crate::record::{IndexRef, IndexSettings, Rejection};

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Written for an item.
    Write {
        /// The item.
        index: IndexRef,
        /// Its entry.
        entry: Rc<Entry>,
    },
    /// Stays: the active aliases of these indexes point at what it holds.
    Withhold(BTreeSet<IndexRef>),
    /// Stays: the item it is for, or that its value names, can't be exported.
    KeepFor {
        /// The item.
        index: IndexRef,
        /// Why it can't.
        rejection: Rejection,
    },
    /// Deleted.
    Delete(Stored),
    /// Nothing of ours is there, and nobody asks for it.
    LeaveAlone,
    /// The table changed while it was read: to be looked at again.
    LookAgain,
    /// Can't be decided for now.
    Fail(String),
}

/// An item that decisions depend on, read whole.
#[derive(Debug)]
pub enum Export {
    /// Not there, against what the pass over the table said.
    Gone,
    /// Without its API key yet.
    Lacking(IndexSettings),
    /// Complete.
    Ready(IndexSettings, Rc<Entry>),
    /// Without an API key for now.
    Unavailable(IndexSettings, String),
    /// Not exportable.
    Rejected(Rejection),
}

impl Export {
    /// The settings, where only the API key is missing.
    pub fn lacking(&self) -> Option<&IndexSettings> {
        match self {
            Self::Lacking(settings) => Some(settings),
            _ => None,
        }
    }
}

/// Decides for one key.
pub fn decide(
    key: &str,
    held: &Held,
    claims: &Claims,
    exports: &BTreeMap<IndexRef, Export>,
) -> Decision {
    if let Some(index) = claims.claimant(key, held) {
        return for_claimant(key, index, exports.get(index));
    }
    let (Some(index), Some(stored)) = (&held.index, &held.stored) else {
        return Decision::LeaveAlone;
    };
    let mut pointers = claims.write_aliases_of(key, index);
    if !claims.has_item(index) {
        pointers.extend(claims.pointers_at(index, held.shop_id.as_deref()));
    }
    if !pointers.is_empty() {
        return Decision::Withhold(pointers);
    }
    match exports.get(index) {
        None => Decision::Delete(stored.clone()),
        Some(Export::Rejected(rejection)) => {
            Decision::KeepFor { index: index.clone(), rejection: rejection.clone() }
        }
        Some(Export::Ready(settings, _)) if !settings.asks_for(key) => {
            Decision::Delete(stored.clone())
        }
        Some(Export::Unavailable(settings, reason)) if !settings.asks_for(key) => {
            Decision::Fail(reason.clone())
        }
        Some(_) => Decision::LookAgain,
    }
}

fn for_claimant(key: &str, index: &IndexRef, export: Option<&Export>) -> Decision {
    match export {
        Some(Export::Ready(settings, entry)) if settings.asks_for(key) => {
            Decision::Write { index: index.clone(), entry: entry.clone() }
        }
        Some(Export::Unavailable(settings, reason)) if settings.asks_for(key) => {
            Decision::Fail(reason.clone())
        }
        Some(Export::Rejected(rejection)) => {
            Decision::KeepFor { index: index.clone(), rejection: rejection.clone() }
        }
        _ => Decision::LookAgain,
    }
}
