//! What the services hold of a fleet, how long they take, and what they refuse. Where the other tests
//! keep what was written, this works out what follows from numbers: ten million keys would not fit.

use std::collections::BTreeMap;
use std::time::Duration;

use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::kv::{Entry, StoredValue};
use ecom_settings_exporter::ports::{
    Cause, KvError, ListPage, Namespace, Query, RateLimit, ScanColumns, TableError, TablePage,
};
use tokio::time::Instant;

use super::memory::{Backend, Change, KvFault, Listing, Part, table_page};
use super::{Held, ItemId, Namespaces, Ports, Work};

/// What DynamoDB counts as one read, in bytes.
const READ_UNIT: usize = 4_096;

impl Ports {
    /// One request to KV: it is counted, takes its time, and says what is left.
    async fn kv_request(&self, takes: Duration) -> Result<(), KvError> {
        let world = &self.world;
        world.asked.borrow_mut().kv.push(Instant::now());
        let taken = world.limit.take(self.name);
        tokio::time::sleep(takes).await;
        if let Ok(left) = &taken
            && world.says_what_is_left
        {
            self.left.set(Some(*left));
        }
        let number = world.asked.borrow().kv.len() as u64;
        if world.refuses_one_in > 0 && number.is_multiple_of(world.refuses_one_in) {
            let asked_wait = Some(Duration::from_secs(number % 4));
            return Err(KvError::Transient(Cause { asked_wait, ..Cause::new("429") }));
        }
        taken.map(drop)
    }
}

impl Backend for Ports {
    type Held = Held;

    fn held(_: Namespace, entry: &Entry) -> Held {
        Held::Written(entry.to_stored())
    }

    async fn write(&self, namespace: Namespace, changes: &[Change<Held>]) -> Option<KvFault> {
        if let Err(error) = self.kv_request(self.world.pace.kv).await {
            return Some(KvFault::Fails(error));
        }
        if changes.iter().all(|(_, held)| held.is_some()) {
            self.world.asked.borrow_mut().puts.push((namespace, changes.len()));
        }
        None
    }

    fn change(&self, namespace: Namespace, key: String, held: Option<Held>) {
        let world = &self.world;
        let mut asked = world.asked.borrow_mut();
        asked.changes += 1;
        match held.as_ref().and_then(|held| held.digest(&world.fleet)) {
            None => asked.deleted += u64::from(world.held(namespace, &key).is_some()),
            Some(digest) => {
                asked.written.entry(key.clone()).or_default().push((Instant::now(), digest));
            }
        }
        world.namespaces.set(&world.fleet, namespace, &key, held);
    }

    async fn read(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError> {
        self.kv_request(self.world.pace.kv).await?;
        let found = keys.iter().filter_map(|key| {
            let held = self.world.held(namespace, key)?;
            Some((key.clone(), held.stored(&self.world.fleet)))
        });
        Ok(found.collect())
    }

    async fn list(&self, of: Listing<'_>) -> Result<ListPage, KvError> {
        self.kv_request(self.world.pace.list).await?;
        {
            let mut asked = self.world.asked.borrow_mut();
            let before = asked.lists.filter(|(listed, _)| *listed == of.namespace);
            asked.lists = Some((of.namespace, before.map_or(0, |(_, pages)| pages) + 1));
        }
        let (world, fleet) = (&self.world, &self.world.fleet);
        let first = match of.cursor {
            Some(key) => Namespaces::block_of(fleet, of.namespace, key),
            None if of.prefix.is_empty() => 0,
            None => Namespaces::block_of(fleet, of.namespace, &format!("{}i000", of.prefix)),
        };
        let blocks = first..Namespaces::blocks(fleet, of.namespace);
        let keys = blocks.flat_map(|block| world.namespaces.block(fleet, of.namespace, block));
        let page = of.page(keys, world.page_keys, |_, held| Some(held.metadata(fleet)));
        let work = Work { listed_keys: page.keys.len(), ..Work::default() };
        self.cpu.work(&world.pace, work).await;
        Ok(page)
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.left.get()
    }

    async fn items(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError> {
        let world = &self.world;
        world.asked.borrow_mut().table += 1;
        tokio::time::sleep(world.pace.get).await;
        let mut asked = world.asked.borrow_mut();
        asked.accounts.extend(keys.iter().map(|key| key.pk.clone()));
        let ids = keys.iter().filter_map(|key| world.fleet.item_of(key));
        let items = ids.filter(|id| world.fleet.has_item(*id));
        let items: BTreeMap<_, _> = items.map(|id| world.item(id, false)).collect();
        asked.consistent_bytes += (items.len() * READ_UNIT) as u64;
        Ok(items)
    }

    async fn page(&self, part: Part<'_>, after: Option<&ItemKey>) -> Result<TablePage, TableError> {
        let world = &self.world;
        let fleet = &world.fleet;
        let mut columns = ScanColumns::All;
        let all = match part {
            Part::Query(Query::ConfigsOf(_) | Query::Between(..)) => {
                // Only a re-export asks for these, and a fleet's runs make none.
                let cause = Cause::new("the fleet answers none");
                return Err(TableError { operation: "Query", throttled: false, cause });
            }
            Part::Query(Query::Account(account)) => {
                world.asked.borrow_mut().accounts.insert(account.to_owned());
                let Some(index) = fleet.index_in(&format!("{account}-i000"), 0) else {
                    return Ok(TablePage::default());
                };
                let begin = index / fleet.size.indexes * fleet.items_of_account();
                begin..begin + fleet.items_of_account()
            }
            Part::Segment { columns: asked, segment, segments } => {
                columns = asked;
                world.asked.borrow_mut().segments += u64::from(after.is_none());
                if let Some(left) = world.throttled.get().checked_sub(1) {
                    world.throttled.set(left);
                    tokio::time::sleep(world.pace.page).await;
                    let cause = Cause::new("throttled");
                    return Err(TableError { operation: "Scan", throttled: true, cause });
                }
                let begin = |segment: u32| {
                    segment as usize * fleet.size.accounts / segments as usize
                        * fleet.items_of_account()
                };
                begin(segment)..begin(segment + 1)
            }
        };
        let after = after.and_then(|key| fleet.item_of(key)).map(|item| fleet.position(item) + 1);
        let claims = columns == ScanColumns::Claims;
        let (mut work, mut bytes) = (Work::default(), 0);
        // The page is read when it is asked for.
        let page = table_page(
            (after.unwrap_or(all.start)..all.end)
                .map(|position| fleet.item_at(position))
                .filter(|id| fleet.has_item(*id)),
            world.page_bytes,
            |id| fleet.item_bytes(*id),
            |id| fleet.item_key(*id),
            |id: &ItemId| {
                bytes += fleet.item_bytes(*id);
                match (id.query, claims) {
                    (None, false) => work.settings += 1,
                    (None, true) => work.claims += 1,
                    (Some(_), false) => work.query_configs += 1,
                    (Some(_), true) => return None,
                }
                Some(world.item(*id, claims))
            },
        );
        {
            let mut asked = world.asked.borrow_mut();
            asked.table += 1;
            let read = bytes.next_multiple_of(READ_UNIT) as u64;
            match columns {
                ScanColumns::AllEventuallyConsistent => asked.eventual_bytes += read,
                ScanColumns::All | ScanColumns::Claims => asked.consistent_bytes += read,
            }
        }
        tokio::time::sleep(world.pace.page).await;
        self.cpu.work(&world.pace, work).await;
        Ok(page)
    }
}
