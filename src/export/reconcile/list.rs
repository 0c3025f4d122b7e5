//! Lists the next keys of both namespaces, the settings first, as many as memory and half of the time allow.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::progress::Place;
use super::{Reconcile, ReconcileError};
use crate::export::bulk::{self, Failures};
use crate::export::invocation::Invocation;
use crate::export::judge::{Held, KvKey, Range, Scope, Table};
use crate::export::table::query_page;
use crate::item::claimed_keys;
use crate::item::keys::query_config_key_prefix;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::{Namespace, check_key};
use crate::ports::{KvError, Query, Services};

/// What a part may take of the function's memory while it is listed, in bytes. The rest of [`MAX_BYTES`] is
/// for the keys that KV lacks.
const MAX_LISTED_BYTES: usize = 64 * 1024 * 1024;

/// What a part may take, in bytes. With the values that are under way it fits the template's 256 MB.
pub const MAX_BYTES: usize = 96 * 1024 * 1024;

/// The keys of a range of KV, as listed.
pub struct Listing {
    pub table: Table,
    /// The first key of each page, and the cursor that leads to the page.
    pages: Vec<(KvKey, Option<String>)>,
    /// Keys that could not be read.
    pub unreadable: Failures,
}

impl Listing {
    /// Returns the key with which the next part begins, `None` where nothing is left.
    pub fn end(&self) -> Option<&KvKey> {
        match &self.table.scope {
            Scope::Range(range) => range.to.as_ref(),
            Scope::Given => None,
        }
    }

    /// Returns the place of a key with which a later part begins.
    pub fn place_of(&self, key: KvKey) -> Place {
        let mut before = self.pages.iter().rev();
        let page = before.find(|(first, _)| *first <= key && first.namespace == key.namespace);
        Place { cursor: page.and_then(|(_, cursor)| cursor.clone()), key }
    }
}

/// Returns the keys from a place on, up to `to` at most.
pub async fn list<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Reconcile,
    place: &Place,
    to: Option<KvKey>,
) -> Result<Listing, ReconcileError> {
    let account = request.system_account_id.clone();
    let range = Range { from: place.key.clone(), to, account };
    let table = Table::new(Scope::Range(range.clone()));
    let mut listing = Listing { table, pages: Vec::new(), unreadable: Failures::new() };
    let until = Instant::now() + invocation.time_left() / 2;
    for namespace in [Namespace::Settings, Namespace::QueryConfigs] {
        let is_first = namespace == place.key.namespace;
        let begins_behind =
            range.to.as_ref().is_some_and(|to| *to <= KvKey { namespace, name: String::new() });
        if namespace < place.key.namespace || begins_behind {
            continue;
        }
        let cursor = place.cursor.clone().filter(|_| is_first);
        let ended = list_namespace(invocation, &mut listing, namespace, cursor, until).await?;
        if !ended {
            break;
        }
    }
    if let Some(account) = &range.account {
        read_shop_ids(invocation, &mut listing, account).await?;
    }
    Ok(listing)
}

/// Lists a namespace. Returns false where memory or time ended it early; the range ends there then.
async fn list_namespace<S: Services>(
    invocation: &Invocation<'_, S>,
    listing: &mut Listing,
    namespace: Namespace,
    mut cursor: Option<String>,
    until: Instant,
) -> Result<bool, ReconcileError> {
    let Scope::Range(Range { from, to, account }) = listing.table.scope.clone() else {
        return Ok(true);
    };
    let prefix = account.as_deref().map(|account| prefix_of(namespace, account));
    let prefix = prefix.unwrap_or_default();
    let mut may_have_expired = cursor.is_some();
    let mut keys = 0;
    let mut last: Option<KvKey> = None;
    loop {
        let page = bulk::list(invocation, namespace, &prefix, cursor.as_deref()).await;
        let page = match page {
            // The cursor is gone: the place is found again from the beginning.
            Err(KvError::Refused(_) | KvError::RefusedContent(_)) if may_have_expired => {
                (cursor, may_have_expired) = (None, false);
                continue;
            }
            Err(error @ KvError::AuthRejected(_)) => {
                return Err(ReconcileError::CloudflareAuthRejected(error));
            }
            Err(error) => return Err(ReconcileError::ListingStopped { namespace, keys, error }),
            Ok(page) => page,
        };
        may_have_expired = false;
        let mut names = page.keys.into_iter();
        let mut first = None;
        for (name, metadata) in names.by_ref() {
            let key = KvKey { namespace, name };
            keys += 1;
            first.get_or_insert_with(|| key.clone());
            if last.as_ref().is_some_and(|last| key <= *last) {
                return Err(ReconcileError::ListingDoesNotAdvance { namespace, keys });
            }
            last = Some(key.clone());
            let held = Held::listed(metadata.as_ref(), &invocation.config.environment);
            if key >= from && to.as_ref().is_none_or(|to| key < *to) {
                listing.table.hold(key, held);
            }
        }
        if let Some(first) = first {
            listing.pages.push((first, cursor.clone()));
        }
        if page.cursor.is_none() || (to.is_some() && last >= to) {
            return Ok(true);
        }
        if page.cursor == cursor {
            return Err(ReconcileError::ListingDoesNotAdvance { namespace, keys });
        }
        cursor = page.cursor;
        let is_full = listing.table.bytes > MAX_LISTED_BYTES || Instant::now() >= until;
        if let (true, Some(KvKey { namespace, name })) =
            (is_full && last >= Some(from.clone()), &last)
        {
            // The first name that can come after it.
            let next = KvKey { namespace: *namespace, name: format!("{name}\0") };
            listing.pages.push((next.clone(), cursor));
            listing.table.end_at(next);
            return Ok(false);
        }
    }
}

fn prefix_of(namespace: Namespace, account: &str) -> String {
    match namespace {
        Namespace::Settings => format!("{account}-"),
        Namespace::QueryConfigs => query_config_key_prefix(account),
    }
}

/// Reads the shop ids that the account's items ask for, which the prefix leaves out.
async fn read_shop_ids<S: Services>(
    invocation: &Invocation<'_, S>,
    listing: &mut Listing,
    account: &str,
) -> Result<(), ReconcileError> {
    let prefix = prefix_of(Namespace::Settings, account);
    let mut keys = BTreeSet::new();
    let mut after = None;
    loop {
        let page = query_page(invocation, Query::Account(account), after.as_ref()).await?;
        for (key, item) in &page.items {
            let Some(item_ref) = key.item().filter(|item| item.query.is_none()) else { continue };
            keys.extend(claimed_keys(&item_ref.index, &item.attributes()));
        }
        after = page.last_read;
        if after.is_none() {
            break;
        }
    }
    keys.retain(|key| !key.starts_with(&prefix) && check_key(key).is_ok());
    for keys in Vec::from_iter(keys).chunks(MAX_BULK_GET_KEYS) {
        let (found, failures) =
            bulk::read(invocation, Namespace::Settings, keys.iter().cloned()).await;
        for (name, stored) in found {
            let held = Held::read(Some(&stored), &invocation.config.environment);
            listing.table.hold(KvKey::of_settings(name), held);
        }
        listing.unreadable.extend(failures);
    }
    Ok(())
}
