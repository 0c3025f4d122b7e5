//! `testbed demo`: carries changes from the table to KV through the real binary, and checks each.

mod changes;
mod incidents;
mod reconcile;
mod removals;
mod stage;

use std::path::Path;
use std::time::Duration;

use testbed::poller::PollerOptions;
use testbed::stack::{Stack, StackOptions, TOKEN};

use crate::Outcome;
use crate::args::Args;
use crate::screen::{Screen, Style, millis};
use stage::{Checked, Demo};

/// How long a batch waits for more records in the demo.
const WINDOW: Duration = Duration::from_millis(200);

pub async fn run(mut args: Args) -> Outcome {
    let binary = args.bootstrap()?;
    args.end()?;
    let stack = Stack::start(StackOptions::default()).await?;
    let function = stack.function(&binary, []).await?;
    let init = function.warm().await?.unwrap_or_default();
    let mapping = PollerOptions { window: WINDOW, ..PollerOptions::default() };
    let poller = stack.poll(&function, mapping);
    let demo = Demo { screen: Screen::new(), stack, function, poller };
    println!("{} was ready after {}.", binary.display(), millis(init));
    println!("A batch waits {} for more changes; in production, 10 s.", millis(WINDOW));
    let ended = play(&demo, &binary).await;
    if let Err(reason) = &ended {
        demo.screen.line(Style::Red, "fail", reason);
        return Err("The demo failed.".into());
    }
    usage(&demo).await;
    Ok(())
}

async fn play(demo: &Demo, binary: &Path) -> Checked {
    changes::play(demo).await?;
    reconcile::play(demo).await?;
    removals::play(demo).await?;
    incidents::play(demo, binary).await?;
    silent(demo)
}

/// Checks that the function has printed no secret.
fn silent(demo: &Demo) -> Checked {
    demo.step("16. Everything that the function printed");
    let secrets = ["key-acme", TOKEN];
    let printed = demo.function.logs();
    let told = printed.iter().any(|line| secrets.iter().any(|secret| line.text.contains(secret)));
    demo.check(&format!("{} lines, no API key and no token in them", printed.len()), !told)
}

async fn usage(demo: &Demo) {
    if let Ok(usage) = demo.function.usage().await {
        let memory = usage.peak_memory as f64 / 1e6;
        let cpu = millis(usage.cpu);
        println!(
            "\nEverything is as expected. The function used at most {memory:.1} MB, and {cpu} of CPU."
        );
    }
}
