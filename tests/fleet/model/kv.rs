//! KV: it lists, and holds what is written.

use std::collections::BTreeMap;
use std::time::Duration;

use ecom_settings_exporter::kv::{Pair, StoredValue};
use ecom_settings_exporter::ports::{BulkReply, KvError, KvStore, ListPage, Namespace, RateLimit};
use tokio::time::Instant;

use super::held::{Held, Namespaces};
use super::pace::Work;
use super::stack::Ports;

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
            let retry_after = Some(Duration::from_secs(number % 4));
            return Err(KvError::Transient { reason: "429".to_owned(), retry_after });
        }
        taken.map(drop)
    }
}

impl KvStore for Ports {
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError> {
        self.kv_request(self.world.pace.kv).await?;
        let world = &self.world;
        world.asked.borrow_mut().puts.push((namespace, pairs.len()));
        for Pair { key, entry } in pairs {
            let held = Some(Held::Written(entry.to_stored()));
            world.namespaces.set(&world.fleet, namespace, key, held);
            let mut asked = world.asked.borrow_mut();
            asked.changes += 1;
            let versions = asked.written.entry(key.clone()).or_default();
            versions.push((Instant::now(), entry.digest()));
        }
        Ok(BulkReply::default())
    }

    async fn delete(&self, namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError> {
        self.kv_request(self.world.pace.kv).await?;
        for key in keys {
            let is_there = self.world.held(namespace, key).is_some();
            let mut asked = self.world.asked.borrow_mut();
            asked.changes += 1;
            asked.deleted += u64::from(is_there);
            drop(asked);
            self.world.namespaces.set(&self.world.fleet, namespace, key, None);
        }
        Ok(BulkReply::default())
    }

    async fn get(
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

    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError> {
        self.kv_request(self.world.pace.list).await?;
        {
            let mut asked = self.world.asked.borrow_mut();
            let before = asked.lists.filter(|(listed, _)| *listed == namespace);
            asked.lists = Some((namespace, before.map_or(0, |(_, pages)| pages) + 1));
        }
        let page = self.listed(namespace, prefix, cursor);
        let work = Work { listed_keys: page.keys.len(), ..Work::default() };
        self.cpu.work(&self.world.pace, work).await;
        Ok(page)
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.left.get()
    }
}

impl Ports {
    /// A page; a cursor is the last key before it.
    fn listed(&self, namespace: Namespace, prefix: &str, cursor: Option<&str>) -> ListPage {
        let (world, fleet) = (&self.world, &self.world.fleet);
        let blocks = Namespaces::blocks(fleet, namespace);
        let first = match cursor {
            Some(key) => Namespaces::block_of(fleet, namespace, key),
            None if prefix.is_empty() => 0,
            None => Namespaces::block_of(fleet, namespace, &format!("{prefix}i000")),
        };
        let mut page = ListPage::default();
        for number in first..blocks {
            let block = world.namespaces.block(fleet, namespace, number);
            for (key, held) in block {
                if cursor.is_some_and(|cursor| *key <= *cursor) {
                    continue;
                }
                if !key.starts_with(prefix) {
                    return page;
                }
                if page.keys.len() == world.page_keys {
                    page.cursor = page.keys.last().map(|(key, _)| key.clone());
                    return page;
                }
                let metadata = held.metadata(fleet);
                page.keys.push((key, metadata));
            }
        }
        page
    }
}
