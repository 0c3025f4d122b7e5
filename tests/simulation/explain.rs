//! Explains against the services of the unit tests: what is said of an index, a key or an item that is tried, and
//! what becomes of KV when that is saved, streamed and repaired.

mod asked;
mod tried;

use ecom_settings_exporter::export::explain::{Explain, ExplainError, Subject, explain};
use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::kv::Source;
use ecom_settings_exporter::text::Chain;
use serde_json::{Value, json};

use crate::fakes::{Fakes, index_item, item, query_config, settings_of};

/// An item that is saved, or removed where there is `None`.
#[derive(Clone)]
pub struct Tried {
    pub key: ItemKey,
    pub item: Option<Item>,
}

pub async fn ask(fakes: &Fakes, subject: &Subject) -> Result<Value, ExplainError> {
    let request = Explain { subject: subject.clone(), values: false };
    let report = explain(&fakes.invocation(Source::ReExport), &request).await?;
    Ok(serde_json::to_value(report).unwrap())
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap())
}

/// Returns the item's state unless it can be exported, the keys with their verdicts and the paths that differ,
/// who points at it, the targets with their verdicts, and what breaks; or else the error.
pub fn said(report: &Result<Value, ExplainError>) -> String {
    let report = match report {
        Ok(report) => report,
        Err(error) => return Chain(error).to_string(),
    };
    let line = |value: &Value, names: [&str; 3]| {
        let [name, verdict] = [names[0], names[1]].map(|name| value[name].as_str().unwrap());
        [name, verdict].into_iter().chain(texts(&value[names[2]])).collect::<Vec<_>>().join(" ")
    };
    let list = |name: &str| report[name].as_array().into_iter().flatten();
    let mut said = vec![report["item"].as_str().unwrap().to_owned()];
    said.retain(|item| item != "exportable");
    said.extend(report.get("api_key_unavailable").map(|_| "no API key".to_owned()));
    said.extend(list("keys").map(|it| line(it, ["key", "verdict", "differs"])));
    said.extend(
        list("pointed_at_by").map(|it| format!("<- {}", it["index_name"].as_str().unwrap())),
    );
    said.extend(list("targets").map(|it| {
        let elsewhere = if it["another_account"] == true { " elsewhere" } else { "" };
        format!("-> {}{elsewhere}", line(it, ["index_id", "verdict", "points_at"]))
    }));
    said.extend(texts(&report["breaks"]).map(|it| format!("! {it}")));
    said.extend(report["warning"].as_str().map(|it| format!("? {it}")));
    said.join("; ").replace(&config_key("q"), "q")
}

pub fn key(name: &str) -> Subject {
    Subject::Key(name.to_owned())
}

pub fn read_alias(name: &str) -> Value {
    json!({"read_alias": {"S": name}})
}

pub fn config_key(query: &str) -> String {
    query_config("i", query).kv_key()
}

pub fn save_config(attributes: &Value) -> Tried {
    let (key, item) = item(&query_config("i", "q"), attributes);
    Tried { key, item: Some(item) }
}

pub fn save(name: &str, attributes: Value) -> Tried {
    let (key, item) = index_item(name, &attributes);
    Tried { key, item: Some(item) }
}

pub fn remove(name: &str) -> Tried {
    Tried { key: settings_of(name).key(), item: None }
}

pub fn write_alias(field: &str, name: &str) -> Value {
    let entry = json!({"M": {field: {"S": name}}});
    json!({"add_docs_config": {"M": {"index_write_aliases": {"L": [entry]}}}})
}
