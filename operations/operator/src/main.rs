//! `operator`: see `operator help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match operator::run(std::env::args().skip(1), std::env::vars_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(said) = failure.said() {
                eprintln!("{said}");
            }
            failure.exit_code()
        }
    }
}
