//! Lists the next keys of both namespaces, the settings first, as many as memory and half of the time allow.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{Part, ReconcileError};
use crate::export::bulk;
use crate::export::invocation::Invocation;
use crate::export::judge::{Held, KvKey, Range, Table};
use crate::export::table::read_page;
use crate::item::claimed_keys;
use crate::item::keys::query_config_key_prefix;
use crate::kv::Namespace;
use crate::ports::{KvError, Services, TablePart};

/// What a part may take of the function's memory while it is listed, in bytes. The rest of [`MAX_BYTES`] is
/// for the keys that KV lacks.
const MAX_LISTED_BYTES: usize = 64 * 1024 * 1024;

/// What a part may take, in bytes. With the values that are under way it fits the template's 256 MB.
pub const MAX_BYTES: usize = 96 * 1024 * 1024;

/// Returns the keys of a range, as many as memory and half of the time allow. `cursor` leads to its first page.
pub async fn list<S: Services>(
    invocation: &Invocation<'_, S>,
    range: Range,
    mut cursor: Option<String>,
) -> Result<Part, ReconcileError> {
    let mut part = Part { table: Table::new(range.clone()), ..Part::default() };
    let until = Instant::now() + invocation.time_left() / 2;
    for namespace in [Namespace::Settings, Namespace::QueryConfigs] {
        let first = KvKey { namespace, name: String::new() };
        let begins_behind = part.end().is_some_and(|end| *end <= first);
        if namespace < range.from.namespace || begins_behind {
            continue;
        }
        let cursor = cursor.take();
        list_namespace(invocation, &mut part, &range, namespace, cursor, until).await?;
    }
    if let Some(account) = &range.account {
        read_shop_ids(invocation, &mut part, account).await?;
    }
    Ok(part)
}

/// Lists a namespace. Where memory or time ends it early, the range ends there.
async fn list_namespace<S: Services>(
    invocation: &Invocation<'_, S>,
    part: &mut Part,
    range: &Range,
    namespace: Namespace,
    mut cursor: Option<String>,
    until: Instant,
) -> Result<(), ReconcileError> {
    let prefix = range.account.as_deref().map(|account| prefix_of(namespace, account));
    let prefix = prefix.unwrap_or_default();
    let mut may_have_expired = cursor.is_some();
    let mut keys = 0;
    // The first key that can come next.
    let mut next = KvKey { namespace, name: String::new() };
    loop {
        part.pages.push((next.clone(), cursor.clone()));
        let is_full = part.table.bytes > MAX_LISTED_BYTES || Instant::now() >= until;
        if is_full && next > range.from {
            part.table.range.to = Some(next);
            return Ok(());
        }
        let page = match bulk::list(invocation, namespace, &prefix, cursor.as_deref()).await {
            Ok(page) => page,
            // The cursor is gone: the place is found again from the beginning.
            Err(KvError::Refused(_) | KvError::RefusedContent(_)) if may_have_expired => {
                (cursor, may_have_expired) = (None, false);
                continue;
            }
            Err(error) => return Err(ReconcileError::ListingStopped { namespace, keys, error }),
        };
        may_have_expired = false;
        for (name, metadata) in page.keys {
            let key = KvKey { namespace, name };
            keys += 1;
            if key < next {
                return Err(ReconcileError::ListingDoesNotAdvance { namespace, keys });
            }
            next.name = format!("{}\0", key.name);
            if range.holds(&key) {
                let held = Held::listed(metadata.as_ref(), &invocation.config.environment);
                part.table.hold(key, held);
            }
        }
        if page.cursor.is_none() || range.to.as_ref().is_some_and(|to| next >= *to) {
            return Ok(());
        }
        if page.cursor == cursor {
            return Err(ReconcileError::ListingDoesNotAdvance { namespace, keys });
        }
        cursor = page.cursor;
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
    part: &mut Part,
    account: &str,
) -> Result<(), ReconcileError> {
    let prefix = prefix_of(Namespace::Settings, account);
    let mut keys = BTreeSet::new();
    let mut after = None;
    loop {
        let page = read_page(invocation, TablePart::Account(account), after.as_ref()).await?;
        for (key, item) in &page.items {
            let Some(item_ref) = key.item().filter(|item| item.query.is_none()) else { continue };
            keys.extend(claimed_keys(&item_ref.index, &item.attributes()));
        }
        after = page.last_read;
        if after.is_none() {
            break;
        }
    }
    keys.retain(|key| part.table.covers(&KvKey::of_settings(key)));
    // KV may lack any of them. Each has a row, so that the items of other accounts which ask for it count too.
    let (listed, shop_ids): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|key| key.starts_with(&prefix));
    for key in listed.into_iter().map(KvKey::of_settings) {
        if !part.table.rows.contains_key(&key) {
            part.table.hold(key, Held::Nothing);
        }
    }
    let budget = invocation.budget;
    bulk::read(invocation, Namespace::Settings, budget, shop_ids, |name, stored| match stored {
        Ok(stored) => {
            let held = Held::read(stored.as_ref(), &invocation.config.environment);
            part.table.hold(KvKey::of_settings(name), held);
        }
        Err(_) => {
            part.unreadable.insert(name);
        }
    })
    .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{Fakes, KvFault, entry, index_item, query_config};
    use crate::export::reconcile::progress::Place;
    use crate::kv::Source;
    use crate::ports::{Cause, ListPage};
    use serde_json::json;
    use std::time::Duration;

    fn page(keys: &[&str], cursor: Option<&str>) -> ListPage {
        let keys = keys.iter().map(|key| ((*key).to_owned(), None)).collect();
        ListPage { keys, cursor: cursor.map(str::to_owned) }
    }

    fn at(name: &str, cursor: Option<&str>) -> Place {
        Place { key: KvKey::of_settings(name), cursor: cursor.map(str::to_owned) }
    }

    async fn list_from(fakes: &Fakes, place: &Place) -> Result<Part, ReconcileError> {
        let range = Range { from: place.key.clone(), to: None, account: None };
        list(&fakes.invocation(Source::Reconcile), range, place.cursor.clone()).await
    }

    /// The names that were listed, or the error.
    fn names(listing: &Result<Part, ReconcileError>) -> String {
        match listing {
            Ok(listing) => {
                let names = listing.table.rows.keys().map(|key| key.name.as_str());
                names.collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    fn refused() -> KvFault {
        KvFault::Fails(KvError::RefusedContent(Cause::new("400")))
    }

    #[tokio::test(start_paused = true)]
    async fn how_a_listing_is_followed() {
        let stopped = |keys| {
            format!("the listing of Settings stopped after {keys} keys; nothing was written")
        };
        let circle = |keys| {
            format!(
                "the listing of Settings goes round in a circle after {keys} keys; nothing was written"
            )
        };
        let (start, later) = (|| at("", None), || at("b", Some("1")));
        let auth = KvError::AuthRejected(Cause::new("401"));
        let same_cursor = vec![page(&["a"], Some("1")), page(&[], Some("1"))];
        let same_key = vec![page(&["a", "b"], Some("1")), page(&["b"], Some("2"))];
        let empty = vec![page(&["a"], Some("1")), page(&[], Some("2")), page(&["b"], None)];
        let whole = vec![page(&["a", "b", "c"], None)];
        let rows = [
            ("one page", start(), vec![], whole.clone(), "a b c".into()),
            ("an empty page between", start(), vec![], empty.clone(), "a b".into()),
            ("the same cursor again", start(), vec![], same_cursor, circle(1)),
            ("the same key again", start(), vec![], same_key, circle(3)),
            ("from a place", later(), vec![], whole, "b c".into()),
            ("an expired cursor", later(), vec![refused()], empty, "b".into()),
            ("refused twice", later(), vec![refused(), refused()], vec![], stopped(0)),
            ("refused without a cursor", start(), vec![refused()], vec![], stopped(0)),
            ("a refused token", later(), vec![KvFault::Fails(auth)], vec![], stopped(0)),
        ];
        for (name, place, faults, pages, expected) in rows {
            let fakes = Fakes::new();
            fakes.kv.faults.then(faults);
            fakes.kv.pages.then(pages);
            assert_eq!(names(&list_from(&fakes, &place).await), expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_half_of_the_time_is_over_the_rest_is_left_to_another_part() {
        let fakes = Fakes::new();
        fakes.kv.faults.then([KvFault::TimesOut]);
        // The first page is before the range.
        fakes.kv.pages.then([page(&["a"], Some("1")), page(&["b", "c"], Some("2"))]);
        let mut invocation = fakes.invocation(Source::Reconcile);
        invocation.budget.deadline = Instant::now() + Duration::from_secs(60);
        let range = Range { from: KvKey::of_settings("b"), ..Range::default() };
        let listing = list(&invocation, range, None).await.unwrap();
        let end = listing.end().unwrap().clone();
        assert_eq!(end.name, "c\0", "the first name that can come after it");
        assert_eq!(listing.place_of(end), at("c\0", Some("2")));
        assert_eq!(listing.place_of(KvKey::of_settings("c")), at("c", Some("1")));
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_account_its_prefixes_are_listed_and_the_shop_ids_read_that_it_asks_for() {
        let fakes = Fakes::new();
        let config = query_config("i", "q").kv_key();
        let other = config.replacen("qcfg-a-", "qcfg-b-", 1);
        for key in ["a-i", "b-i", "s", "t", &config, &other] {
            fakes.kv.hold_entry(key, &entry("i", &json!({})));
        }
        fakes.table.put(index_item("i", &json!({"shop_id": {"S": "s"}})));
        fakes.table.put(index_item("j", &json!({"shop_id": {"S": "absent"}})));
        let invocation = fakes.invocation(Source::Reconcile);
        let range = Range { account: Some("a".to_owned()), ..Range::default() };
        let listing = list(&invocation, range, None).await;
        assert_eq!(names(&listing), format!("a-i a-j absent s {config}"));
    }
}
