//! Re-exports against the services of the unit tests: what they end with, and what KV holds then.

use crate::fakes::{
    Fakes, KvFault, TableChange, api_keys_error, entry, index, index_item, item, kv_error,
    query_config, shop,
};
use ecom_settings_exporter::export::re_export::{
    QueryConfigCounts, ReExport, ReExportError, ReExportReport, re_export,
};
use ecom_settings_exporter::index::ItemRef;
use ecom_settings_exporter::kv::Source;
use ecom_settings_exporter::ports::ErrorKind;
use ecom_settings_exporter::text::Chain;
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
        (
            "another key, whose old one another index has by then",
            vec![s(), t(), t(), TableChange::Put(index_item("j", &shop("s")))],
            vec![],
            "Exported t a-i",
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
