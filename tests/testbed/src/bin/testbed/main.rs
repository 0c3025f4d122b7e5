//! `testbed`: the settings exporter on this machine, without the cloud.

mod args;
mod demo;
mod fault;
mod invoke;
mod put;
mod screen;
mod up;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use args::Args;

/// How a command ends; the error is for people.
type Outcome = Result<(), Box<dyn Error>>;

const USAGE: &str = "\
usage: testbed demo [--verbose]     carry changes through the function, and check each
       testbed up [--build COMMAND] [PORTS]
                                     the local stack, until Ctrl-C; COMMAND is run after each change in
                                     src, and then the function starts anew
       testbed up --kv-url URL …     the same, writing to the KV of `wrangler dev`
       testbed up --no-function …    the stand-ins alone
       testbed env [PORTS]           print the environment of `up` as shell commands
       testbed put ITEM [--targets]  put an item into the table of `up`, with the indexes that its
                                     aliases point at
       testbed invoke EVENT [--late] send an event to the function of `up`, as of now or two minutes ago
       testbed fault NAME=value …    script a fault into the stand-ins of `up`; without one, list them

ITEM is a file with an item in DynamoDB JSON, by itself or as the field `item`.
The function's binary is `bootstrap` in the folder of this program.
PORTS: --dynamodb-port 8000 --lambda-port 9001 --kv-port 8787 --api-keys-port 8788
       --secrets-port 8789 --faults-port 8790";

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = Args(std::env::args().skip(1).collect());
    let ended = match args.command().as_deref() {
        Some("demo") => demo::run(args).await,
        Some("up") => up::run(args).await,
        Some("env") => up::env(args),
        Some("put") => put::run(args).await,
        Some("invoke") => invoke::run(args).await,
        Some("fault") => fault::run(args).await,
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

/// The function's binary, beside this program.
fn bootstrap() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let binary = own.with_file_name("bootstrap");
    let missing = || format!("{} is missing: cargo build --bin bootstrap", binary.display());
    if binary.is_file() { Ok(binary) } else { Err(missing()) }
}

/// Why a command got no answer from the local stack.
fn no_stack(error: String) -> String {
    format!("{error}\nNo local stack answers there. `make local` starts one.")
}
