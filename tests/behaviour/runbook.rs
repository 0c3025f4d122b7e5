//! The runbook, practised: every symptom is produced with the real binary, found by the runbook's
//! queries over the lines that it printed, and resolved by the runbook's commands.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::kv::Kv;
use testbed::lambda::{Failure, Function};
use testbed::poller::{Poller, PollerOptions};
use testbed::stack::{DEFAULT_CELL, QUERY_CONFIGS, SETTINGS, Stack, TOKEN_SECRET};
use testbed::table::to_item;

use crate::helpers::*;
use crate::printed::Printed;
use crate::process;

fn text_of(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A Logs Insights query of the runbook, or of the dashboard.
#[derive(Debug)]
struct Query {
    name: String,
    /// What lines have to be like: a field and the values that it may have.
    filter: Vec<(String, Vec<String>)>,
    /// The fields that it shows, counts or groups by.
    fields: BTreeSet<String>,
}

/// Words that are no fields.
const WORDS: [&str; 13] = [
    "filter",
    "fields",
    "stats",
    "sort",
    "limit",
    "by",
    "as",
    "and",
    "in",
    "desc",
    "asc",
    "SOURCE",
    "@timestamp",
];

impl Query {
    fn parse(name: &str, text: &str) -> Self {
        let mut query = Self { name: name.to_owned(), filter: Vec::new(), fields: BTreeSet::new() };
        let mut aliases = BTreeSet::new();
        for command in text.split('|').map(str::trim) {
            if let Some(condition) = command.strip_prefix("filter ") {
                query.filter.extend(condition.split(" and ").map(parse_condition));
                continue;
            }
            if command.starts_with("SOURCE") {
                continue;
            }
            let tokens = tokens(command);
            for (place, token) in tokens.iter().enumerate() {
                let function = tokens.get(place + 1).is_some_and(|next| next == "(");
                let number = token.starts_with(|first: char| first.is_ascii_digit());
                let alias = place > 0 && tokens[place - 1] == "as";
                if alias {
                    aliases.insert(token.clone());
                } else if token.starts_with(is_name)
                    && !function
                    && !number
                    && !WORDS.contains(&token.as_str())
                {
                    query.fields.insert(token.clone());
                }
            }
        }
        query.fields = &query.fields - &aliases;
        query
    }

    fn matches(&self, line: &Value) -> bool {
        self.filter.iter().all(|(name, values)| {
            field(line, name)
                .is_some_and(|value| values.iter().any(|wanted| value == wanted.as_str()))
        })
    }

    /// The query for one index.
    fn about(mut self, account: &str, index: &str) -> Self {
        for value in self.filter.iter_mut().flat_map(|(_, values)| values) {
            *value = value.replace("ACCOUNT", account).replace("INDEX", index);
        }
        self
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || ['_', '.', '@'].contains(&letter)
}

/// Names and brackets.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = vec![String::new()];
    for letter in text.chars() {
        if is_name(letter) {
            tokens.last_mut().unwrap().push(letter);
        } else {
            tokens.extend([letter.to_string(), String::new()]);
        }
    }
    tokens.into_iter().filter(|token| !token.trim().is_empty()).collect()
}

fn parse_condition(condition: &str) -> (String, Vec<String>) {
    let name = condition.trim().split(' ').next().unwrap();
    let values = condition.split(['"', '\'']).skip(1).step_by(2).map(str::to_owned).collect();
    (name.to_owned(), values)
}

/// A field by its name in Logs Insights: nested ones are named by their path.
fn field<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    name.split('.').try_fold(line, |value, part| value.get(part)).filter(|value| !value.is_null())
}

/// The queries that the runbook holds.
fn queries() -> Vec<Query> {
    let runbook = text_of("docs/runbook.md");
    let section = runbook.split("\n## Queries\n").nth(1).expect("a section on queries");
    let parse = |part: &str| {
        let name = part.lines().next().unwrap();
        Query::parse(name, part.split("```").nth(1).expect("a query in a block"))
    };
    section.split("\n### ").skip(1).map(parse).collect()
}

fn query(name: &str) -> Query {
    queries().into_iter().find(|query| query.name == name).expect("a query of that name")
}

/// The local stack with the function, and what an operator does with them.
struct Practice {
    stack: Stack,
    function: Function,
}

impl Practice {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(more: &[(&str, &str)]) -> Self {
        let stack = process::stack().await;
        let function = process::function(&stack, more).await;
        Self { stack, function }
    }

    fn poll(&self) -> Poller {
        self.stack.poll(&self.function, PollerOptions::default())
    }

    /// Puts items and waits until the stream has brought them.
    async fn put(&self, poller: &Poller, items: impl IntoIterator<Item = Value>) {
        for item in items {
            self.stack.table.put(&item);
        }
        poller.caught_up().await;
    }

    async fn invoke(&self, payload: Value) -> Result<Value, Failure> {
        process::invoke(&self.function, &payload).await.result
    }

    /// `make re-export ACCOUNT=… INDEX=…`
    async fn re_export(&self, account: &str, index: &str) -> Result<Value, Failure> {
        self.invoke(json!({"system_account_id": account, "index_name": index})).await
    }

    /// `make reconcile`
    async fn audit(&self) -> Value {
        self.invoke(json!({"reconcile": {"apply": false}})).await.unwrap()
    }

    /// `make reconcile APPLY=true`
    async fn repair(&self) -> Value {
        self.invoke(json!({"reconcile": {"apply": true}})).await.unwrap()
    }

    /// `make reconcile APPLY=true ACCOUNT=…`
    async fn repair_account(&self, account: &str) -> Value {
        let payload = json!({"reconcile": {"apply": true, "system_account_id": account}});
        self.invoke(payload).await.unwrap()
    }

    /// What a query of the runbook finds.
    fn ask(&self, query: &Query) -> Vec<Value> {
        let lines = Printed::of(&self.function.logs()).lines;
        lines.into_iter().filter(|line| query.matches(line)).collect()
    }

    fn setting(&self, key: &str) -> Option<Value> {
        self.stack.kv.get(SETTINGS, key).map(|stored| stored.json())
    }

    #[track_caller]
    fn assert_equal(&self, audit: &Value) {
        for namespace in ["settings", "query_configs"] {
            for class in ["missing", "stale", "orphaned", "failed"] {
                assert_eq!(audit[namespace][class], 0, "{namespace} {class} in {audit}");
            }
        }
    }
}

/// Adds fields to an item.
fn and(mut item: Value, more: Value) -> Value {
    item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    item
}

#[tokio::test]
async fn every_query_finds_real_lines_that_have_its_fields() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.stack.api_keys.break_cell("down", Fault::status(503));
    let items = [
        index("a", "good"),
        index("a", "kept"),
        index("a", "cell"),
        index_with("a", "live", json!({"read_alias": "a-kept"})),
        index_with("a", "broken", json!({"index_endpoint": 7})),
        index_with("a", "failing", json!({"cell": "down"})),
        query_config("a", "good", "q", 1),
    ];
    practice.put(&poller, items).await;
    practice.put(&poller, [index_with("a", "cell", json!({"cell": "down"}))]).await;
    practice.stack.table.delete("a", "INDEX#kept");
    poller.caught_up().await;
    practice.stack.kv.delete(SETTINGS, "a-good");
    practice.stack.kv.delete(SETTINGS, "a-kept");
    practice.repair().await;
    practice.re_export("a", "missing").await.unwrap_err();
    practice.stack.kv.delete(SETTINGS, "a-good");
    practice.stack.kv.faults().add(Rule::on("PUT", "/settings/bulk", Fault::Hang).forever());
    let repair = json!({"reconcile": {"apply": true}});
    let stopped = practice.function.invoke_within(&repair, Duration::from_secs(4)).await.unwrap();
    assert_eq!(stopped.result.unwrap()["complete"], false);

    let lines = Printed::of(&practice.function.logs()).lines;
    let template = text_of("template.yaml");
    let widget = template.lines().find_map(|line| line.trim().strip_prefix(r#""query": ""#));
    let widget = Query::parse("the dashboard's table", widget.unwrap());
    let queries = queries();
    assert!(queries.len() >= 7, "{queries:?}");
    for query in queries.into_iter().chain([widget]).map(|query| query.about("a", "broken")) {
        let matching: Vec<&Value> = lines.iter().filter(|line| query.matches(line)).collect();
        assert!(!matching.is_empty(), "{} finds nothing", query.name);
        for name in &query.fields {
            let there = matching.iter().any(|line| field(line, name).is_some());
            assert!(there, "{} asks for {name}, which no line has: {matching:#?}", query.name);
        }
        for (name, values) in &query.filter {
            for value in values {
                let there = matching
                    .iter()
                    .any(|line| field(line, name).is_some_and(|found| found == value.as_str()));
                assert!(there, "{} filters {name} by {value}, which no line has", query.name);
            }
        }
    }
}

#[test]
fn the_runbook_names_the_alarms_graphs_parameters_and_commands_that_there_are() {
    let runbook = text_of("docs/runbook.md");
    let template = text_of("template.yaml");
    let makefile = text_of("Makefile");
    let alarms: BTreeSet<&str> = template
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("AlarmName: !Sub ${Environment}-ecom-settings-exporter-")
        })
        .collect();
    let table =
        runbook.split("## From alarm to symptom").nth(1).unwrap().split("\n## ").next().unwrap();
    let named: BTreeSet<&str> =
        table.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(named, alarms);

    let titles: Vec<&str> = template
        .split(r#""title": ""#)
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let joined = runbook.replace('\n', " ");
    let graphs: Vec<&str> = joined
        .split('*')
        .filter(|part| {
            part.ends_with('?') && part.len() < 60 && part.starts_with(char::is_uppercase)
        })
        .collect();
    assert!(graphs.len() > 10, "{graphs:?}");
    for graph in graphs {
        assert!(titles.iter().any(|title| title.starts_with(graph)), "{graph}: {titles:?}");
    }

    for command in joined.split("make ").skip(1) {
        let target: String = command
            .chars()
            .take_while(|letter| letter.is_ascii_lowercase() || *letter == '-')
            .collect();
        let known = makefile.contains(&format!("\n{target}: "))
            || makefile.contains(&format!("\n{target}:\n"));
        // The word occurs in sentences too.
        let code = joined.contains(&format!("`make {target}"))
            || joined.contains(&format!("  make {target} "));
        assert!(known || !code, "make {target}");
    }
    for parameters in joined.split("PARAMETERS=\"").skip(1) {
        let quoted = parameters.split('"').next().unwrap();
        for parameter in quoted.split([' ', '\'']).filter_map(|word| word.split_once('=')) {
            let name = parameter.0;
            assert!(
                name == "Name" || template.contains(&format!("\n  {name}:\n    Type:")),
                "{name}"
            );
        }
    }
}

#[test]
fn every_link_in_the_runbook_leads_to_a_heading() {
    let runbook = text_of("docs/runbook.md");
    let anchor = |heading: &str| -> String {
        let letters = heading.to_lowercase().replace(' ', "-");
        letters.chars().filter(|letter| letter.is_alphanumeric() || *letter == '-').collect()
    };
    let anchors: BTreeSet<String> = runbook
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|line| anchor(line.trim_start_matches(['#', ' '])))
        .collect();
    for link in runbook.split("](#").skip(1) {
        let link = link.split(')').next().unwrap();
        assert!(anchors.contains(link), "{link}");
    }
}

#[tokio::test]
async fn settings_not_reaching_the_proxy() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.stack.api_keys.remove("keyless");
    let wrong_key =
        json!({"pk": "a", "sk": "index#small", "index_endpoint": "https://x.example.com"});
    practice
        .put(
            &poller,
            [
                shop("a", "i", "s.example"),
                index_with("a", "i", json!({"shop_id": "s.example", "index_endpoint": "nonsense"})),
                index("keyless", "i"),
                wrong_key,
            ],
        )
        .await;

    let [line] = &practice.ask(&query("index").about("a", "i"))[..] else { panic!("one line") };
    assert_eq!(line["message"], "record rejected");
    assert_eq!(line["path"], "index_endpoint");
    assert!(practice.setting("a-i").is_some(), "KV keeps what it had");
    let [line] = &practice.ask(&query("index").about("keyless", "i"))[..] else { panic!("one") };
    assert_eq!(line["path"], "system_account_id");
    assert!(practice.ask(&query("index").about("a", "small")).is_empty(), "nothing at all");
    assert_eq!(practice.re_export("a", "small").await.unwrap_err().error_type, "IndexNotFound");
    let rejected = practice.re_export("a", "i").await.unwrap_err();
    assert_eq!(rejected.error_type, "RecordRejected");
    assert!(rejected.error_message.contains("index_endpoint"), "{rejected}");

    practice
        .put(&poller, [index_with("a", "i", json!({"shop_id": "s.example", "pixel_id": "new"}))])
        .await;
    assert_eq!(practice.setting("s.example").unwrap()["pixel_id"], "new");
    practice.stack.api_keys.set("keyless", "made");
    assert_eq!(practice.re_export("keyless", "i").await.unwrap()["outcome"], "exported");
    assert_eq!(practice.setting("keyless-i").unwrap()["marqo_api_key"], "made");
}

#[tokio::test]
async fn stale_after_an_update() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.put(&poller, [shop("a", "i", "s.example"), shop("b", "j", "t.example")]).await;
    let old = practice.stack.kv.snapshot(SETTINGS);
    let switched_off = json!({"shop_id": "s.example", "index_aliases": {"doc_reads": {"enabled": false, "targets": [{"index_id": "a-v2"}]}}});
    practice.put(&poller, [index_with("a", "i", switched_off)]).await;
    // A write of the version before lands late, and the cell's gateway is down.
    for (key, stored) in old {
        practice.stack.kv.put(SETTINGS, &key, &stored.value, stored.metadata);
    }
    practice.stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(503));

    let report = practice.re_export("a", "i").await.unwrap();

    assert_eq!(report["outcome"], "exported");
    let value = practice.setting("s.example").unwrap();
    assert_eq!(value["index_aliases"]["doc_reads"]["enabled"], false);
    assert_eq!(value["marqo_api_key"], "key-a", "the key that KV holds");
    practice.stack.api_keys.faults().clear();

    // Two items ask for one shop id.
    practice.put(&poller, [shop("b", "j", "s.example")]).await;
    practice.put(&poller, [shop("b", "j", "s.example"), shop("a", "i", "s.example")]).await;
    assert_eq!(practice.audit().await["examples"]["conflicting"], json!(["s.example"]));
    practice.put(&poller, [shop("b", "j", "t.example")]).await;
    assert_eq!(practice.audit().await["settings"]["conflicting"], 0);

    // A shop id that changed under a stream of new images only.
    practice.put(&poller, [shop("b", "j", "u.example")]).await;
    assert!(practice.setting("t.example").is_some());
    practice.repair_account("b").await;
    assert!(practice.setting("t.example").is_none());
    practice.assert_equal(&practice.audit().await);
}

#[tokio::test]
async fn an_api_key_missing_or_old_in_kv() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.put(&poller, [index("a", "i"), index("a", "j"), index("b", "i")]).await;
    practice.stack.api_keys.set("a", "rotated");
    assert_eq!(practice.setting("a-i").unwrap()["marqo_api_key"], "key-a");

    let report = practice.repair_account("a").await;

    assert_eq!(report["settings"]["written"], 2);
    for key in ["a-i", "a-j"] {
        assert_eq!(practice.setting(key).unwrap()["marqo_api_key"], "rotated");
    }
}

/// What the query `errors` says of a batch that meets these faults.
async fn errors_with(arrange: fn(&Stack)) -> (Practice, Vec<String>) {
    let practice = Practice::start().await;
    arrange(&practice.stack);
    let records = [written(1, &index("a", "i"))];
    let answer = practice.invoke(testbed::stream::event(records)).await.unwrap();
    assert_eq!(answer["batchItemFailures"][0]["itemIdentifier"], "1");
    let found = practice.ask(&query("errors"));
    let errors = found.iter().map(|line| line["error"].as_str().unwrap().to_owned()).collect();
    (practice, errors)
}

/// What the error names, and what breaks so.
type Outage = (&'static [&'static str], fn(&Stack));

fn denied() -> Fault {
    Fault::aws(400, "AccessDeniedException", "not authorized to perform this")
}

#[tokio::test]
async fn exporter_errors_are_told_apart_by_what_they_name() {
    let outages: [Outage; 5] = [
        (&["CloudflareAuthRejected"], |stack| stack.kv.set_token("another")),
        (&[TOKEN_SECRET, "AccessDenied"], |stack| {
            stack.secrets.faults().add(Rule::operation("GetSecretValue", denied()).forever());
        }),
        (&["Cloudflare", "429"], |stack| {
            stack.kv.faults().add(Rule::any(Fault::status(429)).forever())
        }),
        (&["Cloudflare", "503"], |stack| {
            stack.kv.faults().add(Rule::any(Fault::status(503)).forever())
        }),
        (&["API keys service", "500"], |stack| {
            stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(500))
        }),
    ];
    for (names, arrange) in outages {
        let (_, errors) = errors_with(arrange).await;
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        assert!(names.iter().all(|name| error.contains(name)), "{names:?} in {error}");
    }
    for (fault, name) in [(denied(), "AccessDenied"), (Fault::throttled(), "Throttling")] {
        let practice = Practice::start().await;
        practice.stack.table.faults().add(Rule::any(fault).forever());
        let failure = practice.re_export("a", "i").await.unwrap_err();
        let found = practice.ask(&query("errors"));
        let error = found[0]["error"].as_str().unwrap();
        assert!(error.contains("table") && error.contains(name), "{error}");
        assert_eq!(error, failure.error_message);
    }
    let practice = Practice::start().await;
    let refused = practice.invoke(json!({"reconcile": {"aply": true}})).await.unwrap_err();
    assert_eq!(refused.error_type, "InvalidPayload");
    assert!(refused.error_message.contains("Payloads taken"), "{refused}");
}

#[tokio::test]
async fn query_overrides_not_working() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    let overrides = ["red running shoes", "gone"].map(|query| query_config("a", "i", query, 1));
    practice.put(&poller, overrides.into_iter().chain([index("a", "i")])).await;
    let key = query_config_key("a", "i", "red running shoes");
    assert!(practice.stack.kv.delete(QUERY_CONFIGS, &key));

    let payload =
        json!({"system_account_id": "a", "index_name": "i", "include_query_configs": true});
    let report = practice.invoke(payload).await.unwrap();
    assert_eq!(report["query_configs"], json!({"exported": 2, "rejected": 0}));
    assert!(practice.stack.kv.get(QUERY_CONFIGS, &key).is_some());

    // The key is there, the item is not.
    drop(poller);
    practice.stack.table.delete("a", "INDEX#i#QUERY#gone");
    practice.repair_account("a").await;
    assert_eq!(practice.stack.kv.keys(QUERY_CONFIGS), [key]);
}

#[tokio::test]
async fn settings_right_in_the_table_but_wrong_in_kv() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.put(&poller, [shop("a", "i", "s.example"), shop("a", "j", "t.example")]).await;
    practice.stack.kv.put(SETTINGS, "s.example", r#"{"changed":"by hand"}"#, None);
    practice.stack.kv.delete(SETTINGS, "t.example");
    practice.stack.kv.put(SETTINGS, "stranger", "x", None);

    let payload = json!({"reconcile": {"system_account_id": "a"}});
    let audit = practice.invoke(payload).await.unwrap();
    assert_eq!(audit["examples"]["stale"], json!(["s.example"]));
    assert_eq!(audit["examples"]["missing"], json!(["t.example"]));

    practice.re_export("a", "i").await.unwrap();
    assert_eq!(practice.setting("s.example").unwrap()["index_name"], "i");
    practice.repair_account("a").await;
    let audit = practice.audit().await;
    practice.assert_equal(&audit);
    assert_eq!(audit["examples"]["foreign"], json!(["stranger"]), "stays");
}

#[tokio::test]
async fn an_index_removed_but_still_served() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    let live = |enabled: bool| {
        let reads = json!({"enabled": enabled, "targets": [{"index_id": "a-old"}]});
        index_with("a", "live", json!({"index_aliases": {"doc_reads": reads}}))
    };
    practice.put(&poller, [shop("a", "old", "old.example"), live(true)]).await;
    practice.stack.table.delete("a", "INDEX#old");
    poller.caught_up().await;

    let found = practice.ask(&query("warnings"));
    let named: Vec<(&Value, &Value)> =
        found.iter().map(|line| (&line["key"], &line["pointers"])).collect();
    let pointer = json!("a/live");
    assert_eq!(named, [(&json!("a-old"), &pointer), (&json!("old.example"), &pointer)]);
    assert_eq!(practice.audit().await["examples"]["withheld"], json!(["a-old", "old.example"]));

    practice.put(&poller, [live(false)]).await;
    practice.repair_account("a").await;
    assert_eq!(practice.stack.kv.keys(SETTINGS), ["a-live"]);

    // The stream did not get the removal.
    drop(poller);
    practice.stack.table.delete("a", "INDEX#live");
    assert_eq!(practice.audit().await["examples"]["orphaned"], json!(["a-live"]));
    practice.repair_account("a").await;
    assert!(practice.stack.kv.keys(SETTINGS).is_empty());
}

#[tokio::test]
async fn an_active_alias_points_at_nothing() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.put(&poller, [index_with("a", "live", json!({"read_alias": "a-gone"}))]).await;
    assert_eq!(practice.audit().await["examples"]["dangling"], json!(["a-gone"]));
    let found = practice.ask(&query("warnings"));
    assert!(found.iter().any(|line| line["examples"] == "a-gone"), "{found:?}");

    practice.put(&poller, [index("a", "live")]).await;
    assert_eq!(practice.audit().await["settings"]["dangling"], 0);
}

#[tokio::test]
async fn drift_alarm() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice
        .put(&poller, (0..4).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example"))))
        .await;
    drop(poller);
    practice.stack.kv.delete(SETTINGS, "a-i0");
    practice.stack.kv.put(SETTINGS, "a-i1", "{}", None);
    practice.stack.table.delete("a", "INDEX#i2");
    practice.stack.table.load([to_item(&index_with("a", "i3", json!({"index_endpoint": 7})))]);

    practice.audit().await;
    let found = practice.ask(&query("reconciles"));
    let line = found.last().unwrap();
    let counted = ["drifted_keys", "missing", "stale", "orphaned", "items_rejected"];
    assert_eq!(counted.map(|name| line[name].as_u64().unwrap()), [4, 1, 1, 2, 1], "{line}");

    practice.repair().await;
    let audit = practice.audit().await;
    practice.assert_equal(&audit);
    assert_eq!(audit["settings"]["rejected"], 1);
}

#[tokio::test]
async fn the_on_failure_queue_is_not_empty() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.stack.kv.faults().add(Rule::any(Fault::status(503)).forever());
    practice.put(&poller, [shop("a", "i", "s.example"), query_config("a", "i", "q", 1)]).await;
    assert!(!poller.given_up().is_empty());
    let found = practice.ask(&query("records"));
    assert!(found.iter().all(|line| line["message"] == "record failed"));
    assert!(found.iter().any(|line| line["system_account_id"] == "a" && line["index_name"] == "i"));

    practice.stack.kv.faults().clear();
    practice.repair().await;

    practice.assert_equal(&practice.audit().await);
    assert_eq!(practice.stack.kv.keys(SETTINGS), ["a-i", "s.example"]);
}

#[tokio::test]
async fn iterator_age_rising() {
    let practice = Practice::start().await;
    practice.stack.api_keys.break_cell("down", Fault::status(503));
    // No retry is the last one: the record holds up its shard.
    let options = PollerOptions { maximum_retry_attempts: None, ..PollerOptions::default() };
    let poller =
        practice.stack.poll(&practice.function, PollerOptions { batch_size: 1, ..options });
    let mut deliveries = poller.subscribe();
    practice.stack.table.put(&index_with("b", "failing", json!({"cell": "down"})));
    practice.stack.table.put(&index("a", "waiting"));
    for _ in 0..3 {
        deliveries.recv().await.unwrap();
    }
    let found = practice.ask(&query("records"));
    assert!(found.len() >= 3 && found.iter().all(|line| line["index_name"] == "failing"));
    assert!(practice.setting("a-waiting").is_none());

    practice.re_export("a", "waiting").await.unwrap();
    assert!(practice.setting("a-waiting").is_some(), "what can't wait goes past the stream");

    practice.stack.api_keys.faults().clear();
    poller.caught_up().await;
    practice.assert_equal(&practice.audit().await);
}

#[tokio::test]
async fn cloudflare_down_and_one_cell_down() {
    let practice = Practice::start().await;
    let options = PollerOptions { maximum_retry_attempts: None, ..PollerOptions::default() };
    let poller = practice.stack.poll(&practice.function, options);
    let cell = |name: &str| index_with("b", name, json!({"cell": "cell-2"}));
    practice.put(&poller, [index("a", "i"), cell("known")]).await;

    practice.stack.kv.faults().add(Rule::any(Fault::status(503)).forever());
    let mut deliveries = poller.subscribe();
    practice.stack.table.put(&and(index("a", "i"), json!({"pixel_id": "new"})));
    deliveries.recv().await.unwrap();
    assert!(practice.setting("a-i").unwrap().get("pixel_id").is_none(), "served as it was");
    practice.stack.kv.faults().clear();
    poller.caught_up().await;
    assert_eq!(practice.setting("a-i").unwrap()["pixel_id"], "new", "tried again by itself");

    practice.stack.api_keys.break_cell("cell-2", Fault::status(500));
    practice.stack.table.put(&and(cell("known"), json!({"pixel_id": "new"})));
    practice.stack.table.put(&cell("new"));
    practice.stack.table.put(&index("a", "other"));
    let arrived = |key: &'static str, field: &'static str| {
        move |kv: &Kv| {
            kv.get(SETTINGS, key).is_some_and(|stored| stored.json().get(field).is_some())
        }
    };
    let other = practice.stack.kv.wait_until(PATIENT, arrived("a-other", "index_url")).await;
    assert!(other, "other cells are not held up");
    let known = practice.stack.kv.wait_until(PATIENT, arrived("b-known", "pixel_id")).await;
    assert!(known, "with the key that KV held");
    assert!(practice.setting("b-new").is_none());
    let warnings = practice.ask(&query("warnings"));
    assert!(warnings.iter().any(|line| line["index_name"] == "known"), "{warnings:?}");
    practice.stack.api_keys.faults().clear();
    practice.stack.api_keys.set("b", "rotated meanwhile");
    practice.repair().await;
    poller.caught_up().await;
    for key in ["b-known", "b-new"] {
        assert_eq!(practice.setting(key).unwrap()["marqo_api_key"], "rotated meanwhile");
    }
}

#[tokio::test]
async fn rotating_the_cloudflare_token() {
    let practice = Practice::start().await;
    practice.stack.table.put(&index("a", "i"));
    practice.repair().await;

    // Both tokens hold while the secret has the new one; then the old one is revoked.
    practice.stack.secrets.set(TOKEN_SECRET, r#"{"token":"new-token"}"#);
    practice.assert_equal(&practice.audit().await);
    practice.stack.kv.set_token("new-token");
    practice.assert_equal(&practice.audit().await);
    assert_eq!(practice.function.starts(), 1, "nothing was deployed");

    practice.stack.secrets.set(TOKEN_SECRET, "mistyped");
    practice.stack.kv.set_token("newest");
    let failure = practice.invoke(json!({"reconcile": {}})).await.unwrap_err();
    assert_eq!(failure.error_type, "CloudflareAuthRejected");
}

#[tokio::test]
async fn moving_to_a_new_namespace() {
    let practice = Practice::start().await;
    practice.stack.table.put(&shop("a", "i", "s.example"));
    practice.stack.table.put(&query_config("a", "i", "q", 1));
    practice.repair().await;
    for namespace in ["new-settings", "new-query-configs"] {
        practice.stack.kv.put(namespace, "made", "", None);
        practice.stack.kv.delete(namespace, "made");
    }
    let env = [
        ("CLOUDFLARE_KV_NAMESPACE_ID", "new-settings"),
        ("CLOUDFLARE_KV_QCFG_NAMESPACE_ID", "new-query-configs"),
    ];
    let function = process::function(&practice.stack, &env).await;
    let practice = Practice { function, ..practice };

    let audit = practice.audit().await;
    assert_eq!(audit["settings"]["missing"], audit["settings"]["desired"]);
    assert_eq!(audit["settings"]["orphaned"], 0);
    assert_eq!(practice.repair().await["complete"], true);
    practice.assert_equal(&practice.audit().await);
    assert_eq!(practice.stack.kv.keys("new-settings"), ["a-i", "s.example"]);
    assert_eq!(practice.stack.kv.keys("new-query-configs").len(), 1);
}

#[tokio::test]
async fn first_deployment() {
    let practice = Practice::start().await;
    practice.stack.table.put(&shop("a", "old", "s.example"));
    practice.stack.kv.put(SETTINGS, "another exporter's", "{}", None);
    // LATEST: what is there already does not come by itself.
    let poller = practice.poll();
    practice.put(&poller, [index("a", "new")]).await;
    assert!(practice.setting("a-old").is_none());

    let audit = practice.audit().await;
    assert_eq!(audit["settings"]["desired"], 3);
    assert_eq!(audit["settings"]["missing"], 2);
    assert_eq!(audit["settings"]["foreign"], 1);
    assert_eq!(practice.repair().await["complete"], true);
    practice.assert_equal(&practice.audit().await);
}

#[tokio::test]
async fn stopping_everything() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.put(&poller, [index("a", "i")]).await;
    drop(poller);
    let held = practice.stack.kv.snapshot(SETTINGS);
    practice.stack.table.put(&and(index("a", "i"), json!({"pixel_id": "new"})));
    assert_eq!(practice.stack.kv.snapshot(SETTINGS), held);

    assert_eq!(practice.audit().await["examples"]["stale"], json!(["a-i"]));
    practice.repair().await;
    assert_eq!(practice.setting("a-i").unwrap()["pixel_id"], "new");
}
