//! Whose a key is that KV lacks, or under which it holds a stranger's value.

use std::collections::BTreeSet;

use super::Unknown;
use super::claim_index::ClaimIndex;
use super::gathered::{AskedItem, Gathered, KeyFacts, Unclaimed, Wanted, named_by};
use super::looking::Looking;
use crate::export::settle::table_view::{Named, TableView};
use crate::export::table::{Pass, PassOver};
use crate::index::IndexRef;
use crate::item::ItemKey;
use crate::ports::{ScanColumns, Services};

/// Whose a key is.
pub enum Whose {
    /// It is taken for this index.
    Index(IndexRef),
    /// Nothing says whose; these items' aliases point at it.
    Nobodys(BTreeSet<ItemKey>),
}

impl<S: Services> Looking<'_, S> {
    /// Finds out whose a key is by the item that asks for it, by what its value names in another
    /// environment, or by who points at it.
    pub async fn whose(&mut self, key: &str) -> Result<Whose, Unknown> {
        let mut claims = ClaimIndex::about(key);
        let mut pass = Pass::new(self.invocation, PassOver::Table(ScanColumns::Claims));
        while let Some(items) = pass.next().await? {
            for (key, item) in &items {
                claims.add(key, item);
            }
        }
        self.claims = Some(claims);
        let held = self.held();
        let readings: Vec<IndexRef> = IndexRef::all_with_id(key).collect();
        let mut view = TableView::for_keys(&held);
        for index in &readings {
            view = view.and_for(&Named { index: index.clone(), shop_ids: BTreeSet::new() });
        }
        let view = self.filled(view).await?;
        let claimant = held.get(key).and_then(|held| view.claimant(key, held));
        let stored = self.stored.get(key).and_then(Option::as_ref);
        if let Some(index) = claimant.cloned().or_else(|| stored.and_then(named_by)) {
            return Ok(Whose::Index(index));
        }
        let pointers = view.pointers_at_name(key);
        let own_accounts = pointers.iter().map(|pointer| pointer.pk.as_str());
        let own_accounts: BTreeSet<&str> = own_accounts.collect();
        let of_own = readings.iter().find(|index| own_accounts.contains(index.account.as_str()));
        match of_own.or(readings.first()) {
            Some(index) if !pointers.is_empty() => Ok(Whose::Index(index.clone())),
            _ if pointers.is_empty() && stored.is_none() => Err(Unknown::NotFound),
            _ => Ok(Whose::Nobodys(pointers)),
        }
    }

    /// A key of which nothing says whose it is.
    pub fn nobodys(mut self, key: &str, pointers: BTreeSet<ItemKey>) -> Gathered {
        let facts = KeyFacts {
            key: key.to_owned(),
            stored: self.stored.remove(key).flatten(),
            named: None,
            claimants: Vec::new(),
            owner: None,
            wanted: Wanted::Unclaimed(Unclaimed::LeftAlone),
        };
        Gathered {
            index: None,
            item: AskedItem::Absent,
            keys: vec![facts],
            pointers,
            of_query_config: false,
            forgot_some: false,
        }
    }
}
