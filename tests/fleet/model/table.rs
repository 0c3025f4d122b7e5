//! The table: it scans and answers to keys.

use std::collections::BTreeMap;

use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::ports::{
    QueryConfigs, ScanColumns, SettingsTable, TableError, TablePage,
};

use super::pace::Work;
use super::stack::Ports;

/// Items in one request.
const GET_ITEMS: usize = 100;

impl SettingsTable for Ports {
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError> {
        let mut found = BTreeMap::new();
        for keys in keys.chunks(GET_ITEMS) {
            self.world.asked.borrow_mut().table += 1;
            tokio::time::sleep(self.world.pace.get).await;
            for key in keys {
                self.world.asked.borrow_mut().accounts.insert(key.pk.clone());
                let Some(id) = self.world.fleet.item_of(key) else { continue };
                if self.world.fleet.has_item(id) {
                    // Each item is rounded up to 4 KB.
                    self.world.asked.borrow_mut().consistent_bytes += 4_096;
                    found.extend([self.world.fleet.item(id, self.world.version(id), false)]);
                }
            }
        }
        Ok(found)
    }

    async fn query_configs(
        &self,
        _: QueryConfigs<'_>,
        _: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        // Only a re-export asks for these, and a fleet's runs make none.
        Err(TableError { reason: "Query: the fleet answers none".to_owned(), throttled: false })
    }

    async fn scan(
        &self,
        columns: ScanColumns,
        segment: u32,
        segments: u32,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        let fleet = &self.world.fleet;
        let (segment, segments) = (segment as usize, segments as usize);
        let begin =
            |segment: usize| segment * fleet.size.accounts / segments * fleet.items_of_account();
        if after.is_none() {
            self.world.asked.borrow_mut().segments += 1;
        }
        if let Some(left) = self.world.throttled.get().checked_sub(1) {
            self.world.throttled.set(left);
            tokio::time::sleep(self.world.pace.page).await;
            return Err(TableError { reason: "Scan: throttled".to_owned(), throttled: true });
        }
        self.page(columns, begin(segment), begin(segment + 1), after).await
    }

    async fn account_items(
        &self,
        account: &str,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        self.world.asked.borrow_mut().accounts.insert(account.to_owned());
        let fleet = &self.world.fleet;
        let Some(index) = fleet.index_in(&format!("{account}-i000"), 0) else {
            return Ok(TablePage::default());
        };
        let begin = index / fleet.size.indexes * fleet.items_of_account();
        self.page(ScanColumns::All, begin, begin + fleet.items_of_account(), after).await
    }
}

impl Ports {
    /// A page of the items at `begin..end`, read when it was asked for.
    async fn page(
        &self,
        columns: ScanColumns,
        begin: usize,
        end: usize,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        let world = &self.world;
        let fleet = &world.fleet;
        let claims = columns == ScanColumns::Claims;
        let after = after.and_then(|key| fleet.item_of(key)).map(|item| fleet.position(item) + 1);
        let (mut page, mut work, mut bytes) = (TablePage::default(), Work::default(), 0);
        for position in after.unwrap_or(begin)..end {
            let id = fleet.item_at(position);
            if !fleet.has_item(id) {
                continue;
            }
            bytes += fleet.item_bytes(id);
            match (id.query, claims) {
                (None, false) => work.settings += 1,
                (None, true) => work.claims += 1,
                (Some(_), false) => work.query_configs += 1,
                (Some(_), true) => {}
            }
            if id.query.is_none() || !claims {
                page.items.push(fleet.item(id, world.version(id), claims));
            }
            if bytes >= world.page_bytes && position + 1 < end {
                page.last_read = Some(fleet.item_key(id));
                break;
            }
        }
        {
            let mut asked = world.asked.borrow_mut();
            asked.table += 1;
            let read = bytes.next_multiple_of(4_096) as u64;
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
