//! How KV differs from the table at the beginning: drawn for each item, from its number. Pure.

use super::{Fleet, ItemId};

/// The version that KV holds of a stale item. The table's versions count from 0.
pub const STALE: u32 = 999;

/// How KV differs from the table at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drift {
    /// KV lacks the key; of the settings, that of the index id.
    Missing,
    /// KV holds an old version; of the settings, under the shop id.
    Stale,
    /// KV has a key more; of the settings, a shop id that the index gave up.
    Orphaned,
}

/// What a reconcile of everything has to find.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    pub desired: u64,
    pub listed: u64,
    pub missing: u64,
    pub stale: u64,
    pub orphaned: u64,
}

impl Fleet {
    /// How KV differs from the table in an item.
    pub fn drift(&self, item: ItemId) -> Option<Drift> {
        // An index has two keys.
        let one_in = match (self.size.drift, item.query) {
            (0, _) => return None,
            (one_in, None) => one_in.div_ceil(2),
            (one_in, Some(_)) => one_in,
        };
        let drawn = mixed(self.size.seed ^ mixed(self.position(item) as u64));
        let kinds = [Drift::Missing, Drift::Stale, Drift::Orphaned];
        drawn.is_multiple_of(one_in).then(|| kinds[(drawn / one_in % 3) as usize])
    }

    /// Whether the table has the item at the beginning.
    pub fn has_item(&self, item: ItemId) -> bool {
        let is_lost = self.lost.borrow().contains(&item.index);
        !is_lost
            && self.has_come(item.index)
            && (item.query.is_none() || self.drift(item) != Some(Drift::Orphaned))
    }

    /// Whether the table or KV have ever had anything of an index.
    pub fn has_come(&self, index: usize) -> bool {
        !self.to_come.borrow().contains(&index)
    }

    /// What an audit of the settings has to find at the beginning.
    pub fn settings_found(&self) -> Found {
        let mut found = Found::default();
        for index in 0..self.indexes() {
            found.note(2, self.drift(ItemId::settings(index)));
        }
        found
    }

    /// What an audit of the query configs has to find at the beginning.
    pub fn query_configs_found(&self) -> Found {
        let mut found = Found::default();
        for index in 0..self.indexes() {
            for query in 0..self.size.query_configs {
                let item = ItemId::query_config(index, query);
                found.note(u64::from(self.has_item(item)), self.drift(item));
            }
        }
        found
    }
}

impl Found {
    /// Notes the keys that the table asks for, and how KV differs in them.
    fn note(&mut self, desired: u64, drift: Option<Drift>) {
        self.desired += desired;
        self.listed += desired;
        match drift {
            None => {}
            Some(Drift::Stale) => self.stale += 1,
            Some(Drift::Missing) => {
                self.missing += 1;
                self.listed -= 1;
            }
            Some(Drift::Orphaned) => {
                self.orphaned += 1;
                self.listed += 1;
            }
        }
    }
}

/// Splitmix64's finish: bits that look like chance.
pub fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
