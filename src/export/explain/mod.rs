//! Explain: what KV holds of an index, or under a key, and why; what saving an item would do; what an account
//! has. Changes nothing.
//!
//! | asked about | requests to KV | reads of the table |
//! | --- | --- | --- |
//! | an index | its keys; the shop id that only a value names | its item; a pass; the items that ask for the keys |
//! | a key whose value names an index | the key; the index's other keys; the shop id that only a value names | the same |
//! | any other key | the same | a pass to find the index, then the same |
//! | a query config's key | the key | its item, or else its index's; a pass |
//! | an item that is tried | its keys and its targets; the shop ids that only values name | as when it is saved |
//! | an account | the keys of a part of its indexes, three requests | a pass to find them, then as an index |

mod differs;
mod item;
mod report;
mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use self::item::explain_item;
pub use self::report::Explained;
use self::report::{names_of, report, short};
use self::stages::{Values, judge, look_at, named_by, read};
use super::error::ExportError;
use super::invocation::Invocation;
use super::judge::KvKey;
use super::table::pass;
use crate::index::{IndexRef, ItemRef};
use crate::item::keys::is_query_config_key;
use crate::item::{Item, ItemKey, claimed_keys};
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::{Namespace, StoredValue};
use crate::ports::{ScanColumns, Services};

/// The most keys of a report on an account: three requests.
const MAX_KEYS: usize = 3 * MAX_BULK_GET_KEYS;

/// The most names that an error proposes.
const MAX_NEAREST: usize = 3;

/// How many characters of a name are compared.
const COMPARED_CHARACTERS: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    pub subject: Subject,
    /// Whether the report shows the values where they differ.
    pub values: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    Index(IndexRef),
    /// A key of either namespace.
    Key(String),
    /// An item, as if it were saved; `None` as if it were removed.
    Item(ItemKey, Option<Item>),
    /// The indexes of an account, or those after this name.
    Account {
        account: String,
        after: Option<String>,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "index {index}"),
            Self::Key(key) => write!(f, "key {key:?}"),
            Self::Item(key, _) => write!(f, "item {key}"),
            Self::Account { account, .. } => write!(f, "an index of account {account}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("neither the table nor KV knows {asked}, and no active alias points at it{nearest}")]
    IndexNotFound { asked: String, nearest: String },
    /// A service failed; the same again may help.
    #[error("{asked} can't be explained")]
    Incomplete {
        asked: String,
        #[source]
        error: ExportError,
    },
}

/// Why there is no report.
enum Failure {
    /// Nothing knows what was asked about. With the end of the error's sentence.
    Unknown {
        nearest: String,
    },
    Service(ExportError),
}

impl<E: Into<ExportError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Service(error.into())
    }
}

pub async fn explain<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Explain,
) -> Result<Explained, ExplainError> {
    let explained = match &request.subject {
        Subject::Index(index) => {
            let key = ItemRef::from(index.clone()).key();
            explain_item(invocation, request, &key, Values::new()).await
        }
        Subject::Item(key, _) => explain_item(invocation, request, key, Values::new()).await,
        Subject::Key(key) => explain_key(invocation, request, key).await,
        Subject::Account { account, after } => {
            explain_account(invocation, account, after.as_deref()).await
        }
    };
    let asked = request.subject.to_string();
    explained.map_err(|failure| match failure {
        Failure::Unknown { nearest } => ExplainError::IndexNotFound { asked, nearest },
        Failure::Service(error) => ExplainError::Incomplete { asked, error },
    })
}

type Found = Result<Explained, Failure>;

/// Explains a key: the item that its value names, else the item that asks for it, else the key alone.
async fn explain_key<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Explain,
    name: &str,
) -> Found {
    let is_config = is_query_config_key(name);
    let namespace = if is_config { Namespace::QueryConfigs } else { Namespace::Settings };
    let key = KvKey { namespace, name: name.to_owned() };
    let values = read(invocation, Values::new(), namespace, [name.to_owned()]).await?;
    let stored = values[&key].as_ref();
    let index = stored.and_then(named_by);
    let item = match namespace {
        Namespace::Settings => index.clone().map(ItemRef::from),
        Namespace::QueryConfigs => {
            stored.and_then(StoredValue::query_config).filter(|item| item.kv_key() == name)
        }
    };
    if let Some(item) = item {
        return explain_item(invocation, request, &item.key(), values).await;
    }
    let is_held = stored.is_some();
    if is_config && !is_held {
        return Err(Failure::Unknown { nearest: String::new() });
    }
    let table = look_at(invocation, &values, |_| true).await?;
    if let Some(claim) = table.claim_of(&key) {
        return explain_item(invocation, request, &claim.item().key(), values).await;
    }
    let pointers = names_of(table.pointers_at(name, None));
    if !is_held && pointers.is_empty() {
        return Err(Failure::Unknown { nearest: String::new() });
    }
    let judged = judge(invocation, values, table, BTreeMap::new(), index.as_slice()).await?;
    let mut report = report(&judged, index.as_ref(), None, |_| true, request.values);
    report.pointed_at_by.extend(pointers);
    Ok(Explained::Index(report))
}

/// Explains the next indexes of an account, as many as three requests read the keys of.
async fn explain_account<S: Services>(
    invocation: &Invocation<'_, S>,
    account: &str,
    after: Option<&str>,
) -> Found {
    let mut found: BTreeMap<IndexRef, Vec<String>> = BTreeMap::new();
    let mut has_more = false;
    pass(invocation, ScanColumns::Claims, async |items| {
        for (key, item) in items {
            let Some(ItemRef { index, query: None }) = key.item() else { continue };
            if index.account == account && after.is_none_or(|after| *index.name > *after) {
                let keys = claimed_keys(&index, &item.attributes());
                found.insert(index, keys);
            }
        }
        let keys =
            |found: &BTreeMap<_, Vec<_>>| BTreeSet::from_iter(found.values().flatten()).len();
        while found.len() > MAX_KEYS || keys(&found) > MAX_KEYS {
            found.pop_last();
            has_more = true;
        }
    })
    .await?;
    if found.is_empty() && after.is_none() {
        return Err(Failure::Unknown { nearest: String::new() });
    }
    let keys = found.values().flatten().cloned();
    let values = read(invocation, Values::new(), Namespace::Settings, keys).await?;
    let table = look_at(invocation, &values, |_| true).await?;
    let indexes: Vec<IndexRef> = found.keys().cloned().collect();
    let judged = judge(invocation, values, table, BTreeMap::new(), &indexes).await?;
    let reports = found.iter().map(|(index, keys)| {
        let wanted = judged.wanted.get(&index.clone().into());
        let is_its = |key: &KvKey| keys.contains(&key.name) && judged.knows(key);
        report(&judged, Some(index), wanted, is_its, false)
    });
    Ok(Explained::Account {
        system_account_id: account.to_owned(),
        indexes: reports.collect(),
        progress: indexes.last().filter(|_| has_more).map(|index| index.name.clone()),
    })
}

/// Returns the end of an error's sentence: the account's indexes whose names are nearest to the given one.
fn nearest(asked: &str, names: &BTreeSet<String>) -> String {
    let compared = |name: &str| name.chars().take(COMPARED_CHARACTERS).collect::<String>();
    let asked = compared(asked);
    let mut names: Vec<&String> = names.iter().collect();
    names.sort_by_cached_key(|name| strsim::levenshtein(&compared(name), &asked));
    let names: Vec<String> = names.into_iter().take(MAX_NEAREST).map(|name| short(name)).collect();
    let names = if names.is_empty() { "no index".to_owned() } else { names.join(", ") };
    format!("; the account has {names}")
}

#[cfg(test)]
mod tests {
    //! What is said of an index, a key or an item that is tried, and what becomes of KV when that is saved, streamed
    //! and repaired.

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::error_chain::Chain;
    use crate::export::batch::{Flood, export_batch};
    use crate::export::fakes::{
        Fakes, KvFault, entry, index, index_item, item, query_config, settings_of, shop,
    };
    use crate::export::reconcile::{Reconcile, reconcile};
    use crate::export::table::read_items;
    use crate::item::{Change, RecordedChange, StreamRecord};
    use crate::kv::Source;
    use crate::ports::{ApiKeyError, Cause, KvError};

    /// An item that is saved, or removed where there is `None`.
    #[derive(Clone)]
    struct Tried {
        key: ItemKey,
        item: Option<Item>,
    }

    async fn ask(fakes: &Fakes, subject: &Subject) -> Result<Value, ExplainError> {
        let request = Explain { subject: subject.clone(), values: false };
        let report = explain(&fakes.invocation(Source::ReExport), &request).await?;
        Ok(serde_json::to_value(report).unwrap())
    }

    fn texts(list: &Value) -> impl Iterator<Item = &str> {
        list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap())
    }

    /// Returns the item's state unless it can be exported, the keys with their verdicts and the paths that differ,
    /// who points at it, the targets with their verdicts, and what breaks; or else the error.
    fn said(report: &Result<Value, ExplainError>) -> String {
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

    fn key(name: &str) -> Subject {
        Subject::Key(name.to_owned())
    }

    fn read_alias(name: &str) -> Value {
        json!({"read_alias": {"S": name}})
    }

    fn config_key(query: &str) -> String {
        query_config("i", query).kv_key()
    }

    fn save_config(attributes: &Value) -> Tried {
        let (key, item) = item(&query_config("i", "q"), attributes);
        Tried { key, item: Some(item) }
    }

    fn save(name: &str, attributes: Value) -> Tried {
        let (key, item) = index_item(name, &attributes);
        Tried { key, item: Some(item) }
    }

    fn remove(name: &str) -> Tried {
        Tried { key: settings_of(name).key(), item: None }
    }

    /// Returns services with these items, and with the value of an index, or of query config `q`, under a key.
    fn world(items: &[Tried], held: Option<(&str, &str)>) -> Fakes {
        let fakes = Fakes::new();
        for Tried { key, item } in items {
            fakes.table.put((key.clone(), item.clone().unwrap()));
        }
        if let Some((key, name)) = held {
            let fields = match is_query_config_key(key) {
                true => json!({"normalized_query": "q", "x": 1}),
                false => json!({"index_url": "https://h", "marqo_api_key": "k"}),
            };
            let mut value = json!({"system_account_id": "a", "index_name": name});
            value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            fakes.kv.hold_entry(key, &entry(name, &value));
        }
        fakes
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_of_an_index_or_a_key() {
        let by_index = Subject::Index(index("i"));
        let (i, points) = (save("i", shop("s")), save("x", read_alias("a-i")));
        let broken = save("i", json!({"index_endpoint": null}));
        let names_o = save("x", write_alias("shop_id", "o"));
        let others = ["jj", "j", "ij", "iijj"].map(|name| save(name, json!({})));
        let x = |number: Value| vec![save_config(&json!({ "x": number }))];
        let (q, r) = (config_key("q"), config_key("r"));
        let (own, of_q) = (Some(("a-i", "i")), Some((&*q, "i")));
        let unknown = |what: &str| {
            format!("neither the table nor KV knows {what}, and no active alias points at it")
        };
        let none = unknown("index a/i") + "; the account has no index";
        let near = unknown("index a/i") + "; the account has ij, j, jj";
        for (subject, items, held, expected) in [
            (&by_index, vec![], None, &*none),
            (&by_index, others.to_vec(), None, &near),
            (&by_index, vec![points.clone()], None, "absent; <- x"),
            (&by_index, vec![i.clone()], None, "s missing; a-i missing"),
            (&by_index, vec![i.clone()], own, "s missing; a-i stale shop_id"),
            (&by_index, vec![broken], own, "rejected; a-i rejected"),
            (&by_index, vec![], own, "absent; a-i orphaned"),
            (&by_index, vec![points.clone()], own, "absent; a-i withheld; <- x"),
            (&key("s"), vec![], None, &unknown("key \"s\"")),
            (&key("s"), vec![i.clone()], None, "s missing; a-i missing"),
            (&key("s"), vec![i.clone()], Some(("s", "j")), "absent; s stale index_name shop_id"),
            (&key("s"), vec![i.clone()], Some(("s", "i")), "s stale shop_id; a-i missing"),
            (&key("o"), vec![i.clone()], Some(("o", "i")), "s missing; a-i missing; o orphaned"),
            (&key("a-i"), vec![points], None, "absent; a-i foreign; <- x"),
            (
                &key("o"),
                vec![i.clone(), names_o],
                Some(("o", "i")),
                "s missing; a-i missing; o withheld; <- x",
            ),
            (&key(&q), vec![], None, &unknown(&format!("key {q:?}"))),
            (&key(&q), vec![], of_q, "absent; q orphaned"),
            (&key(&q), x(json!({"N": "1"})), of_q, "q right"),
            (&key(&q), x(json!({"N": "2"})), of_q, "q stale x"),
            (&key(&q), x(json!({"Q": 2})), of_q, "rejected; q rejected"),
            (&key(&r), x(json!({"N": "1"})), Some((&r, "i")), &format!("absent; {r} orphaned")),
        ] {
            let fakes = world(&items, held);
            assert_eq!(said(&ask(&fakes, subject).await), expected, "{subject} {held:?}");
            assert_eq!(fakes.kv.keys().len(), held.iter().len(), "nothing is changed");
        }
        for (name, held, expected) in [
            ("o", Some(("o", "i")), "rejected; s rejected; a-i rejected; o rejected"),
            (&q, of_q, "absent; q rejected"),
        ] {
            let without_api_key = world(std::slice::from_ref(&i), held);
            without_api_key.api_keys.faults.then([ApiKeyError::NotFound]);
            assert_eq!(said(&ask(&without_api_key, &key(name)).await), expected);
        }
        let mut fakes = world(&[i, save("j", shop("s"))], own);
        let report = ask(&fakes, &key("s")).await.unwrap();
        let named = ["i", "j"].map(|it| json!({"system_account_id": "a", "index_name": it}));
        assert_eq!(report["keys"][0]["claimed_by"], json!(named));
        fakes.kv.faults.then([KvFault::Fails(KvError::Refused(Cause::new("400")))]);
        let refused =
            "key \"s\" can't be explained: key \"s\": Cloudflare KV refuses the request: 400";
        assert_eq!(said(&ask(&fakes, &key("s")).await), refused);
        fakes.kv.hold("f", &json!({}));
        assert_eq!(said(&ask(&fakes, &key("f")).await), "absent; f foreign");
        fakes.0.config.environment = "dev".to_owned();
        assert_eq!(said(&ask(&fakes, &by_index).await), "s missing; a-i conflicting shop_id");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_of_an_account_ends_with_the_index_after_which_the_next_one_begins() {
        // KV can't hold the index id of the first.
        let long = "0".repeat(511);
        let names = [long].into_iter().chain((0..301).map(|number| format!("i{number:03}")));
        let items: Vec<_> = names.map(|name| save(&name, json!({}))).collect();
        let subject = Subject::Account { account: "a".to_owned(), after: None };
        let report = ask(&world(&items, None), &subject).await.unwrap();
        let indexes = report["indexes"].as_array().unwrap();
        assert_eq!((indexes.len(), &report["continue"]), (300, &json!("i298")));
    }

    /// Makes a change, and carries it to KV as a batch does. Returns the keys that the item asks for, and asked for
    /// before.
    async fn carry(fakes: &Fakes, Tried { key, item }: &Tried) -> BTreeSet<String> {
        let invocation = fakes.invocation(Source::Stream);
        let old = read_items(&invocation, invocation.budget.deadline, [key.clone()]).await.unwrap();
        match item {
            Some(item) => fakes.table.put((key.clone(), item.clone())),
            None => fakes.table.remove(key),
        }
        let Some(item_ref) = key.item() else { return BTreeSet::new() };
        let images: Vec<_> = old.values().chain(item).map(|image| image.attributes()).collect();
        let keys = match &item_ref.query {
            None => images.iter().flat_map(|image| claimed_keys(&item_ref.index, image)).collect(),
            Some(_) => BTreeSet::from([item_ref.kv_key()]),
        };
        let shop_ids = images.iter().filter_map(|image| image.text("shop_id").map(str::to_owned));
        let record = StreamRecord {
            sequence_number: Some("1".to_owned()),
            event_source: None,
            source_arn: None,
            created_at: None,
            change: Ok(Some(RecordedChange {
                item: item_ref,
                change: item.clone().map_or(Change::Remove, Change::Upsert),
                shop_ids: shop_ids.collect(),
                has_old_image: !old.is_empty(),
            })),
        };
        export_batch(&invocation, vec![record], &Flood::default()).await;
        keys
    }

    /// What KV holds, without metadata.
    fn held(fakes: &Fakes) -> BTreeMap<String, String> {
        let held = fakes.kv.held.borrow();
        held.iter().map(|(key, stored)| (key.clone(), stored.value.clone())).collect()
    }

    /// Tries a change to a table whose changes so far are in KV, makes it, and compares. Returns what was said.
    async fn tried(past: &[Tried], change: &Tried) -> String {
        let fakes = Fakes::new();
        // A repair deletes nothing where the table has no index.
        for change in [save("anchor", json!({}))].iter().chain(past) {
            carry(&fakes, change).await;
        }
        let (before, requests) = (held(&fakes), fakes.kv.requests.borrow().len());
        let answer = ask(&fakes, &Subject::Item(change.key.clone(), change.item.clone())).await;
        assert!(fakes.kv.requests.borrow().len() <= requests + 3);
        assert_eq!(held(&fakes), before, "trying changes nothing");
        let said = said(&answer);
        let Ok(report) = answer else { return said };

        let own = carry(&fakes, change).await;
        let streamed = held(&fakes);
        let is_rejected = report["item"] == "rejected";
        if is_rejected {
            assert_eq!(streamed, before, "{said}");
        }
        let repair = Reconcile { apply: true, ..Reconcile::default() };
        let report_on_repair =
            reconcile(&fakes.invocation(Source::Reconcile), &repair).await.unwrap();
        assert!(report_on_repair.complete, "{report_on_repair:?}");
        let repaired = held(&fakes);
        let keys = report["keys"].as_array().unwrap().iter();
        let verdicts: BTreeMap<&str, &str> =
            keys.map(|it| (it["key"].as_str().unwrap(), it["verdict"].as_str().unwrap())).collect();
        for name in streamed.keys().map(String::as_str).chain(verdicts.keys().copied()) {
            // What only a value in KV names, what only an alias kept, and what a rejected item had, is a repair's.
            let is_streams = own.contains(name) && !is_rejected || !verdicts.contains_key(name);
            let after = if is_streams { &streamed } else { &repaired };
            let (was, is) = (before.get(name), after.get(name));
            match verdicts.get(name) {
                Some(&"orphaned") => assert_eq!(is, None, "{name}: {said}"),
                Some(&("missing" | "stale")) => {
                    assert_ne!(is, was, "{name}: {said}");
                    let now = self::said(&ask(&fakes, &key(name)).await);
                    let right = format!("{name} right").replace(&config_key("q"), "q");
                    assert!(now.contains(&right), "{name}: {said}, then {now}");
                }
                _ => assert_eq!(is, was, "{name}: {said}"),
            }
        }
        said
    }

    /// An active alias block with one target.
    fn block(name: &str, target: &str) -> Value {
        let index_id = json!({"S": target});
        let targets = json!({"L": [{"M": {"index_id": index_id}}]});
        let block = json!({"enabled": {"BOOL": true}, "index_id": index_id, "targets": targets});
        json!({"index_aliases": {"M": {name: {"M": block}}}})
    }

    fn write_alias(field: &str, name: &str) -> Value {
        let entry = json!({"M": {field: {"S": name}}});
        json!({"add_docs_config": {"M": {"index_write_aliases": {"L": [entry]}}}})
    }

    /// What happened, what is tried, and what is said of it.
    type Row<'a> = (&'a str, Vec<Tried>, Tried, &'a str);

    async fn check(rows: impl IntoIterator<Item = Row<'_>>) {
        for (name, past, change, expected) in rows {
            assert_eq!(tried(&past, &change).await, expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_alias_is_told_with_its_targets() {
        let v2 = || vec![save("v2", json!({})), save("i", json!({}))];
        let aliased = |target: &str| save("i", block("doc_reads", target));
        let chain = vec![save("v3", json!({})), save("v2", block("doc_reads", "a-v3"))];
        let mut elsewhere = save("v2", json!({}));
        elsewhere.key.pk = "b".to_owned();
        let mut defaults = save("i", block("doc_writes", "a-v2"));
        defaults.key.sk = "INDEX#DEFAULT_CONFIG".to_owned();
        // It was removed while the alias pointed at it.
        let gone = || vec![save("v1", shop("s")), aliased("a-v1"), remove("v1")];
        let right = "a-i stale index_aliases; -> a-v2 right";
        let turn = "a-i stale index_aliases.doc_reads.targets[0].index_id; -> a-v2 right";
        let with_shop = || vec![save("v2", shop("t")), save("i", json!({}))];
        let turned = || [v2(), vec![save("v4", json!({})), aliased("a-v4")]].concat();
        let mut half = block("doc_reads", "a-v2");
        half["index_aliases"]["M"]["doc_reads"]["M"]["targets"]["L"][0]["M"]["weight"] =
            json!({"N": "0.5"});
        let odd = right.to_owned()
            + "; ? index_aliases.doc_reads.targets: the weights sum to 0.5, not to 1.0";
        let nothing = "a-i stale index_aliases; -> a-v3 foreign; \
                       ! the alias target a-v3 has neither an item nor a key in KV";
        let no_item = "a-i right; -> a-v1 withheld; ! the alias target a-v1 has no item";
        check([
            ("doc_reads", v2(), aliased("a-v2"), right),
            ("its shop id is not this item's", with_shop(), aliased("a-v2"), right),
            ("turned", turned(), aliased("a-v2"), turn),
            ("odd weights", v2(), save("i", half), &odd),
            ("analytics", v2(), save("i", block("analytics", "a-v2")), right),
            ("legacy", v2(), save("i", read_alias("a-v2")), right),
            (
                "doc_writes",
                v2(),
                save("i", block("doc_writes", "a-v2")),
                "a-i right; -> a-v2 right",
            ),
            ("itself", v2(), save("i", read_alias("a-i")), "a-i stale index_aliases"),
            ("nothing there", v2(), aliased("a-v3"), nothing),
            ("a chain", chain, aliased("a-v2"), "a-i missing; -> a-v2 right a-v3"),
            ("elsewhere", vec![elsewhere], aliased("b-v2"), "a-i missing; -> b-v2 right elsewhere"),
            ("gone", gone(), aliased("a-v1"), no_item),
            ("let go", gone(), save("i", json!({})), "a-i stale index_aliases; a-v1 orphaned"),
            ("defaults", v2(), defaults, "skipped; -> a-v2 right"),
        ])
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_shop_id_that_moves_and_a_removal_are_told_with_whom_they_take_a_key_from() {
        let shop = |name: &str, shop_id: &str| save(name, shop(shop_id));
        let (i, moved) = (shop("i", "s"), shop("i", "t"));
        let pointer = |attributes: Value| vec![save("live", attributes), i.clone()];
        let taken = "t stale index_name; a-i stale shop_id; s orphaned; \
                     ! the key t would be taken from a/j";
        let back = "s stale index_name; a-i right; ! the key s would be taken from a/j";
        let needs = |name: &str| {
            format!("; <- live; ! the key {name} is given up, and active aliases need it: a/live")
        };
        let needed = "t missing; a-i stale shop_id; s withheld".to_owned() + &needs("s");
        let by_index_id = "absent; s withheld; a-i withheld".to_owned() + &needs("a-i");
        let by_shop_id = "absent; s withheld; a-i orphaned".to_owned() + &needs("s");
        let given = "t missing; a-i stale shop_id; s stale index_name";
        let left = "absent; s stale index_name; a-i orphaned";
        check([
            ("moved", vec![i.clone()], moved.clone(), "t missing; a-i stale shop_id; s orphaned"),
            ("to another's key", vec![shop("j", "t"), i.clone()], moved.clone(), taken),
            ("from a contested key", vec![shop("j", "s"), i.clone()], moved.clone(), given),
            ("back", vec![i.clone(), shop("j", "s")], i.clone(), back),
            ("from a key in need", pointer(write_alias("shop_id", "s")), moved, &needed),
            ("removed", vec![i.clone()], remove("i"), "absent; s orphaned; a-i orphaned"),
            ("a rival has it", vec![shop("j", "s"), i.clone()], remove("i"), left),
            ("by index id", pointer(block("doc_writes", "a-i")), remove("i"), &by_index_id),
            ("by name", pointer(write_alias("index_name", "i")), remove("i"), &by_index_id),
            ("by shop id", pointer(write_alias("shop_id", "s")), remove("i"), &by_shop_id),
        ])
        .await;
        assert!(tried(&[], &remove("i")).await.contains("knows item a/i"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_exported_is_told_by_its_path_and_what_cannot_be_changes_nothing() {
        let item = |name: &str, value: &str| save("i", json!({ name: {"M": {"x": {"S": value}}} }));
        let broken = save("i", json!({"shop_id": {"S": "t"}, "index_endpoint": {"N": "7"}}));
        let rejected = "rejected; t rejected; a-i rejected; s rejected; \
                        ! the item can't be exported: index_endpoint";
        let took_one = vec![save("j", json!({})), save("i", shop("a-j"))];
        let without_shop_id = save("i", json!({"index_endpoint": {"N": "7"}}));
        let gives_back = "rejected; a-i rejected; a-j stale index_name shop_id; \
                          ! the item can't be exported: index_endpoint";
        let takes_none = "rejected; t right; a-i rejected; \
                          ! the item can't be exported: index_endpoint";
        // The alias and the shop id of a query config are values like others.
        let config = |x: &str| {
            save_config(&json!({"x": {"N": x}, "shop_id": {"S": "s"}, "read_alias": {"S": "a-v2"}}))
        };
        let removed = Tried { item: None, ..config("1") };
        let now = || vec![item("feature_flags", "1"), config("1")];
        check([
            ("exported", now(), item("feature_flags", "2"), "a-i stale feature_flags.x"),
            ("the same", now(), item("feature_flags", "1"), "a-i right"),
            (
                "not exported",
                vec![save("i", json!({}))],
                item("create_index_config", "2"),
                "a-i right",
            ),
            ("broken", vec![save("i", shop("s"))], broken.clone(), rejected),
            ("broken, and another's key", vec![save("j", shop("t"))], broken, takes_none),
            ("broken, and gives one up", took_one, without_shop_id, gives_back),
            ("a new query config", vec![], config("1"), "q missing"),
            ("another query config", now(), config("2"), "q stale x"),
            ("the same query config", now(), config("1"), "q right"),
            ("no query config", now(), removed.clone(), "absent; q orphaned"),
            ("none that is known", vec![], removed, "absent; q foreign"),
        ])
        .await;
    }

    /// Changes to three indexes that compete for shop ids and point at each other: the index, and its attributes
    /// unless it is removed.
    fn changes() -> impl Strategy<Value = (String, Option<Value>)> {
        let name = prop::sample::select(vec!["s", "t", "a-i0", "a-i1", "a-i2"]);
        let alias = prop_oneof![
            3 => Just(json!({})),
            1 => name.clone().prop_map(read_alias),
            1 => (prop::sample::select(vec!["doc_reads", "doc_writes", "analytics"]), name.clone())
                .prop_map(|(block_name, target)| block(block_name, target)),
            1 => (prop::sample::select(vec!["shop_id", "index_id"]), name.clone())
                .prop_map(|(field, target)| write_alias(field, target)),
        ];
        // An endpoint that is a number can't be exported.
        let endpoint =
            prop_oneof![17 => Just(json!({"S": "https://h"})), 3 => Just(json!({"N": "7"}))];
        let saved = (prop::option::of(name), alias, endpoint).prop_map(
            |(shop_id, mut attributes, endpoint)| {
                attributes["shop_id"] = shop_id.map(|shop_id| json!({ "S": shop_id })).into();
                attributes["index_endpoint"] = endpoint;
                attributes
            },
        );
        ("i[0-2]", prop::option::weighted(0.75, saved))
    }

    proptest! {
        #[test]
        fn whatever_is_tried_becomes_of_kv(changes in prop::collection::vec(changes(), 1..7)) {
            let changes = changes.into_iter().map(|(name, attributes)| {
                attributes.map_or_else(|| remove(&name), |attributes| save(&name, attributes))
            });
            let changes: Vec<Tried> = changes.collect();
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build().unwrap();
            let (change, past) = changes.split_last().unwrap();
            runtime.block_on(tried(past, change));
        }
    }
}
