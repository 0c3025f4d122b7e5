//! KV in a dry run: everything happens but the calls to Cloudflare.

use std::collections::BTreeMap;

use crate::entry::{Pair, Stored};
use crate::ports::{BulkReply, KvError, KvStore, ListPage, Namespace};

/// A KV that takes everything and holds nothing.
pub struct DryRunKv;

impl KvStore for DryRunKv {
    async fn put(&self, _: Namespace, _: &[Pair]) -> Result<BulkReply, KvError> {
        Ok(BulkReply::default())
    }

    async fn delete(&self, _: Namespace, _: &[String]) -> Result<BulkReply, KvError> {
        Ok(BulkReply::default())
    }

    async fn get(&self, _: Namespace, _: &[String]) -> Result<BTreeMap<String, Stored>, KvError> {
        Ok(BTreeMap::new())
    }

    async fn list(&self, _: Namespace, _: &str, _: Option<&str>) -> Result<ListPage, KvError> {
        Ok(ListPage::default())
    }
}
