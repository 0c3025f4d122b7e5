//! KV in memory. Bulk requests change each key by itself.

use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::kv::{Metadata, Pair, StoredValue};
use ecom_settings_exporter::ports::{BulkReply, KvError, KvStore, ListPage, Namespace};

use serde_json::value::RawValue;

use crate::checks;
use crate::faults::{Call, Failure, Fault};
use crate::held::Held;
use crate::ports::Ports;

/// Keys in a page of a listing.
const PAGE: usize = 2;

impl Ports {
    /// Carries out a bulk request on the keys that the fault allows.
    async fn bulk(
        &self,
        namespace: Namespace,
        changes: Vec<(String, Option<Rc<Held>>)>,
    ) -> Result<BulkReply, KvError> {
        {
            let mut state = self.state.borrow_mut();
            checks::request(&mut state, self.invocation, namespace, &changes);
        }
        let fault = self.enter(Call::KvWrite).await;
        let done = |at: usize| match fault {
            Fault::None | Fault::Crash { .. } | Fault::Hang { .. } => true,
            Fault::Fail { done, .. } => done,
            Fault::Half { .. } => at.is_multiple_of(2),
            Fault::Unsuccessful { all, done } => done || !(all || at.is_multiple_of(2)),
            Fault::Late => false,
        };
        let mut unsuccessful = Vec::new();
        let mut late = Vec::new();
        for (at, (key, held)) in changes.into_iter().enumerate() {
            if let Fault::Unsuccessful { all, .. } = fault
                && (all || at.is_multiple_of(2))
            {
                unsuccessful.push(key.clone());
            }
            if done(at) {
                let mut state = self.state.borrow_mut();
                checks::effect(&mut state, self.invocation, namespace, &key, held.as_ref());
                state.set_held(namespace, &key, held);
            } else {
                late.push((namespace, key, held));
            }
        }
        match fault {
            Fault::Late => {
                self.state.borrow_mut().late.push(late);
                Err(failure(Failure::TooMuch))
            }
            Fault::Crash { .. } => self.crash().await,
            Fault::Hang { .. } => pending().await,
            Fault::Fail { why, .. } | Fault::Half { why } => Err(failure(why)),
            Fault::None | Fault::Unsuccessful { .. } => Ok(BulkReply { unsuccessful }),
        }
    }
}

fn failure(why: Failure) -> KvError {
    let reason = format!("{why:?}");
    match why {
        Failure::Transient => KvError::Transient { reason, retry_after: None },
        Failure::RateLimited => {
            KvError::Transient { reason, retry_after: Some(Duration::from_secs(9)) }
        }
        Failure::TooMuch => KvError::TooMuch { reason },
        Failure::Refused => KvError::Refused { reason },
        Failure::Auth => KvError::AuthRejected { reason },
        Failure::NoToken => KvError::NoToken { reason },
    }
}

impl KvStore for Ports {
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError> {
        let changes = pairs.iter().map(|Pair { key, entry }| {
            let StoredValue { value, metadata } = entry.to_stored();
            let metadata = metadata.map(|json| json.get().to_owned());
            (key.clone(), Some(Held::new(namespace, value, metadata)))
        });
        self.bulk(namespace, changes.collect()).await
    }

    async fn delete(&self, namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError> {
        self.bulk(namespace, keys.iter().map(|key| (key.clone(), None)).collect()).await
    }

    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError> {
        self.state.borrow_mut().invocations[self.invocation].kv_reads += 1;
        if let Fault::Fail { why, .. } = self.enter(Call::KvRead).await {
            return Err(failure(why));
        }
        let state = self.state.borrow();
        let found = keys.iter().filter_map(|key| {
            let held = state.held(namespace, key)?;
            let value = held.value.clone();
            let metadata = held.metadata.clone();
            let metadata = metadata.and_then(|json| RawValue::from_string(json).ok());
            Some((key.clone(), StoredValue { value, metadata }))
        });
        Ok(found.collect())
    }

    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError> {
        if let Fault::Fail { why, .. } = self.enter(Call::KvRead).await {
            return Err(failure(why));
        }
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        // The last reconcile of a history finds KV at rest, and its listings are up to date.
        let stale = state.shape.late && !state.quiet;
        let mut page = ListPage::default();
        for ((found, key), past) in &state.kv {
            let old = stale && state.choices.below(8) == 1;
            let mut spans = past.spans().rev();
            let held = if old { spans.nth(1).or(past.spans().next()) } else { spans.next() };
            let Some((_, _, Some(held))) = held else { continue };
            let after = cursor.is_none_or(|cursor| key.as_str() > cursor);
            if *found != namespace || !after || !key.starts_with(prefix) {
                continue;
            }
            if page.keys.len() == PAGE {
                page.cursor = page.keys.last().map(|(key, _)| key.clone());
                break;
            }
            let metadata = held.metadata.as_deref();
            page.keys.push((key.clone(), metadata.and_then(Metadata::parse)));
        }
        Ok(page)
    }
}
