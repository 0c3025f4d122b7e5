//! `testbed`: the settings exporter on this machine, without the cloud.

mod args;
mod demo;
mod drill;
mod picture;
mod put;
mod screen;
mod up;

use std::error::Error;
use std::process::ExitCode;

use args::Args;

/// How a command ends; the error is for people.
type Outcome = Result<(), Box<dyn Error>>;

const USAGE: &str = "\
usage: testbed demo [--bootstrap PATH]        carry changes through the function, and check each
       testbed up [--bootstrap PATH] [PORTS]  keep everything running until Ctrl-C
       testbed up --kv-url URL [--bootstrap PATH] [PORTS]
                                              the same, writing to the KV of `wrangler dev`
       testbed up --no-function [--function-url URL] [PORTS]
                                              the same for a function that runs elsewhere
       testbed env [PORTS]                    print the environment of `up` as shell commands
       testbed put ITEM [--dynamodb-port N]   put an item into the table of `up`
       testbed drill [STEP] [--drills-port N] play a step of a drill on the stack of `up`; lists them
                                              if none is named
       testbed picture <DEMO                  draw some steps of the demo's output as an SVG

ITEM is a file with an item in DynamoDB JSON, by itself or as the field `item`.
PATH is the function's binary. Default: `bootstrap` in the folder of this program.
URL is the Invoke API of the function elsewhere. Default: that of `cargo lambda watch`.
PORTS: --dynamodb-port 8000 --lambda-port 9001 --kv-port 8787 --api-keys-port 8788
       --secrets-port 8789 --drills-port 8790";

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = Args::new(std::env::args().skip(1));
    let ended = match args.command().as_deref() {
        Some("demo") => demo::run(args).await,
        Some("up") => up::run(args).await,
        Some("env") => up::env(args),
        Some("drill") => drill::run(args).await,
        Some("put") => put::run(args).await,
        Some("picture") => picture::run(args),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}
