//! `testbed fault`: faults for the stand-ins of `testbed up`, to practise with.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::Method;
use hyper::header::HeaderMap;
use testbed::faults::{Fault, Faults, Rule};
use testbed::http::{Client, Reply, Request, Server};
use testbed::stack::{Stack, TOKEN};

use crate::args::Args;
use crate::{Outcome, no_stack};

const HELP: &str = "\
make fault KV=503                     Cloudflare KV answers with this status
make fault KV=429 RETRY_AFTER=30      … and asks to wait so many seconds
make fault KV=400 KEY=shop.example    … but only where a request names this key
make fault API_KEYS=hang              the API keys service does not answer: hang, drop, or a status
make fault API_KEYS=404 CELL=eu-1     … only the gateway of this cell
make fault TABLE=down                 DynamoDB fails: down, throttled, denied, hang or drop
make fault TOKEN=refused              Cloudflare refuses the token
make fault CLEAR=true                 all of them are over";

/// What a fault is asked for with.
#[derive(Default)]
struct Asked {
    service: Option<(String, String)>,
    retry_after: Option<u64>,
    key: Option<String>,
    cell: Option<String>,
    clear: bool,
}

pub async fn run(mut args: Args) -> Outcome {
    let port = args.ports()?.faults;
    // Make passes all names, and leaves empty what is not given.
    let given: Vec<String> = args.rest().into_iter().filter(|word| !word.ends_with('=')).collect();
    let reply = send(port, given.join("\n")).await.map_err(no_stack)?;
    let said = String::from_utf8_lossy(&reply.body);
    if !reply.status.is_success() {
        return Err(said.into());
    }
    print!("{said}");
    Ok(())
}

async fn send(port: u16, body: String) -> Result<Reply, String> {
    let url = format!("http://127.0.0.1:{port}/");
    Client::default().send(Method::POST, &url, HeaderMap::new(), body).await
}

/// Whether a local stack listens for faults on this port.
pub async fn is_served(port: u16) -> bool {
    port != 0 && send(port, String::new()).await.is_ok_and(|reply| reply.status.is_success())
}

/// Scripts the faults that are asked for, one `NAME=value` a line.
pub async fn serve(port: u16, stack: &Stack, with_kv: bool) -> io::Result<Server> {
    let stack = stack.clone();
    let active = Arc::new(Mutex::new(Vec::new()));
    Server::start(port, move |request| {
        let mut active = active.lock().unwrap_or_else(PoisonError::into_inner);
        let body = String::from_utf8_lossy(&request.body);
        let done = play(&body, &stack, with_kv, &mut active);
        let (status, said) = done.map_or_else(|error| (400, error), |said| (200, said));
        let reply = Reply::new(status, "text/plain; charset=UTF-8", said);
        async { reply.into() }
    })
    .await
}

/// Does what is asked for, and returns what people are told.
fn play(
    asked: &str,
    stack: &Stack,
    with_kv: bool,
    active: &mut Vec<String>,
) -> Result<String, String> {
    let words = asked.lines().collect::<Vec<_>>().join(" ");
    let asked = Asked::read(asked)?;
    let services = [stack.kv.faults(), stack.api_keys.faults(), stack.table.faults()];
    match &asked.service {
        _ if asked.clear => {
            services.into_iter().for_each(Faults::clear);
            stack.kv.set_token(TOKEN);
            active.clear();
        }
        Some((service, _)) if !with_kv && matches!(&**service, "KV" | "TOKEN") => {
            return Err("KV is that of `wrangler dev` here, which takes no faults".to_owned());
        }
        Some((service, _)) if service == "TOKEN" => {
            stack.kv.set_token("another");
            active.push(words);
        }
        Some((service, what)) => {
            let faults = match &**service {
                "KV" => services[0],
                "API_KEYS" => services[1],
                _ => services[2],
            };
            faults.add(asked.rule(service, what)?);
            active.push(words);
        }
        None if !words.is_empty() => {
            return Err(format!("{words} says of no service what it does:\n\n{HELP}"));
        }
        None => {}
    }
    Ok(match &active[..] {
        [] if asked.clear => "All services work.\n".to_owned(),
        [] => format!("All services work. What can fail:\n\n{HELP}\n"),
        faults => format!("{}\n`make fault CLEAR=true` ends this.\n", faults.join("\n")),
    })
}

impl Asked {
    fn read(text: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for word in text.lines() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let value = value.to_owned();
            match (name, &*value) {
                ("KV" | "API_KEYS" | "TABLE", _) | ("TOKEN", "refused") => {
                    asked.service = Some((name.to_owned(), value));
                }
                ("RETRY_AFTER", _) => {
                    let seconds = value.parse();
                    asked.retry_after = Some(seconds.map_err(|_| format!("{word} is no number"))?);
                }
                ("KEY", _) => asked.key = Some(value),
                ("CELL", _) => asked.cell = Some(value),
                ("CLEAR", "true") => asked.clear = true,
                ("CLEAR", "false") => {}
                _ => return Err(format!("there is no fault {word}:\n\n{HELP}")),
            }
        }
        Ok(asked)
    }

    fn rule(&self, service: &str, what: &str) -> Result<Rule, String> {
        let fault = match (service, what, what.parse()) {
            (_, "hang", _) => Fault::Hang,
            (_, "drop", _) => Fault::DropConnection,
            ("TABLE", "down", _) => Fault::aws(500, "InternalServerError", "scripted"),
            ("TABLE", "throttled", _) => Fault::throttled(),
            ("TABLE", "denied", _) => Fault::aws(400, "AccessDeniedException", "scripted"),
            ("KV" | "API_KEYS", _, Ok(status @ 400..600)) => Fault::status(status),
            _ => return Err(format!("{service} can't be {what}:\n\n{HELP}")),
        };
        let fault = match (self.retry_after, fault) {
            (Some(seconds), Fault::Answer(reply)) => {
                Fault::Answer(reply.with("retry-after", &seconds.to_string()))
            }
            (_, fault) => fault,
        };
        let cell = self.cell.as_ref().map(|cell| format!("/{cell}/"));
        let key = self.key.as_ref().map(|key| serde_json::json!(key).to_string());
        let hits = move |request: &Request| {
            let body = String::from_utf8_lossy(&request.body);
            cell.as_ref().is_none_or(|cell| request.path.starts_with(cell))
                && key.as_ref().is_none_or(|key| body.contains(key))
        };
        Ok(Rule::when(hits, fault).forever())
    }
}

#[cfg(test)]
mod tests {
    use testbed::stack::StackOptions;

    use super::*;

    async fn status(stack: &Stack, cell: &str) -> Option<u16> {
        let url = stack.api_keys.url_template();
        let url = url.replace("{cell}", cell).replace("{system_account_id}", "a");
        let sent = Client::default().send(Method::GET, &url, HeaderMap::new(), "").await;
        sent.ok().map(|reply| reply.status.as_u16())
    }

    #[tokio::test]
    async fn a_fault_lasts_until_it_is_cleared_and_hits_its_cell_alone() {
        let stack = Stack::start(StackOptions::default()).await.unwrap();
        let mut active = Vec::new();
        let mut ask = |words: &str| play(words, &stack, true, &mut active);

        ask("API_KEYS=503\nCELL=eu-1").unwrap();
        assert_eq!(ask("").unwrap().lines().next(), Some("API_KEYS=503 CELL=eu-1"));
        for _ in 0..2 {
            assert_eq!(status(&stack, "eu-1").await, Some(503));
            assert_eq!(status(&stack, "eu-2").await, Some(200));
        }
        ask("API_KEYS=drop").unwrap();
        assert_eq!(status(&stack, "eu-2").await, None);
        ask("CLEAR=true").unwrap();
        assert_eq!(status(&stack, "eu-1").await, Some(200));
    }

    #[tokio::test]
    async fn each_fault_of_the_list_is_taken_and_no_other() {
        let stack = Stack::start(StackOptions::default()).await.unwrap();
        let ask = |words: &str| play(words, &stack, true, &mut Vec::new());
        for line in HELP.lines() {
            let words = line.split_whitespace().filter(|word| word.contains('='));
            ask(&words.collect::<Vec<_>>().join("\n")).unwrap();
        }
        for wrong in ["KV=42", "KV=denied", "TABLE=503", "CELL=eu-1", "TOKEN=on", "KVS=503"] {
            assert!(ask(wrong).is_err(), "{wrong}");
        }
    }
}
