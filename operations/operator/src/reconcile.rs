//! A reconcile: run after run until all is compared. The last report is that of the whole chain.

use serde_json::{Value, json};

use crate::place::{Place, Variables};
use crate::terminal::{Progress, print, say};
use crate::words::Words;
use crate::{Failure, aws, execution, failed, report};

/// The report of the last run that ended.
pub type Chain = Option<Value>;

/// What a repair writes or deletes.
const DIFFERENCES: [&str; 3] = ["missing", "stale", "orphaned"];

pub fn reconcile(words: &Words<'_>, variables: Variables<'_>) -> Result<(), Failure> {
    let mut fields = json!({"apply": words.is("APPLY")});
    if words.is("PREVIEW") {
        fields["preview"] = true.into();
    }
    if let Some(account) = words.get("ACCOUNT") {
        fields["system_account_id"] = account.into();
    }
    for (word, field) in [("DELETE_UP_TO", "delete_up_to"), ("REWRITE_UP_TO", "rewrite_up_to")] {
        if let Some(Ok(number)) = words.get(word).map(str::parse::<u64>) {
            fields[field] = number.into();
        }
    }
    let mut chain = None;
    let ended = match Place::of(words, variables)? {
        local @ Place::Local(_) => follow_continue(&local, fields, &mut chain),
        Place::Aws(stack) => execution::follow(&execution::start(&stack, &fields)?, &mut chain),
    };
    finish(words, chain, ended)
}

pub fn follow(words: &Words<'_>, variables: Variables<'_>) -> Result<(), Failure> {
    let place = Place::of(words, variables)?;
    let stack = place.in_aws("executions: reconcile itself follows its runs there")?;
    let newest = || execution::list(stack, &["--no-paginate", "--max-results", "1"]);
    let arn = match words.get("EXECUTION") {
        Some(arn) => arn.to_owned(),
        None => newest()?.pop().ok_or_else(|| failed("no reconcile has begun yet"))?,
    };
    let mut chain = None;
    let ended = execution::follow(&arn, &mut chain);
    finish(words, chain, ended)
}

pub fn stop_all(words: &Words<'_>, variables: Variables<'_>) -> Result<(), Failure> {
    let place = Place::of(words, variables)?;
    let stack = place.in_aws("executions: Ctrl-C ends a reconcile there")?;
    let running = execution::list(stack, &["--status-filter", "RUNNING"])?;
    for arn in &running {
        aws::json("stepfunctions stop-execution --execution-arn", &[arn])?;
        print(&[format!("stopped {arn}")])?;
    }
    say(match running.is_empty() {
        true => "No reconcile is running.",
        false => "A run that has begun ends by itself within 15 minutes.",
    });
    Ok(())
}

/// Invokes the function until a report has no `continue`, as the state machine does in AWS.
fn follow_continue(local: &Place, mut fields: Value, chain: &mut Chain) -> Result<(), Failure> {
    say("After Ctrl-C the run that has begun goes on to its end, and no other follows.");
    let shown = Progress::start("the first run is under way");
    loop {
        let answer = local.invoke(&json!({"reconcile": fields}), "")?;
        let report = report::parsed(&answer);
        shown.show(progress(&report));
        fields["continue"] = report["continue"].clone();
        *chain = Some(report);
        if fields["continue"].is_null() {
            return Ok(());
        }
    }
}

pub fn is_report(value: &Value) -> bool {
    value["settings"].is_object()
}

/// How far a chain is, in a line.
pub fn progress(report: &Value) -> String {
    let compared = count(report, &["listed", "missing"]);
    let repaired = count(report, &["written", "deleted"]);
    let left = count(report, &DIFFERENCES).saturating_sub(repaired);
    format!("{compared} keys compared, {repaired} repaired, {left} left")
}

/// The sum of some classes over both namespaces.
fn count(report: &Value, classes: &[&str]) -> u64 {
    let counts = ["settings", "query_configs"].map(|namespace| &report[namespace]);
    let count = |class: &&str| counts.map(|counts| counts[*class].as_u64().unwrap_or_default());
    classes.iter().flat_map(count).sum()
}

/// Prints the last report, also of a chain that failed, and says what comes next.
fn finish(words: &Words<'_>, chain: Chain, ended: Result<(), Failure>) -> Result<(), Failure> {
    let Some(mut report) = chain else { return ended };
    let raw = report.to_string();
    report["continue"].take();
    print(&if words.is("RAW") { vec![raw] } else { report::lines(&report) })?;
    ended?;
    let is_unknown = count(&report, &["desired", "listed", "rejected", "failed"]) == 0;
    let (code, why) = match words.get("ACCOUNT").filter(|_| is_unknown) {
        Some(account) => (1, format!("Neither the table nor KV knows account {account}.")),
        None => next_step(&report),
    };
    if code > 0 {
        return Err(Failure { code, why });
    }
    say(&why);
    Ok(())
}

/// What comes next, with the exit code: the worst that a report tells of decides.
fn next_step(report: &Value) -> (u8, String) {
    let any = |classes: &[&str]| count(report, classes) > 0;
    let repaired = report["apply"] == true;
    let unfinished = u8::from(report["complete"] != true);
    let (code, next) = if report["dry_run"] == true {
        (0, "Nothing was sent to Cloudflare: the function has no CLOUDFLARE_ACCOUNT_ID.")
    } else if ["delete", "rewrite"].iter().any(|what| report["refused"][what].as_u64() > Some(0)) {
        let code = if repaired { 3 } else { unfinished };
        (code, "Do not repair before you know why so much differs: docs/runbook/repair-refused.md")
    } else if any(&["failed"]) {
        (unfinished, "Not all could be judged or repaired: docs/runbook/reconcile-keys-failed.md")
    } else if unfinished > 0 {
        (1, "It ended before all was done: run it again.")
    } else if any(&DIFFERENCES) && !repaired {
        (0, "To repair what is missing, stale or orphaned: the same with APPLY=true.")
    } else if any(&DIFFERENCES) {
        (0, "Repaired. KV shows it everywhere after a minute: then check with make reconcile.")
    } else if any(&["rejected", "conflicting", "withheld", "dangling"]) {
        (0, "KV has all that it can have. make explain KEY=… says what to correct in the table.")
    } else {
        (0, "No difference was found.")
    };
    (code, next.to_owned())
}
