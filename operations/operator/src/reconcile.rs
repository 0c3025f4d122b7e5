//! A reconcile, run after run until all is compared.

use serde_json::{Map, Value, json};

use crate::chain::Chain;
use crate::execution;
use crate::failure::Failure;
use crate::function::{Place, Stack};
use crate::given::Given;
use crate::local::Local;
use crate::report::{plain, rendered, show};

pub fn reconcile(given: &Given, fields: &Map<String, Value>, place: &Place) -> Result<(), Failure> {
    if let Some(account) = given.text("ACCOUNT") {
        eprintln!("account {}:", plain(account));
    }
    let mut chain = Chain::default();
    let ended = match place {
        Place::Local(local) => follow_continue(local, fields, &mut chain),
        Place::Aws(stack) => {
            let execution = execution::start(stack, fields)?;
            execution::follow(stack, &execution, &mut chain)
        }
    };
    finish(given, &chain, ended)
}

/// `follow`: follows the execution that is named, or the newest one.
pub fn follow(given: &Given, place: &Place) -> Result<(), Failure> {
    let stack = in_aws(place)?;
    let execution = match given.text("EXECUTION") {
        Some(arn) => arn.to_owned(),
        None => {
            let newest = execution::list(stack, &["--no-paginate", "--max-results", "1"])?;
            let newest = newest.into_iter().next();
            newest.ok_or_else(|| Failure::because("no reconcile has begun yet"))?
        }
    };
    let mut chain = Chain::default();
    let ended = execution::follow(stack, &execution, &mut chain);
    finish(given, &chain, ended)
}

/// `stop-reconciles`: stops all that run.
pub fn stop_all(place: &Place) -> Result<(), Failure> {
    let stack = in_aws(place)?;
    let running = execution::list(stack, &["--status-filter", "RUNNING"])?;
    if running.is_empty() {
        println!("no reconcile is running");
    }
    for arn in running {
        execution::stop(stack, &arn)?;
        println!("stopped {arn}");
    }
    Ok(())
}

/// Invokes the function until no report has a `continue`, as the state machine does in AWS.
pub fn follow_continue(
    local: &Local,
    fields: &Map<String, Value>,
    chain: &mut Chain,
) -> Result<(), Failure> {
    let mut fields = fields.clone();
    loop {
        let answer = local.invoke(&json!({"reconcile": fields}))?;
        if answer.failed {
            return Err(Failure::because(rendered(&answer.text).trim_end()));
        }
        let mut report: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        chain.add(&report)?;
        eprintln!("{}", chain.progress());
        match report["continue"].take() {
            Value::Null => return Ok(()),
            place => fields.insert("continue".to_owned(), place),
        };
    }
}

/// Shows what the runs found and did, also if they did not come to an end.
fn finish(given: &Given, chain: &Chain, ended: Result<(), Failure>) -> Result<(), Failure> {
    if chain.runs > 0 {
        show(given, &serde_json::to_string(chain).unwrap_or_default())?;
    }
    ended?;
    if chain.apply && chain.refused() > 0 { Err(Failure::Refused) } else { Ok(()) }
}

fn in_aws(place: &Place) -> Result<&Stack, Failure> {
    match place {
        Place::Aws(stack) => Ok(stack),
        Place::Local(_) => Err(Failure::usage(
            "the local stack has no executions: `reconcile` itself follows its runs there",
        )),
    }
}
