//! `testbed drill`: a step of a drill, played on the stack of `testbed up`.

use std::io;

use hyper::Method;
use hyper::header::HeaderMap;
use testbed::drills::{STEPS, play};
use testbed::http::{Client, Reply, Server};
use testbed::lambda::Function;
use testbed::stack::Stack;

use crate::Outcome;
use crate::args::Args;

pub async fn run(mut args: Args) -> Outcome {
    let port = args.ports()?.drills;
    let name = args.command();
    args.end()?;
    let Some(name) = name else {
        for (name, what) in STEPS {
            println!("{name:<18} {what}");
        }
        return Ok(());
    };
    let url = format!("http://127.0.0.1:{port}/{name}");
    let played = Client::default().send(Method::POST, &url, HeaderMap::new(), "").await;
    let Reply { status, body, .. } =
        played.map_err(|error| format!("{error}: is `make local` running?"))?;
    let said = String::from_utf8_lossy(&body);
    if !status.is_success() {
        return Err(said.into());
    }
    print!("{said}");
    Ok(())
}

/// Plays the steps that are asked for with `POST /{name}`.
pub async fn serve(port: u16, stack: &Stack, function: &Function) -> io::Result<Server> {
    let (stack, function) = (stack.clone(), function.clone());
    Server::start(port, move |request| {
        let (stack, function) = (stack.clone(), function.clone());
        async move {
            let name = request.path.trim_start_matches('/');
            let played = play(name, &stack, &function).await;
            let (status, said) = played.map_or_else(|reason| (400, reason), |said| (200, said));
            Reply::new(status, "text/plain; charset=UTF-8", said).into()
        }
    })
    .await
}
