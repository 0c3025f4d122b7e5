//! `testbed demo`: six changes, carried from the table to KV by the real binary. Each is checked; with
//! `--verbose`, each request, log line and check is shown too.

mod stage;
mod steps;

use std::time::Duration;

use testbed::poller::PollerOptions;
use testbed::stack::{Stack, StackOptions, TOKEN};

use crate::args::Args;
use crate::screen::{Screen, Style, millis};
use crate::{Outcome, bootstrap};
use stage::{Checked, Demo};

/// How long a batch waits for more records in the demo.
const WINDOW: Duration = Duration::from_millis(200);
/// The first wait before a request is sent again: a second in production.
const RETRY: (&str, &str) = ("HTTP_RETRY_BASE_MS", "100");

pub async fn run(mut args: Args) -> Outcome {
    let binary = bootstrap()?;
    let verbose = args.flag("--verbose");
    args.end()?;
    let stack = Stack::start(StackOptions::default()).await?;
    let function = stack.function(&binary, [RETRY]).await?;
    let init = function.warm().await?.unwrap_or_default();
    let mapping = PollerOptions { window: WINDOW, retry_delay: Duration::from_millis(100) };
    let poller = stack.poll(&function, mapping);
    let screen = Screen::new();
    let demo = Demo { screen, verbose, stack, function, poller };
    println!(
        "The real binary, a debug build, started in {}. All that it talks to is here.",
        millis(init)
    );
    println!("A batch waits {} for more changes; in production, 10 s.", millis(WINDOW));
    if let Err(reason) = play(&demo).await {
        screen.line(Style::Red, "failed", &reason);
        return Err("The demo failed.".into());
    }
    println!(
        "
Now you. This keeps it all running:

  make local

and this, in another terminal, puts an item and says what KV holds of it:

  make put EXAMPLE=weighted-alias && make explain LOCAL=true KEY=acme.myshopify.com"
    );
    Ok(())
}

async fn play(demo: &Demo) -> Checked {
    steps::create(demo).await?;
    steps::delete_a_target(demo).await?;
    steps::switch_off(demo).await?;
    steps::break_one_of_two(demo).await?;
    steps::write_while_kv_fails(demo).await?;
    steps::reconcile(demo).await?;
    let lines = demo.function.logs();
    let told = |secret| lines.iter().any(|line| line.text.contains(secret));
    demo.check("no log line holds an API key or the token", !told("key-acme") && !told(TOKEN))
}
