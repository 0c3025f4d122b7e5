//! Re-export by hand: one index from the table, and its query configs if asked for.

use std::collections::BTreeSet;

use serde::Serialize;

use super::api_keys::{ApiKeys, Fallback};
use super::error::{ExportError, log_rejected};
use super::invocation::Invocation;
use super::remove::{Removal, remove_keys, remove_query_configs};
use super::table::read_page;
use super::write::{Fate, WriteItem, write_items};
use crate::index::{IndexRef, ItemRef};
use crate::item::Rejection;
use crate::kv::Namespace;
use crate::ports::{Services, TablePart};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReExport {
    pub index: IndexRef,
    pub include_query_configs: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReExportReport {
    #[serde(flatten)]
    pub index: IndexRef,
    pub outcome: ReExportOutcome,
    /// The keys that now hold the item, the primary one first.
    pub settings_keys: Vec<String>,
    pub query_configs: QueryConfigCounts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReExportOutcome {
    Exported,
    /// It was removed meanwhile, and so were its keys.
    Removed,
    /// Cloudflare was left alone.
    DryRun,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueryConfigCounts {
    pub exported: u64,
    /// Those that can't be exported, logged.
    pub rejected: u64,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReExportError {
    #[error("the table has no settings of index {0}: nothing was written")]
    IndexNotFound(IndexRef),
    #[error("index {index} can't be exported{}", in_kv(*partly_written))]
    RecordRejected {
        index: IndexRef,
        #[source]
        rejection: Rejection,
        partly_written: bool,
    },
    /// A service failed; the same again may help.
    #[error("index {index} is not exported{}", in_kv(*partly_written))]
    Incomplete {
        index: IndexRef,
        #[source]
        error: ExportError,
        partly_written: bool,
    },
}

fn in_kv(partly_written: bool) -> &'static str {
    if partly_written {
        "; KV may hold an older version or a part of the keys, so repeat the re-export or let reconcile repair it"
    } else {
        ""
    }
}

pub async fn re_export<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &ReExport,
) -> Result<ReExportReport, ReExportError> {
    let index = request.index.clone();
    let item = ItemRef::from(index.clone());
    let mut api_keys = ApiKeys::new(Fallback::Kv, invocation.budget.api_keys);
    let writes = vec![WriteItem::new(item.clone())];
    let written = write_items(invocation, Namespace::Settings, writes, &mut api_keys).await;
    let partly_written = written.may_have_written;
    match written.fate(&item) {
        Fate::Absent if !partly_written => return Err(ReExportError::IndexNotFound(index)),
        Fate::Written | Fate::Absent => {}
        Fate::Rejected(rejection) => {
            return Err(ReExportError::RecordRejected { index, rejection, partly_written });
        }
        Fate::Failed(error) => {
            return Err(ReExportError::Incomplete { index, error, partly_written });
        }
    }
    let incomplete =
        |error| ReExportError::Incomplete { index: index.clone(), error, partly_written: true };
    let mut keys: BTreeSet<String> = written.keys.into_keys().collect();
    let left_behind = written.left_behind.into_keys().collect();
    for (key, removal) in remove_keys(invocation, left_behind, &mut api_keys, None).await {
        match removal {
            Removal::Written(claimant) if claimant.index == index => {
                keys.insert(key);
            }
            Removal::Failed(error) => return Err(incomplete(error)),
            Removal::Removed | Removal::Stays | Removal::Postponed | Removal::Written(_) => {}
        }
    }
    let index_id = index.index_id();
    let mut settings_keys = Vec::from_iter(keys);
    settings_keys.sort_by_key(|key| *key == index_id);
    let mut query_configs = QueryConfigCounts::default();
    if request.include_query_configs {
        let exported = re_export_query_configs(invocation, &index, &mut api_keys).await;
        query_configs = exported.map_err(incomplete)?;
    }
    let outcome = match (invocation.config.dry_run, settings_keys.is_empty()) {
        (true, _) => ReExportOutcome::DryRun,
        (false, true) => ReExportOutcome::Removed,
        (false, false) => ReExportOutcome::Exported,
    };
    Ok(ReExportReport { index, outcome, settings_keys, query_configs })
}

/// Exports the query configs of an index, page by page.
async fn re_export_query_configs<S: Services>(
    invocation: &Invocation<'_, S>,
    index: &IndexRef,
    api_keys: &mut ApiKeys,
) -> Result<QueryConfigCounts, ExportError> {
    let mut counts = QueryConfigCounts::default();
    let mut after = None;
    loop {
        let page = read_page(invocation, TablePart::ConfigsOf(index), after.as_ref()).await?;
        let items: Vec<ItemRef> = page.items.iter().filter_map(|(key, _)| key.item()).collect();
        let writes = items.iter().cloned().map(WriteItem::new).collect();
        let written = write_items(invocation, Namespace::QueryConfigs, writes, api_keys).await;
        for item in &items {
            match written.fate(item) {
                Fate::Written => counts.exported += 1,
                Fate::Absent => {}
                Fate::Rejected(rejection) => {
                    log_rejected(Some(item), None, &rejection);
                    counts.rejected += 1;
                }
                Fate::Failed(error) => return Err(error),
            }
        }
        let gone = written.left_behind.into_values().map(|item| (item, None));
        for removal in remove_query_configs(invocation, gone, api_keys).await.into_values() {
            match removal {
                Removal::Removed | Removal::Postponed => {}
                Removal::Written(_) => counts.exported += 1,
                // It is back, and can't be exported.
                Removal::Stays => counts.rejected += 1,
                Removal::Failed(error) => return Err(error),
            }
        }
        after = page.last_read;
        if after.is_none() {
            return Ok(counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{
        Fakes, KvFault, TableChange, api_keys_error, entry, index, index_item, item, kv_error,
        query_config, shop,
    };
    use crate::kv::Source;
    use crate::ports::ErrorKind;
    use crate::text::Chain;
    use serde_json::{Value, json};

    async fn re_export_i(fakes: &Fakes) -> Result<ReExportReport, ReExportError> {
        let request = ReExport { index: index("i"), include_query_configs: true };
        re_export(&fakes.invocation(Source::ReExport), &request).await
    }

    /// A result in a word: the outcome with the keys, or the error and whether KV may be partly written.
    fn word(result: &Result<ReExportReport, ReExportError>) -> String {
        match result {
            Ok(report) => format!("{:?} {}", report.outcome, report.settings_keys.join(" ")),
            Err(ReExportError::IndexNotFound(_)) => "not found".to_owned(),
            Err(ReExportError::RecordRejected { rejection, partly_written, .. }) => {
                format!("rejected: {}, {partly_written}", rejection.path)
            }
            Err(ReExportError::Incomplete { error, partly_written, .. }) => {
                format!("{}, {partly_written}", Chain(error))
            }
        }
    }

    fn becomes(attributes: &Value) -> TableChange {
        TableChange::Put(index_item("i", attributes))
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_re_export_ends_with() {
        let refuses = || KvFault::Fails(kv_error(ErrorKind::Refused));
        let (s, t) = (|| becomes(&shop("s")), || becomes(&shop("t")));
        let gone = || TableChange::Remove(ItemRef::from(index("i")).key());
        let (broken, fails) = (|| becomes(&json!({"index_endpoint": null})), || TableChange::Fails);
        let down = "settings table: BatchGetItem: down";
        let refused = "key \"s\": Cloudflare KV: scripted";
        let timed_out = vec![KvFault::TimesOut, refuses()];
        let (none, both): (&[&str], &[&str]) = (&[], &["a-i", "s"]);
        for (name, changes, faults, expected, keys) in [
            ("exported", vec![], vec![], "Exported s a-i", both),
            ("no item", vec![gone()], vec![], "not found", none),
            ("rejected", vec![broken()], vec![], "rejected: index_endpoint, false", none),
            ("rejected later", vec![s(), broken()], vec![], "rejected: index_endpoint, true", both),
            ("unread", vec![fails()], vec![], &format!("{down}, false"), none),
            ("unread later", vec![s(), fails()], vec![], &format!("{down}, true"), both),
            ("refused", vec![], vec![refuses()], &format!("{refused}, false"), none),
            ("time-out, refused", vec![], timed_out, &format!("{refused}, true"), &["a-i"]),
            ("removed meanwhile", vec![s(), gone()], vec![], "Removed ", none),
            ("another key", vec![s(), t()], vec![], "Exported t a-i", &["a-i", "t"]),
            ("another key, and back", vec![s(), t(), s()], vec![], "Exported s a-i", both),
            (
                "another key, and back when that is removed",
                vec![s(), t(), t(), s()],
                vec![],
                "Exported s t a-i",
                &["a-i", "s", "t"],
            ),
        ] {
            let fakes = Fakes::new();
            fakes.table.put(index_item("i", &shop("s")));
            fakes.table.changes.then(changes);
            fakes.kv.faults.then(faults);
            assert_eq!(word(&re_export_i(&fakes).await), expected, "{name}");
            assert_eq!(fakes.kv.keys(), keys, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_key_that_kv_holds_is_used_again() {
        let fakes = Fakes::new();
        fakes.table.put(index_item("i", &json!({})));
        let value = json!({"system_account_id": "a", "index_name": "i", "marqo_api_key": "kv"});
        fakes.kv.hold_entry("a-i", &entry("i", &value));
        fakes.api_keys.faults.then([api_keys_error(ErrorKind::NotFound)]);
        assert_eq!(word(&re_export_i(&fakes).await), "Exported a-i");
    }

    #[tokio::test(start_paused = true)]
    async fn query_configs_are_exported_rejected_or_removed() {
        let configs = ["a", "b", "c"].map(|query| query_config("i", query));
        let whole = |config| item(config, &json!({"x": {"N": "1"}}));
        let broken = |config| item(config, &json!({"x": {"Q": 1}}));
        // What the removal of the last one finds, which has gone.
        for (name, back, exported, rejected, is_held) in [
            ("gone", None, 1, 1, false),
            ("back", Some(whole(&configs[2])), 2, 1, true),
            ("back, and can't be exported", Some(broken(&configs[2])), 1, 2, true),
        ] {
            let fakes = Fakes::new();
            fakes.table.put(index_item("i", &json!({})));
            configs.iter().for_each(|config| fakes.table.put(whole(config)));
            fakes.table.put(broken(&configs[1]));
            let before = entry("i", &json!({"old": 1}));
            configs.iter().for_each(|config| fakes.kv.hold_entry(&config.kv_key(), &before));
            // The settings' two reads, the query, the first read of the query configs.
            fakes.table.changes.then_after(4, [TableChange::Remove(configs[2].key())]);
            fakes.table.changes.then(back.map(TableChange::Put));
            let counts = re_export_i(&fakes).await.unwrap().query_configs;
            assert_eq!(counts, QueryConfigCounts { exported, rejected }, "{name}");
            let held = configs.each_ref().map(|it| fakes.kv.keys().contains(&it.kv_key()));
            assert_eq!(held, [true, true, is_held], "{name}");

            fakes.table.changes.then_after(2, [TableChange::Fails]);
            assert_eq!(word(&re_export_i(&fakes).await), "settings table: Query: down, true");
        }
    }
}
