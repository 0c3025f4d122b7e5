//! `testbed up`: everything on fixed ports, and each export as it happens.

use std::collections::BTreeMap;
use std::time::Duration;

use hyper::Method;
use hyper::header::HeaderMap;
use serde_json::Value;
use testbed::http::{Client, Reply};
use testbed::kv::KvRequest;
use testbed::lambda::Function;
use testbed::poller::{Delivery, Poller, PollerOptions, Verdict};
use testbed::stack::{QUERY_CONFIGS, SETTINGS, Stack, StackOptions, TOKEN, environment_at};
use testbed::stream::StartingPosition;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::Outcome;
use crate::args::Args;
use crate::drill;
use crate::screen::{Screen, Style};

/// The function that `cargo lambda watch` serves.
const WATCHED: &str = "http://127.0.0.1:9000/2015-03-31/functions/bootstrap/invocations";
/// The time that `wrangler dev` takes for a bulk request grows with the square of its pairs.
const WRANGLER_BULK: (&str, &str) = ("KV_BULK_MAX_PAIRS", "500");
const WINDOW: Duration = Duration::from_millis(200);

pub async fn run(mut args: Args) -> Outcome {
    let elsewhere = args.flag("--no-function");
    let url = args.value("--function-url")?;
    let kv_url = args.value("--kv-url")?;
    let mut ports = args.ports()?;
    if kv_url.is_some() {
        // Nobody uses the stand-in for KV then, and its port may be the other KV's.
        ports.kv = 0;
    }
    let binary = if elsewhere { None } else { Some(args.bootstrap()?) };
    args.end()?;

    let options = StackOptions { ports, ..StackOptions::default() };
    let stack = Stack::start(options).await?;
    let mapping = PollerOptions {
        window: WINDOW,
        starting_position: StartingPosition::TrimHorizon,
        retry_delay: Duration::from_secs(2),
        ..PollerOptions::default()
    };
    let (function, poller, _drills) = match binary {
        Some(binary) => {
            let kv = kv_url.as_deref().map(|url| [("CLOUDFLARE_KV_URL", url), WRANGLER_BULK]);
            let function = stack.function(binary, kv.into_iter().flatten()).await?;
            function.warm().await?;
            let poller = stack.poll(&function, mapping);
            let drills = drill::serve(ports.drills, &stack, &function).await;
            let drills =
                drills.map_err(|error| format!("drills, port {}: {error}", ports.drills))?;
            (Some(function), poller, Some(drills))
        }
        None => (None, poll_elsewhere(&stack, url.as_deref().unwrap_or(WATCHED), mapping), None),
    };
    let lambda = function.is_some().then_some(ports.lambda);
    show_addresses(&stack, kv_url.as_deref().unwrap_or(&stack.kv.url()), lambda);
    if kv_url.is_none() {
        show_commands(&stack, ports.kv, lambda);
    }
    println!(
        "\nBatching window {} ms here, 10 s in production. Ctrl-C ends it.\n",
        WINDOW.as_millis()
    );
    let terminate = signal(SignalKind::terminate())?;
    watch(&stack, function.as_ref(), &poller, terminate).await;
    Ok(())
}

pub fn env(mut args: Args) -> Outcome {
    let ports = args.ports()?;
    args.end()?;
    let mut env = environment_at(ports);
    // For the AWS CLI and `make` only.
    for (name, value) in [
        ("AWS_ENDPOINT_URL_LAMBDA", format!("http://127.0.0.1:{}", ports.lambda)),
        // Whatever has no stand-in is not asked for in AWS.
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9".to_owned()),
        ("FUNCTION", "ecom-settings-exporter".to_owned()),
    ] {
        env.insert(name.to_owned(), value);
    }
    export(&env);
    Ok(())
}

fn export(env: &BTreeMap<String, String>) {
    for (name, value) in env {
        println!("export {name}='{value}'");
    }
}

fn poll_elsewhere(stack: &Stack, url: &str, options: PollerOptions) -> Poller {
    let client = Client::default();
    let url = url.to_owned();
    Poller::start(&stack.table, options, move |event| {
        let (client, url) = (client.clone(), url.clone());
        async move { invoke(&client, &url, event.to_string()).await }
    })
}

/// Invokes a function by its URL. Also fails if the function answers with an error.
async fn invoke(client: &Client, url: &str, event: String) -> Result<Value, String> {
    let sent = client.send(Method::POST, url, HeaderMap::new(), event).await;
    let Reply { status, headers, body } = sent?;
    let text = String::from_utf8_lossy(&body);
    if status.is_success() && !headers.contains_key("x-amz-function-error") {
        return Ok(serde_json::from_str(&text).unwrap_or_default());
    }
    Err(format!("{status}: {text}"))
}

fn show_addresses(stack: &Stack, kv: &str, lambda: Option<u16>) {
    println!("DynamoDB         {}  table {}", stack.table.url(), stack.table.name());
    println!("Cloudflare KV    {kv}  namespaces {SETTINGS}, {QUERY_CONFIGS}");
    println!("API keys         {}", stack.api_keys.url_template());
    println!("Secrets Manager  {}", stack.secrets.url());
    if let Some(port) = lambda {
        println!("Lambda           http://127.0.0.1:{port}  function ecom-settings-exporter");
    }
}

fn show_commands(stack: &Stack, kv: u16, lambda: Option<u16>) {
    let dynamodb = stack.table.url();
    let table = stack.table.name();
    let settings = format!(
        "http://127.0.0.1:{kv}/client/v4/accounts/local-account/storage/kv/namespaces/{SETTINGS}"
    );
    println!(
        "\nThe environment of the function and of the commands below, also from `make -s local-env`:\n"
    );
    export(&stack.env());
    println!(
        r#"
Try it (the first line needs the AWS CLI; `make put` does without):

aws dynamodb put-item --endpoint-url {dynamodb} --table-name {table} --item \
  '{{"pk":{{"S":"acme"}},"sk":{{"S":"INDEX#products"}},"shop_id":{{"S":"acme.myshopify.com"}},"index_endpoint":{{"S":"https://products.example.com"}}}}'
curl -H 'Authorization: Bearer {TOKEN}' '{settings}/keys'
curl -H 'Authorization: Bearer {TOKEN}' '{settings}/values/acme.myshopify.com'"#
    );
    if let Some(lambda) = lambda {
        println!(
            r#"curl http://127.0.0.1:{lambda}/2015-03-31/functions/ecom-settings-exporter/invocations \
  -d '{{"system_account_id":"acme","index_name":"products"}}'
curl http://127.0.0.1:{lambda}/2015-03-31/functions/ecom-settings-exporter/invocations -d '{{"reconcile":{{}}}}'
make explain LOCAL=true KEY=acme.myshopify.com    # also re-export, reconcile and history"#
        );
    }
}

/// Shows what happens until Ctrl-C or SIGTERM.
async fn watch(stack: &Stack, function: Option<&Function>, poller: &Poller, mut terminate: Signal) {
    let screen = Screen::new();
    let mut requests = stack.kv.requests();
    let mut deliveries = poller.subscribe();
    let mut lines = function.map(Function::subscribe);
    loop {
        tokio::select! {
            _ = ctrl_c() => return,
            _ = terminate.recv() => return,
            Some(request) = news(&mut requests) => show_request(screen, &request),
            Some(delivery) = news(&mut deliveries) => show_delivery(screen, &delivery),
            Some(line) = async { news(lines.as_mut()?).await } => screen.warning(&line),
        }
    }
}

/// The next message; `None` after the last.
async fn news<T: Clone>(channel: &mut broadcast::Receiver<T>) -> Option<T> {
    loop {
        match channel.recv().await {
            Ok(message) => return Some(message),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

fn show_request(screen: Screen, request: &KvRequest) {
    if request.verb.writes() {
        screen.request(request);
    }
}

fn show_delivery(screen: Screen, delivery: &Delivery) {
    let records = delivery.sequence_numbers.len();
    let took = delivery.duration.as_millis();
    match &delivery.verdict {
        Verdict::Done => screen.line(Style::Green, "batch", &format!("{records} done, {took} ms")),
        Verdict::From(done) => {
            let text = format!("{done} of {records} done, {took} ms; the rest is delivered again");
            screen.line(Style::Yellow, "batch", &text);
        }
        Verdict::Failed(error) => {
            screen.line(Style::Red, "batch", &format!("{records} failed: {error}"));
        }
    }
}
