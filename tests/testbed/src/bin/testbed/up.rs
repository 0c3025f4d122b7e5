//! `testbed up`: everything on fixed ports, and each export as it happens.

use std::path::Path;
use std::time::{Duration, SystemTime};

use testbed::aws::FUNCTION;
use testbed::kv::KvRequest;
use testbed::lambda::Function;
use testbed::poller::{Delivery, Poller, PollerOptions, Verdict};
use testbed::stack::{QUERY_CONFIGS, SETTINGS, Stack, StackOptions, environment_at};
use tokio::process::Command;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;
use crate::fault;
use crate::screen::{Screen, Style};
use crate::{Outcome, bootstrap};

/// The time that `wrangler dev` takes for a bulk request grows with the square of its pairs.
const WRANGLER_BULK: (&str, &str) = ("KV_BULK_MAX_PAIRS", "500");
const WINDOW: Duration = Duration::from_millis(200);
/// How often the sources are looked at, and what happened is shown.
const LOOK: Duration = Duration::from_millis(500);
const SHOW: Duration = Duration::from_millis(100);
/// How long the function waits for an answer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

pub async fn run(mut args: Args) -> Outcome {
    let no_function = args.flag("--no-function");
    let build = args.value("--build")?;
    let kv_url = args.value("--kv-url")?;
    let mut ports = args.ports()?;
    if kv_url.is_some() {
        // Nobody uses the stand-in for KV then, and its port may be the other KV's.
        ports.kv = 0;
    }
    let binary = if no_function { None } else { Some(bootstrap()?) };
    args.end()?;
    if fault::is_served(ports.faults).await {
        return Err("A local stack runs already: use that one, or end it with Ctrl-C.".into());
    }

    let stack = Stack::start(StackOptions { ports, ..StackOptions::default() }).await?;
    let _faults = fault::serve(ports.faults, &stack, kv_url.is_none()).await?;
    println!("DynamoDB         {}  table {}", stack.table.url(), stack.table.name());
    let kv = kv_url.clone().unwrap_or_else(|| stack.kv.url());
    println!("Cloudflare KV    {kv}  namespaces {SETTINGS}, {QUERY_CONFIGS}");
    println!("API keys         {}", stack.api_keys.url_template());
    println!("Secrets Manager  {}", stack.secrets.url());
    let Some(binary) = binary else {
        println!("\nReady. Ctrl-C ends it.");
        return ended().await;
    };

    let kv = kv_url.as_deref().map(|url| [("CLOUDFLARE_KV_URL", url), WRANGLER_BULK]);
    let function = stack.function(binary, kv.into_iter().flatten()).await?;
    function.warm().await?;
    println!("Lambda           {}  function {FUNCTION}", function.url());
    let mapping = PollerOptions { window: WINDOW, retry_delay: Duration::from_secs(2) };
    let poller = stack.poll(&function, mapping);
    if kv_url.is_none() {
        println!("{COMMANDS}");
    }
    let rebuilt = if build.is_some() { " A change in src is built and taken over." } else { "" };
    println!("\nReady. A batch waits 200 ms here, 10 s in production.{rebuilt} Ctrl-C ends it.\n");
    tokio::select! {
        ended = ended() => ended,
        () = show(&stack, &function, &poller) => Ok(()),
        rebuilding = rebuild(build, &function) => rebuilding,
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn ended() -> Outcome {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = ctrl_c() => Ok(pressed?),
        _ = terminate.recv() => Ok(()),
    }
}

pub fn env(mut args: Args) -> Outcome {
    let ports = args.ports()?;
    args.end()?;
    let mut env = environment_at(ports);
    // For the AWS CLI and `make` only.
    env.insert("AWS_ENDPOINT_URL_LAMBDA".into(), format!("http://127.0.0.1:{}", ports.lambda));
    // Whatever has no stand-in is not asked for in AWS.
    env.insert("AWS_ENDPOINT_URL".into(), "http://127.0.0.1:9".into());
    for (name, value) in env {
        println!("export {name}='{value}'");
    }
    Ok(())
}

const COMMANDS: &str = "
Try it in another terminal:

  make put EXAMPLE=weighted-alias                   an item, and those that its alias points at
  make explain LOCAL=true KEY=acme.myshopify.com    what KV holds of it, and why
  make put EXAMPLE=alias-off                        the alias is switched off
  make fault KV=503                                 KV fails; without KV=503, what else can
  make reconcile LOCAL=true                         compares KV with the table";

/// Builds after each change of a source, and has the function start anew.
async fn rebuild(build: Option<String>, function: &Function) -> Outcome {
    let Some(build) = build else { return std::future::pending().await };
    let screen = Screen::new();
    let mut built = newest(Path::new("src"));
    loop {
        tokio::time::sleep(LOOK).await;
        let changed = newest(Path::new("src"));
        if changed <= built {
            continue;
        }
        built = changed;
        screen.line(Style::Bold, "build", &build);
        if Command::new("sh").args(["-c", &build]).status().await?.success() {
            function.stop().await;
            screen.line(Style::Green, "ready", "the next event goes to the new build");
        } else {
            screen.line(Style::Red, "ready", "events go on to the build before");
        }
    }
}

/// When a file of a folder, or of a folder in it, was changed last.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let changed = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        if metadata.is_dir() { newest(&entry.path()) } else { metadata.modified().ok() }
    });
    changed.max()
}

/// Shows the writes to KV, the warnings and the batches as they come.
async fn show(stack: &Stack, function: &Function, poller: &Poller) {
    let screen = Screen::new();
    let (mut requests, mut lines, mut batches) = (0, 0, 0);
    loop {
        tokio::time::sleep(SHOW).await;
        // What is under way is shown once it has ended, or its client has given up.
        let is_over = |request: &&KvRequest| {
            request.finished_at.is_some() || request.received_at.elapsed() > HTTP_TIMEOUT
        };
        for request in stack.kv.log().split_off(requests).iter().take_while(is_over) {
            requests += 1;
            if request.verb.writes() {
                screen.request(request);
            }
        }
        for line in function.logs().split_off(lines) {
            lines += 1;
            screen.warning(&line.text);
        }
        for delivery in poller.deliveries().split_off(batches) {
            batches += 1;
            show_delivery(screen, &delivery);
        }
    }
}

fn show_delivery(screen: Screen, delivery: &Delivery) {
    let (records, took) = (delivery.records, delivery.duration.as_millis());
    let (style, text) = match &delivery.verdict {
        Verdict::Done => (Style::Green, format!("{records} done, {took} ms")),
        Verdict::From(done) => {
            let text = format!("{done} of {records} done, {took} ms; the rest is delivered again");
            (Style::Yellow, text)
        }
        Verdict::Failed(error) => (Style::Red, format!("{records} failed: {error}")),
    };
    screen.line(style, "batch", &text);
}
