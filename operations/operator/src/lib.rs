//! `operator`: the commands of whoever is on call for the settings exporter.
//!
//! In AWS it asks through the AWS CLI, on the local stack over HTTP. Progress goes to standard error,
//! the report to standard output: for people, or as JSON if `RAW=true` is given.

mod aws;
pub mod chain;
mod execution;
mod failure;
mod function;
mod given;
mod history;
pub mod local;
mod payload;
pub mod reconcile;
mod report;
mod status;

use std::ffi::OsString;

use serde_json::Value;

pub use failure::Failure;
use function::{Place, Variables};
use given::Given;

const USAGE: &str = "\
usage: operator COMMAND [NAME=value ...], with ENVIRONMENT=prod in the environment

  explain KEY=k, or ACCOUNT=a INDEX=i      say what KV holds of an index, and why
          [QUALIFIER=next]                 by the version that is not live yet
  re-export ACCOUNT=a INDEX=i              write one index from the table
            [QUERY_CONFIGS=true]           and all of its query configs
  reconcile [ACCOUNT=a]                    audit: compare KV with the table
            [APPLY=true]                   repair: and correct what differs
            [DELETE_UP_TO=n] [REWRITE_UP_TO=n]  raise the repair's brakes
            [PREVIEW=true]                 audit by the version that is not live yet
  follow [EXECUTION=arn]                   follow a reconcile that has begun: the newest one
  stop-reconciles                          stop all reconciles
  history KEY=k, or ACCOUNT=a INDEX=i      what was served, from when to when, since which change
            [SINCE=7d]
  status                                   what rings, what is live, and how the parts are
  invoke EVENT=file                        send any payload
  report                                   print an answer of the function from standard input

All take RAW=true, which prints JSON, and LOCAL=true, which asks the function of `make local`.
It ends with 0 if it was done, 1 if it failed, 2 if it was not begun because what it was given makes
no sense, and 3 if a repair's brakes refused something.

What it does, by hand with the AWS CLI (2.13 or later):
  explain, re-export, invoke:
    aws lambda invoke --function-name FUNCTION --qualifier live --cli-read-timeout 0 \\
        --payload fileb://payload.json answer.json
    with {\"explain\":{\"key\":\"k\"}} or {\"system_account_id\":\"a\",\"index_name\":\"i\"} in payload.json
  reconcile:
    aws stepfunctions start-execution --state-machine-arn ARN --input '{\"reconcile\":{\"apply\":false}}'
  follow:
    aws stepfunctions get-execution-history --execution-arn ARN
  stop-reconciles:
    aws stepfunctions list-executions --state-machine-arn ARN --status-filter RUNNING
    aws stepfunctions stop-execution --execution-arn ARN
  history:
    aws logs tail /aws/lambda/FUNCTION --since 7d --format short --filter-pattern '{ $.message = \"exported\" }'
FUNCTION and ARN are outputs of the stack:
    aws cloudformation describe-stacks --stack-name ENVIRONMENT-ecom-settings-exporter";

pub fn run(
    mut args: impl Iterator<Item = String>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(), Failure> {
    let variables = Variables::of(variables);
    let command = args.next().unwrap_or_default();
    let mut take =
        |known: &[&str]| Given::take(args.by_ref(), &[known, &["LOCAL", "RAW"]].concat());
    let place = |given: &Given| Place::of(given, &variables);
    match command.as_str() {
        "explain" => {
            let given = take(&["ACCOUNT", "INDEX", "KEY", "QUALIFIER"])?;
            let payload = payload::explain(&given)?;
            ask(&given, &payload, &place(&given)?)
        }
        "re-export" => {
            let given = take(&["ACCOUNT", "INDEX", "QUERY_CONFIGS"])?;
            let payload = payload::re_export(&given)?;
            ask(&given, &payload, &place(&given)?)
        }
        "invoke" => {
            let given = take(&["EVENT"])?;
            let payload = event(&given)?;
            let place = place(&given)?;
            // A sample of a stream must not be written to an environment in AWS.
            if !place.is_on_this_machine() && payload.get("Records").is_some() {
                return Err(Failure::usage("a stream event goes only to a local function"));
            }
            ask(&given, &payload, &place)
        }
        "reconcile" => {
            let given = take(&["ACCOUNT", "APPLY", "DELETE_UP_TO", "PREVIEW", "REWRITE_UP_TO"])?;
            let fields = payload::reconcile(&given)?;
            reconcile::reconcile(&given, &fields, &place(&given)?)
        }
        "follow" => {
            let given = take(&["EXECUTION"])?;
            reconcile::follow(&given, &place(&given)?)
        }
        "history" => {
            let given = take(&["ACCOUNT", "INDEX", "KEY", "SINCE"])?;
            history::history(&given, &place(&given)?)
        }
        "status" => status::status(&place(&take(&[])?)?),
        "stop-reconciles" => reconcile::stop_all(&place(&take(&[])?)?),
        "report" => report::print(),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(Failure::Usage(USAGE.to_owned())),
    }
}

fn ask(given: &Given, payload: &Value, place: &Place) -> Result<(), Failure> {
    let answer = place.invoke(payload, given.text("QUALIFIER").unwrap_or("live"))?;
    report::show(given, &answer.text)?;
    if answer.failed { Err(Failure::Failed(None)) } else { Ok(()) }
}

fn event(given: &Given) -> Result<Value, Failure> {
    let event = given.text("EVENT");
    let event = event.ok_or_else(|| Failure::usage("invoke needs EVENT"))?;
    let text = std::fs::read_to_string(event).map_err(|error| Failure::of(event, error))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{event} is not JSON: {error}")))
}
