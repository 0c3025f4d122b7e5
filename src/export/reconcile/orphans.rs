//! Keys that no item asks for, those that the writes left behind, and those of which it is open whose
//! they are: looked at as settling would, held against the brake, and settled.

use super::part::{Part, Unclaimed};
use super::row::ToWrite;
use super::run::Run;
use crate::export::error::KeyError;
use crate::export::settle::{self, SettleRequest, Verdict};
use crate::item::ItemKind;
use crate::kv::StoredSettings;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{KvError, Namespace, Services};

/// Keys that are named, looked at and settled in one go.
pub const CHUNK_KEYS: usize = 5_000;

/// Requests of one settling beside the reads of the values: deletes, writes, and put-backs.
pub const SETTLE_REQUESTS: usize = 4;

/// What a look at some keys has found.
#[derive(Default)]
struct Looked {
    orphaned: Vec<String>,
    /// Keys that KV names for another account, and that settling would write for this one.
    stale: Vec<String>,
}

impl<S: Services> Run<'_, S> {
    /// Looks at all keys of the part that no item asks for, and settles them if the brake allows it.
    pub(super) async fn settle_orphans(&mut self, part: &mut Part) {
        let settled = match part.namespace {
            Namespace::Settings => self.settle_settings(part).await,
            Namespace::QueryConfigs => self.remove_query_configs_nobody_has(part).await,
        };
        if let Err(error) = settled {
            self.stop(format!("the orphaned keys could not be named: {error}"));
        }
    }

    async fn settle_settings(&mut self, part: &mut Part) -> Result<(), KvError> {
        self.settle_left_behind(part).await;
        let mut unclaimed = Unclaimed::of(part);
        let mut chunk = self.next_unclaimed(part, &mut unclaimed, CHUNK_KEYS).await?;
        chunk.extend(part.keys.to_write(ToWrite::Contested).map(|(key, _)| key.clone()));
        if unclaimed.is_empty() {
            self.settle_in_one_go(part, chunk).await;
            return Ok(());
        }
        // So many that what is to be deleted is known only after all have been looked at.
        let mut orphaned = 0;
        while !chunk.is_empty() {
            orphaned += self.look(part, chunk).await.orphaned.len();
            chunk = self.next_unclaimed(part, &mut unclaimed, CHUNK_KEYS).await?;
        }
        let allowed = self.allow_deletes(part, u64::try_from(orphaned).unwrap_or(u64::MAX));
        if !allowed || !self.request.apply {
            return Ok(());
        }
        let mut unclaimed = Unclaimed::of(part);
        loop {
            let chunk = self.next_unclaimed(part, &mut unclaimed, CHUNK_KEYS).await?;
            if chunk.is_empty() {
                return Ok(());
            }
            self.settle(part, SettleRequest::of_keys(chunk)).await;
        }
    }

    /// The look that says what is orphaned is the one that settling begins with.
    async fn settle_in_one_go(&mut self, part: &mut Part, keys: Vec<String>) {
        if keys.is_empty() || !self.wait_to_settle(part, &keys).await {
            return;
        }
        let mut api_keys = self.api_keys.renewed();
        let request = SettleRequest::of_keys(keys);
        let mut preview = settle::preview(self.invocation, request, &mut api_keys).await;
        self.found_indexes |= preview.has_indexes();
        let Looked { orphaned, stale } = self.judge_verdicts(part, preview.verdicts());
        let number = |keys: &[String]| u64::try_from(keys.len()).unwrap_or(u64::MAX);
        let mut settled = Vec::new();
        if self.allow_deletes(part, number(&orphaned)) {
            settled.extend(orphaned);
        }
        if self.allow_rewrites_of_contested(part, number(&stale)) {
            settled.extend(stale);
        }
        if self.request.apply && !settled.is_empty() {
            preview.keep_only(&settled);
            let verdicts = preview.carry_out().await;
            self.note_settled(part, verdicts);
        }
    }

    async fn look(&mut self, part: &mut Part, keys: Vec<String>) -> Looked {
        if !self.wait_to_settle(part, &keys).await {
            return Looked::default();
        }
        let mut api_keys = self.api_keys.renewed();
        let request = SettleRequest::of_keys(keys);
        let mut preview = settle::preview(self.invocation, request, &mut api_keys).await;
        self.found_indexes |= preview.has_indexes();
        self.judge_verdicts(part, preview.verdicts())
    }

    fn judge_verdicts(
        &mut self,
        part: &Part,
        verdicts: impl IntoIterator<Item = (String, Verdict)>,
    ) -> Looked {
        let mut looked = Looked::default();
        let account = self.account();
        for (key, verdict) in verdicts {
            let contested = !part.keys.is_unclaimed(&key);
            let counts = &mut self.report.settings;
            let (count, class) = match verdict {
                Verdict::Failed(error) => {
                    self.fail(Namespace::Settings, &key, &error);
                    continue;
                }
                Verdict::Written(index) if contested && Some(index.account.as_str()) == account => {
                    looked.stale.push(key.clone());
                    (&mut counts.stale, "stale")
                }
                Verdict::Written(_) if contested => (&mut counts.conflicting, "conflicting"),
                Verdict::Deleted if !contested => {
                    looked.orphaned.push(key.clone());
                    (&mut counts.orphaned, "orphaned")
                }
                Verdict::Withheld(_) => (&mut counts.withheld, "withheld"),
                // Nothing to do: asked for again since the scan, kept for a rejected item, gone, or
                // another account's.
                Verdict::Written(_) | Verdict::Deleted | Verdict::Left => continue,
            };
            *count += 1;
            self.report.example(class, &key);
        }
        looked
    }

    fn allow_rewrites_of_contested(&mut self, part: &Part, keys: u64) -> bool {
        let allowed = self.brakes(part).allow_rewrites(part.keys.counts().stale + keys);
        if !allowed {
            self.refused.rewrite += keys;
        }
        allowed
    }

    /// Settles what the repair has written for items that no longer ask for it.
    async fn settle_left_behind(&mut self, part: &mut Part) {
        for (item, keys) in std::mem::take(&mut part.left_behind) {
            let ItemKind::IndexSettings(index) = item.kind() else { continue };
            let number = u64::try_from(keys.len()).unwrap_or(u64::MAX);
            if self.allow_deletes(part, number) {
                self.settle(part, SettleRequest::written_for(&index, keys)).await;
            }
        }
    }

    async fn settle(&mut self, part: &Part, request: SettleRequest) {
        let keys: Vec<String> = request.keys.keys().cloned().collect();
        if keys.is_empty() || !self.wait_to_settle(part, &keys).await {
            return;
        }
        let mut api_keys = self.api_keys.renewed();
        let verdicts = settle::settle(self.invocation, request, &mut api_keys).await;
        self.note_settled(part, verdicts);
    }

    fn note_settled(&mut self, part: &Part, verdicts: impl IntoIterator<Item = (String, Verdict)>) {
        for (key, verdict) in verdicts {
            match verdict {
                Verdict::Written(_) => {
                    self.report.settings.written += 1;
                    let rewritten = u64::from(part.keys.is_listed(&key));
                    self.progress.tally(Namespace::Settings).rewritten += rewritten;
                }
                Verdict::Deleted => {
                    self.report.settings.deleted += 1;
                    self.progress.tally(Namespace::Settings).deleted += 1;
                }
                Verdict::Failed(error) => self.fail(Namespace::Settings, &key, &error),
                Verdict::Withheld(_) | Verdict::Left => {}
            }
        }
    }

    /// Waits until all requests of a settling may be made; false where there is no time for it.
    async fn wait_to_settle(&mut self, part: &Part, keys: &[String]) -> bool {
        let requests = keys.len().div_ceil(MAX_BULK_GET_KEYS) + SETTLE_REQUESTS;
        let turn = self.invocation.wait_for_turn(requests, self.invocation.deadline).await;
        if turn.is_err() {
            for key in keys {
                self.fail(part.namespace, key, &KeyError::Kv(KvError::OutOfTime));
            }
        }
        turn.is_ok()
    }

    /// Reads the keys of shop ids that items of the one account may have given up: those that values
    /// name under index ids that differ from the table. The writes are about to replace these.
    pub(super) async fn find_given_up_shop_ids(&mut self, part: &mut Part) {
        if part.is_of_settings()
            && let Err(error) = self.read_shop_ids_in_values(part).await
        {
            self.stop(format!("shop ids that were given up could not be looked up: {error}"));
        }
    }

    async fn read_shop_ids_in_values(&mut self, part: &mut Part) -> Result<(), KvError> {
        let mut names: Vec<String> =
            part.keys.to_write(ToWrite::Stale).map(|(key, _)| key.clone()).collect();
        let mut unclaimed = Unclaimed::of(part);
        loop {
            let (values, failures) = self.read_values(Namespace::Settings, names).await;
            for (key, error) in failures {
                self.fail(Namespace::Settings, &key, &error.into());
            }
            let stored = values.values().filter_map(|stored| StoredSettings::parse(&stored.value));
            let shop_ids = stored.filter_map(|stored| stored.shop_id);
            let shop_ids = shop_ids.filter(|key| !part.is_listed(key)).collect();
            self.read_unlisted(part, shop_ids).await;
            names = self.next_unclaimed(part, &mut unclaimed, CHUNK_KEYS).await?;
            if names.is_empty() {
                return Ok(());
            }
        }
    }
}
