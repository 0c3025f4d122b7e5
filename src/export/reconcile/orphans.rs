//! Keys that no item asks for, those that the writes left behind, and those of which it is open whose
//! they are: looked at as settling would, held against the brake, and settled.

use super::brakes::Rewrites;
use super::part::{Part, Unclaimed};
use super::report::KeyClass;
use super::row::ToWrite;
use super::run::Run;
use crate::export::api_keys::ApiKeys;
use crate::export::error::KeyError;
use crate::export::settle::{self, KeyOutcome, Preview, SettleRequest};
use crate::item::ItemKind;
use crate::kv::StoredSettings;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{KvError, Namespace, Services};

/// Keys that are named, looked at and settled in one go. Their values take some 10 MB, and each look is
/// a pass over the table whatever their number.
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

impl<'a, S: Services> Run<'a, S> {
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
        let mut keys = self.next_unclaimed(part, &mut unclaimed, CHUNK_KEYS).await?;
        keys.extend(part.keys.to_write(ToWrite::Contested).map(|(key, _)| key.clone()));
        let mut orphaned = 0;
        let mut stale = Vec::new();
        while !keys.is_empty() {
            let mut api_keys = self.api_keys.renewed();
            let Some(mut preview) = self.look(part, &mut keys, &mut api_keys).await else {
                return Ok(());
            };
            let looked = self.judge_verdicts(part, preview.outcomes());
            if orphaned == 0 && stale.is_empty() && keys.is_empty() && unclaimed.is_empty() {
                // The look that says what is orphaned is the one that settling begins with.
                self.settle_looked(part, preview, looked).await;
                return Ok(());
            }
            orphaned += looked.orphaned.len();
            stale.extend(looked.stale);
            if keys.is_empty() {
                keys = self.next_unclaimed(part, &mut unclaimed, CHUNK_KEYS).await?;
            }
        }
        // So many that what is to be deleted was known only after all had been looked at.
        if self.request.apply && self.allows_rewrites_of_contested(part, stale.len()) {
            let mut left = stale.len();
            let is_written = |verdict: &KeyOutcome| matches!(verdict, KeyOutcome::Written(_));
            self.settle_counted(part, stale, &mut left, is_written).await;
        }
        if !self.allow_deletes(part, number(orphaned)) || !self.request.apply {
            return Ok(());
        }
        let mut unclaimed = Unclaimed::of(part);
        while orphaned > 0 {
            let keys = self.next_unclaimed(part, &mut unclaimed, CHUNK_KEYS).await?;
            if keys.is_empty() {
                break;
            }
            let is_deleted = |verdict: &KeyOutcome| *verdict == KeyOutcome::Deleted;
            self.settle_counted(part, keys, &mut orphaned, is_deleted).await;
        }
        Ok(())
    }

    /// Looks at as many of the keys as memory allows, once it is this run's turn for all that
    /// settling them takes. `None` where there is no time for it: then all of them count as failed.
    async fn look<'k>(
        &mut self,
        part: &Part,
        keys: &mut Vec<String>,
        api_keys: &'k mut ApiKeys,
    ) -> Option<Preview<'a, 'k, S>> {
        let requests = keys.len().div_ceil(MAX_BULK_GET_KEYS) + SETTLE_REQUESTS;
        let turn = self.invocation.wait_for_turn(requests, self.invocation.deadline).await;
        if turn.is_err() {
            for key in keys.drain(..) {
                self.fail(part.namespace, &key, &KeyError::Kv(KvError::OutOfTime));
            }
            return None;
        }
        let preview = settle::preview(self.invocation, keys, api_keys).await;
        self.found_indexes |= preview.has_indexes();
        Some(preview)
    }

    async fn settle_looked(
        &mut self,
        part: &Part,
        mut preview: Preview<'_, '_, S>,
        looked: Looked,
    ) {
        let Looked { orphaned, stale } = looked;
        let mut settled = Vec::new();
        if self.allow_deletes(part, number(orphaned.len())) {
            settled.extend(orphaned);
        }
        if self.allows_rewrites_of_contested(part, stale.len()) {
            settled.extend(stale);
        }
        if self.request.apply && !settled.is_empty() {
            preview.keep_only(&settled);
            let verdicts = preview.carry_out().await;
            self.note_settled(part, verdicts);
        }
    }

    /// Settles keys that the brakes have let through, and of those no more than `left`: what another
    /// look says now may be more than what was counted.
    async fn settle_counted(
        &mut self,
        part: &Part,
        mut keys: Vec<String>,
        left: &mut usize,
        counted: impl Fn(&KeyOutcome) -> bool,
    ) {
        while !keys.is_empty() && *left > 0 {
            let mut api_keys = self.api_keys.renewed();
            let Some(mut preview) = self.look(part, &mut keys, &mut api_keys).await else { return };
            let verdicts = preview.outcomes().into_iter().filter(|(_, verdict)| counted(verdict));
            let settled: Vec<String> = verdicts.map(|(key, _)| key).take(*left).collect();
            *left -= settled.len();
            preview.keep_only(&settled);
            let verdicts = preview.carry_out().await;
            self.note_settled(part, verdicts);
        }
    }

    fn judge_verdicts(
        &mut self,
        part: &Part,
        verdicts: impl IntoIterator<Item = (String, KeyOutcome)>,
    ) -> Looked {
        let mut looked = Looked::default();
        let account = self.account();
        for (key, verdict) in verdicts {
            let contested = !part.keys.is_unclaimed(&key);
            let counts = &mut self.report.settings;
            let (count, class) = match verdict {
                KeyOutcome::Failed(error) => {
                    self.fail(Namespace::Settings, &key, &error);
                    continue;
                }
                KeyOutcome::Written(index)
                    if contested && Some(index.account.as_str()) == account =>
                {
                    looked.stale.push(key.clone());
                    (&mut counts.stale, KeyClass::Stale)
                }
                KeyOutcome::Written(_) if contested => {
                    (&mut counts.conflicting, KeyClass::Conflicting)
                }
                KeyOutcome::Deleted if !contested => {
                    looked.orphaned.push(key.clone());
                    (&mut counts.orphaned, KeyClass::Orphaned)
                }
                KeyOutcome::Withheld(_) => (&mut counts.withheld, KeyClass::Withheld),
                // Nothing to do: asked for again since the scan, kept for a rejected item, gone, or
                // another account's.
                KeyOutcome::Written(_) | KeyOutcome::Deleted | KeyOutcome::Left => continue,
            };
            *count += 1;
            self.report.add_example(class, &key);
        }
        looked
    }

    fn allows_rewrites_of_contested(&mut self, part: &Part, keys: usize) -> bool {
        let keys = number(keys);
        let brakes = self.brakes(part);
        // A repair has noted what it has rewritten of the part by now; an audit notes it in the end.
        let others = if self.request.apply { 0 } else { self.rewritable(part) };
        let allowed = part.rewrites != Rewrites::Refused && brakes.allow_rewrites(others + keys);
        if !allowed {
            self.refused.rewrite += keys;
        }
        allowed
    }

    /// Settles what the repair has written of the settings for items that no longer ask for it.
    pub(super) async fn settle_left_behind(&mut self, part: &mut Part) {
        if !part.is_of_settings() {
            return;
        }
        let mut request = SettleRequest::default();
        for (item, keys) in std::mem::take(&mut part.left_behind) {
            if let ItemKind::IndexSettings(index) = item.kind() {
                request.add_written_for(&index, keys);
            }
        }
        let keys = request.keys.len();
        if keys > 0 && self.allow_deletes(part, number(keys)) {
            let mut api_keys = self.api_keys.renewed();
            let verdicts = settle::settle(self.invocation, request, &mut api_keys).await;
            self.note_settled(part, verdicts);
        }
    }

    fn note_settled(
        &mut self,
        part: &Part,
        verdicts: impl IntoIterator<Item = (String, KeyOutcome)>,
    ) {
        for (key, verdict) in verdicts {
            match verdict {
                KeyOutcome::Written(_) => {
                    self.report.settings.written += 1;
                    let rewritten = u64::from(part.keys.is_listed(&key));
                    self.progress.tally(Namespace::Settings).rewritten += rewritten;
                }
                KeyOutcome::Deleted => {
                    self.report.settings.deleted += 1;
                    self.progress.tally(Namespace::Settings).deleted += 1;
                }
                KeyOutcome::Failed(error) => {
                    // It may be deleted all the same: for the brakes, it is.
                    self.progress.tally(Namespace::Settings).deleted += 1;
                    self.fail(Namespace::Settings, &key, &error);
                }
                KeyOutcome::Withheld(_) | KeyOutcome::Left => {}
            }
        }
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
                part.unreadable.insert(key);
            }
            let named = values.into_iter().filter_map(|(key, stored)| {
                Some((key, StoredSettings::parse(&stored.value)?.shop_id?))
            });
            let named: Vec<(String, String)> =
                named.filter(|(_, shop_id)| !part.matches_prefix(shop_id)).collect();
            let shop_ids = named.iter().map(|(_, shop_id)| shop_id.clone()).collect();
            self.read_unlisted(part, shop_ids).await;
            // Another run has to find the shop id through them.
            let lead_to_it = named.into_iter().filter(|(_, id)| part.unreadable.contains(id));
            let keys: Vec<String> = lead_to_it.map(|(key, _)| key).collect();
            part.unreadable.extend(keys);
            names = self.next_unclaimed(part, &mut unclaimed, CHUNK_KEYS).await?;
            if names.is_empty() {
                return Ok(());
            }
        }
    }
}

fn number(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
