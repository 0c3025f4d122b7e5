//! Lists KV, compares each key, and looks at the orphans as settling would.

use tracing::warn;

use super::desired_keys::Compared;
use super::listed::{Listed, Writer, classify};
use super::{NAMESPACES, ReconcileError, Reconciling, WORK_KEYS, asked_keys};
use crate::export::bulk;
use crate::export::settle::{self, SettleRequest, Verdict};
use crate::export::table::Pass;
use crate::index::IndexRef;
use crate::item::keys::query_config_keys_of;
use crate::kv::{Digest, Metadata};
use crate::ports::{KvError, Namespace, Services};

impl<S: Services> Reconciling<'_, S> {
    /// Lists both namespaces and compares each key.
    pub(super) async fn list(&mut self) -> Result<(), ReconcileError> {
        for namespace in NAMESPACES {
            self.list_namespace(namespace).await?;
            let unlisted = self.desired(namespace).close_listing();
            let counts = self.report.counts(namespace);
            counts.missing = unlisted.missing;
            counts.failed += unlisted.unknown;
        }
        let open: u64 = NAMESPACES.iter().map(|name| self.report.counts(*name).failed).sum();
        if open > 0 {
            warn!(
                keys = open,
                "keys could not be compared: the API keys of their accounts are unavailable"
            );
        }
        Ok(())
    }

    async fn list_namespace(&mut self, namespace: Namespace) -> Result<(), ReconcileError> {
        let prefix = match (namespace, self.account) {
            (Namespace::QueryConfigs, Some(account)) => query_config_keys_of(account),
            _ => String::new(),
        };
        let mut cursor: Option<String> = None;
        loop {
            let page = bulk::list(self.invocation, namespace, &prefix, cursor.as_deref()).await;
            let page = page.map_err(|error| match error {
                error @ KvError::AuthRejected { .. } => {
                    ReconcileError::CloudflareAuthRejected(error)
                }
                error => {
                    let keys = self.report.counts(namespace).listed;
                    ReconcileError::ListingStopped { namespace, keys, error }
                }
            })?;
            for (key, metadata) in &page.keys {
                self.compare(namespace, key, metadata.as_ref());
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    fn compare(&mut self, namespace: Namespace, key: &str, metadata: Option<&Metadata>) {
        if namespace == Namespace::Settings {
            self.pointed_at.remove(key);
        }
        let writer = Writer::of(metadata, &self.invocation.config.environment);
        let asked_for = self.desired(namespace).asks_for(key);
        let listed = classify(writer, self.account, asked_for);
        if listed == Listed::OfAnotherAccount {
            return;
        }
        self.report.counts(namespace).listed += 1;
        if let Writer::Ours(_) = writer {
            *self.ours.entry(namespace).or_default() += 1;
        }
        match listed {
            Listed::OfAnotherAccount => {}
            Listed::Taken => self.take(namespace, key),
            Listed::Contested => {
                // Whether the other account still asks for the key is for settling to find out.
                self.desired(namespace).leave(key);
                if namespace == Namespace::Settings {
                    self.contested.insert(key.to_owned());
                }
            }
            Listed::Foreign => {
                self.report.counts(namespace).foreign += 1;
                self.report.example("foreign", key);
            }
            Listed::Unclaimed => {
                self.orphans.entry(namespace).or_default().push(key.to_owned());
            }
            Listed::AskedFor => {
                let digest = metadata.and_then(|metadata| metadata.digest);
                self.compare_value(namespace, key, writer.index(), digest);
            }
        }
    }

    fn compare_value(
        &mut self,
        namespace: Namespace,
        key: &str,
        named: Option<&IndexRef>,
        digest: Option<Digest>,
    ) {
        if self.desired(namespace).is_conflicting(key) {
            self.report.example("conflicting", key);
        }
        match self.desired(namespace).compare(key, named, digest) {
            Compared::Right | Compared::Rejected | Compared::NotWanted => {}
            Compared::Stale => {
                self.report.counts(namespace).stale += 1;
                self.report.example("stale", key);
            }
            Compared::Unknown => {
                self.report.counts(namespace).failed += 1;
                self.report.example("failed", key);
            }
        }
    }

    /// Notes a key that an item asks for and that another environment has written.
    fn take(&mut self, namespace: Namespace, key: &str) {
        if !self.desired(namespace).is_conflicting(key) {
            self.report.counts(namespace).conflicting += 1;
        }
        self.report.example("conflicting", key);
        let rewrite = self.raised.rewrites.is_some();
        if self.desired(namespace).take(key, rewrite) {
            *self.taken.entry(namespace).or_default() += 1;
        }
    }

    /// Finds names of missing keys for the report: only hashes of them are held.
    pub(super) async fn name_missing(&mut self) {
        let missing: u64 =
            NAMESPACES.iter().map(|namespace| self.report.counts(*namespace).missing).sum();
        if missing == 0 {
            return;
        }
        let mut pass = Pass::new(self.invocation, self.items());
        while !self.report.has_enough_examples("missing") {
            let items = match pass.next().await {
                Ok(Some(items)) => items,
                Ok(None) => return,
                Err(error) => {
                    warn!(error = %error, "not all missing keys could be named");
                    return;
                }
            };
            for (key, item) in &items {
                let Some((namespace, index, keys)) = asked_keys(key, item) else { continue };
                for key in keys {
                    if self.desired(namespace).is_missing(&key, &index) {
                        self.report.example("missing", &key);
                    }
                }
            }
        }
    }

    /// Looks at the orphans as settling would, without doing anything.
    pub(super) async fn look_at_orphans(&mut self) {
        let orphans = self.orphans.remove(&Namespace::Settings).unwrap_or_default();
        let keys: Vec<String> = orphans.into_iter().chain(self.contested.clone()).collect();
        for keys in keys.chunks(WORK_KEYS) {
            let request = SettleRequest::of_keys(keys.iter().cloned());
            for (key, verdict) in
                settle::preview(self.invocation, request, &mut self.api_keys).await
            {
                self.judge(key, verdict);
            }
        }
        for key in self.orphans.get(&Namespace::QueryConfigs).cloned().unwrap_or_default() {
            self.report.query_configs.orphaned += 1;
            self.report.example("orphaned", &key);
        }
    }

    /// Counts what settling says of a key, and notes it if there is something to do.
    fn judge(&mut self, key: String, verdict: Verdict) {
        let contested = self.contested.contains(&key);
        let counts = &mut self.report.settings;
        let (count, class) = match verdict {
            Verdict::Failed(error) => return self.fail(Namespace::Settings, &key, &error),
            Verdict::Written(index)
                if contested && Some(index.account.as_str()) == self.account =>
            {
                (&mut counts.stale, "stale")
            }
            Verdict::Written(_) if contested => (&mut counts.conflicting, "conflicting"),
            Verdict::Deleted if !contested => (&mut counts.orphaned, "orphaned"),
            Verdict::Withheld(_) => (&mut counts.withheld, "withheld"),
            // Nothing to do: asked for again since the scan, kept for a rejected item, gone, or
            // another account's.
            Verdict::Written(_) | Verdict::Deleted | Verdict::Left => return,
        };
        *count += 1;
        self.report.example(class, &key);
        match class {
            "stale" => self.contested_stale.push(key),
            "orphaned" => self.orphans.entry(Namespace::Settings).or_default().push(key),
            _ => {}
        }
    }
}
