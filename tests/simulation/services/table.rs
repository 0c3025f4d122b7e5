//! The settings table, in memory: every read is consistent, and each page is read by itself.

use std::collections::BTreeMap;

use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::ports::{
    QueryConfigs, ScanColumns, SettingsTable, TableError, TablePage,
};

use super::ports::Ports;
use crate::world::faults::{Call, Fault};
use crate::world::keys::query_of;
use crate::world::model::Image;

/// Segments of a scan that hold items. The others are empty and answer at once.
const FULL_SEGMENTS: u32 = 3;

impl Ports {
    async fn table_call(&self) -> Result<(), TableError> {
        self.state.borrow_mut().invocations[self.invocation].table_calls += 1;
        match self.enter(Call::Table).await {
            (Fault::None, _) => Ok(()),
            _ => Err(TableError { reason: "throttled".to_owned(), throttled: true }),
        }
    }

    /// A page of the items that pass, after `after`.
    fn page(
        &self,
        after: Option<&ItemKey>,
        pass: impl Fn(&ItemKey) -> bool,
        render: impl Fn(&Image) -> Item,
    ) -> TablePage {
        let state = self.state.borrow();
        let mut page = TablePage::default();
        for (key, past) in &state.environment_of(self.invocation).table {
            let Some(image) = past.last().and_then(Option::as_ref) else { continue };
            if after.is_some_and(|after| key <= after) || !pass(key) {
                continue;
            }
            if page.items.len() == state.shape.page {
                page.last_read = page.items.last().map(|(key, _)| key.clone());
                break;
            }
            page.items.push((key.clone(), render(image)));
        }
        page
    }
}

impl SettingsTable for Ports {
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError> {
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.table_call().await?;
        let state = self.state.borrow();
        let environment = state.environment_of(self.invocation);
        let found = keys
            .iter()
            .filter_map(|key| Some((key.clone(), environment.current(key)?.item.clone())));
        Ok(found.collect())
    }

    async fn query_configs(
        &self,
        part: QueryConfigs<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        self.table_call().await?;
        let pass = |key: &ItemKey| match part {
            QueryConfigs::All(index) => {
                let prefix = format!("INDEX#{}#QUERY#", index.name);
                key.pk == index.account && key.sk.starts_with(&prefix)
            }
            QueryConfigs::Between(first, last) => {
                key.pk == first.pk && first.sk <= key.sk && key.sk <= last.sk
            }
        };
        Ok(self.page(after, pass, |image| image.item.clone()))
    }

    async fn scan(
        &self,
        columns: ScanColumns,
        segment: u32,
        segments: u32,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        let plain = self.state.borrow().shape.is_plain();
        let full = if plain { 1 } else { FULL_SEGMENTS.min(segments) };
        if segment >= full {
            return Ok(TablePage::default());
        }
        self.table_call().await?;
        // A page that fails is asked for again in the same pass.
        if segment == 0 && after.is_none() {
            self.state.borrow_mut().invocations[self.invocation].passes += 1;
        }
        let pass = |key: &ItemKey| {
            let own = key.pk.bytes().chain(key.sk.bytes()).map(u32::from).sum::<u32>() % full;
            own == segment && (columns != ScanColumns::Claims || query_of(key).is_none())
        };
        Ok(self.page(after, pass, |image| match columns {
            ScanColumns::All | ScanColumns::AllEventuallyConsistent => image.item.clone(),
            ScanColumns::Claims => image.claims.clone(),
        }))
    }

    async fn account_items(
        &self,
        account: &str,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        self.table_call().await?;
        let pass = |key: &ItemKey| key.pk == account;
        Ok(self.page(after, pass, |image| image.item.clone()))
    }
}
