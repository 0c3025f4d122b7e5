//! KV as it is configured: Cloudflare, or nothing at all in a dry run.

use std::collections::BTreeMap;

use super::client::CloudflareKv;
use crate::kv::{Pair, StoredValue};
use crate::ports::{BulkReply, KvError, KvStore, ListPage, Namespace, RateLimit};

/// Where KV entries go. One type for both, so that the use cases are compiled once.
pub enum KvOrDryRun {
    /// To Cloudflare.
    Cloudflare(CloudflareKv),
    /// Nowhere: everything happens but the calls to Cloudflare.
    DryRun,
}

impl KvStore for KvOrDryRun {
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError> {
        match self {
            Self::Cloudflare(kv) => kv.put(namespace, pairs).await,
            Self::DryRun => Ok(BulkReply::default()),
        }
    }

    async fn delete(&self, namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError> {
        match self {
            Self::Cloudflare(kv) => kv.delete(namespace, keys).await,
            Self::DryRun => Ok(BulkReply::default()),
        }
    }

    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError> {
        match self {
            Self::Cloudflare(kv) => kv.get(namespace, keys).await,
            Self::DryRun => Ok(BTreeMap::new()),
        }
    }

    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError> {
        match self {
            Self::Cloudflare(kv) => kv.list(namespace, prefix, cursor).await,
            Self::DryRun => Ok(ListPage::default()),
        }
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        match self {
            Self::Cloudflare(kv) => kv.rate_limit(),
            Self::DryRun => None,
        }
    }
}
