//! `testbed fault`: faults for the stand-ins of `testbed up`, to practise with.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use hyper::Method;
use hyper::header::HeaderMap;
use testbed::faults::{Fault, Faults, Rule};
use testbed::http::{Client, Reply, Request, Server};
use testbed::stack::{Stack, TOKEN};

use crate::args::Args;
use crate::{Outcome, no_stack};

const HELP: &str = "\
make fault KV=503                     Cloudflare KV responds with this status; also hang and drop
make fault KV=429 RETRY_AFTER=30      … and asks to wait this number of seconds
make fault KV=400 KEY=shop.example    … but only where a request names this key
make fault API_KEYS=hang              the API keys service does not answer; also drop, or a status
make fault API_KEYS=404 CELL=eu-1     … only the gateway of this cell
make fault TABLE=down                 DynamoDB fails; also throttled, denied, hang and drop
make fault TOKEN=refused              Cloudflare refuses the token
make fault CLEAR=true                 all of them are over";

const NAMES: [&str; 8] =
    ["API_KEYS", "CELL", "CLEAR", "KEY", "KV", "RETRY_AFTER", "TABLE", "TOKEN"];

pub async fn run(mut args: Args) -> Outcome {
    let port = args.ports()?.faults;
    // Make passes every name, and an empty value for what was not given.
    args.0.retain(|word| !word.ends_with('='));
    let Reply { status, body, .. } = send(port, args.0.join("\n")).await.map_err(no_stack)?;
    let said = String::from_utf8_lossy(&body);
    if !status.is_success() {
        return Err(said.into());
    }
    // A reader may have seen enough, as `head` has.
    Ok(writeln!(io::stdout(), "{said}")?)
}

async fn send(port: u16, body: String) -> Result<Reply, String> {
    let url = format!("http://127.0.0.1:{port}/");
    Client::default().send(Method::POST, &url, HeaderMap::new(), body).await
}

/// Whether a local stack takes faults on this port.
pub async fn is_served(port: u16) -> bool {
    send(port, String::new()).await.is_ok_and(|reply| reply.status.is_success())
}

/// Scripts the faults that are asked for, one `NAME=value` a line.
///
/// Where the KV is another one, it can't be made to fail.
pub async fn serve(port: u16, stack: &Stack, own_kv: bool) -> io::Result<Server> {
    let stack = stack.clone();
    let active = Mutex::default();
    Server::start(port, move |request| {
        let mut active = active.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = String::from_utf8_lossy(&request.body);
        let of_kv = |word: &str| word.starts_with("KV=") || word.starts_with("TOKEN=");
        let done = if !own_kv && asked.lines().any(of_kv) {
            Err("KV is that of `wrangler dev` here, which takes no faults".to_owned())
        } else {
            play(&asked, &stack, &mut active)
        };
        let (status, said) = done.map_or_else(|error| (400, error), |said| (200, said));
        async move { Reply::new(status, "text/plain; charset=UTF-8", said).into() }
    })
    .await
}

/// Does what is asked for, and returns which faults are active.
fn play(asked: &str, stack: &Stack, active: &mut Vec<String>) -> Result<String, String> {
    let given: BTreeMap<&str, &str> =
        asked.lines().filter_map(|word| word.split_once('=')).collect();
    if let Some(unknown) = given.keys().find(|name| !NAMES.contains(name)) {
        return Err(format!("there is no {unknown}:\n\n{HELP}"));
    }
    let services = [
        ("KV", stack.kv.faults()),
        ("API_KEYS", stack.api_keys.faults()),
        ("TABLE", stack.table.faults()),
    ];
    if given.get("CLEAR") == Some(&"true") {
        services.iter().for_each(|(_, faults)| Faults::clear(faults));
        stack.kv.set_token(TOKEN);
        active.clear();
    } else if given.len() > usize::from(given.contains_key("CLEAR")) {
        let chosen =
            services.iter().find_map(|(name, faults)| Some((*name, faults, given.get(name)?)));
        match (chosen, given.get("TOKEN")) {
            (Some((name, faults, what)), None) => faults.add(rule(name, what, &given)?),
            (None, Some(&"refused")) => stack.kv.set_token("another"),
            _ => return Err(format!("there is no such fault:\n\n{HELP}")),
        }
        let words = given.iter().filter(|(name, _)| **name != "CLEAR");
        let words: Vec<String> = words.map(|(name, value)| format!("{name}={value}")).collect();
        active.push(words.join(" "));
    }
    Ok(if active.is_empty() {
        format!("All services work. What can fail:\n\n{HELP}")
    } else {
        format!("{}\n`make fault CLEAR=true` ends this.", active.join("\n"))
    })
}

/// A fault that lasts, for the requests that name what is given.
fn rule(service: &str, what: &str, given: &BTreeMap<&str, &str>) -> Result<Rule, String> {
    let mut fault = match (service, what, what.parse()) {
        (_, "hang", _) => Fault::Hang,
        (_, "drop", _) => Fault::DropConnection,
        ("TABLE", "down", _) => Fault::aws(500, "InternalServerError", "scripted"),
        ("TABLE", "throttled", _) => Fault::throttled(),
        ("TABLE", "denied", _) => Fault::aws(400, "AccessDeniedException", "scripted"),
        ("KV" | "API_KEYS", _, Ok(status @ 400..600)) => Fault::status(status),
        _ => return Err(format!("{service} can't be {what}:\n\n{HELP}")),
    };
    if let (Fault::Answer(reply), Some(seconds)) = (&fault, given.get("RETRY_AFTER")) {
        fault = Fault::Answer(reply.clone().with("retry-after", seconds));
    }
    let cell = given.get("CELL").map(|cell| format!("/{cell}/")).unwrap_or_default();
    let key = given.get("KEY").map(|key| serde_json::json!(key).to_string()).unwrap_or_default();
    let hits = move |request: &Request| request.path.starts_with(&cell) && request.names(&key);
    Ok(Rule::when(hits, fault).forever())
}

#[cfg(test)]
mod tests {
    use testbed::stack::StackOptions;

    use super::*;

    #[tokio::test]
    async fn a_fault_lasts_until_it_is_cleared_and_hits_its_cell_alone() {
        let stack = Stack::start(StackOptions::default()).await.unwrap();
        let mut active = Vec::new();
        for (asked, expected) in [
            ("API_KEYS=503\nCELL=eu-1", [Some(503), Some(200)]),
            ("", [Some(503), Some(200)]),
            ("CLEAR=true", [Some(200), Some(200)]),
            ("API_KEYS=drop", [None, None]),
        ] {
            play(asked, &stack, &mut active).unwrap();
            for (cell, expected) in ["eu-1", "eu-2"].into_iter().zip(expected) {
                let url = stack.api_keys.url_template().replace("{cell}", cell);
                let sent = Client::default().send(Method::GET, &url, HeaderMap::new(), "").await;
                let status = sent.ok().map(|reply| reply.status.as_u16());
                assert_eq!(status, expected, "{cell} after {asked:?}");
            }
        }
        assert_eq!(active, ["API_KEYS=drop"]);
    }

    #[tokio::test]
    async fn each_fault_of_the_list_is_taken_and_no_other() {
        let stack = Stack::start(StackOptions::default()).await.unwrap();
        let ask = |words: &str| play(words, &stack, &mut Vec::new());
        for line in HELP.lines() {
            let words = line.split_whitespace().filter(|word| word.contains('='));
            ask(&words.collect::<Vec<_>>().join("\n")).unwrap();
        }
        for wrong in ["KV=42", "KV=denied", "TABLE=503", "CELL=eu-1", "TOKEN=on", "KVS=503"] {
            assert!(ask(wrong).is_err(), "{wrong}");
        }
    }
}
