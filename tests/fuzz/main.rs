//! Random inputs for everything that decodes what others send: payloads, stream records, KV's
//! replies.
//!
//! The fuzzer is deterministic: an input depends only on its number, which a failure prints.
//! `FUZZ_RUNS` is the number of inputs, `FUZZ_FIRST` the number of the first. `docs/simulation.md` has
//! the commands.

mod mutate;
#[path = "../support/schemas.rs"]
#[expect(dead_code, reason = "the decoders write values, and no metadata or reports")]
mod schemas;
mod seeds;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// The inputs of a run in CI.
const RUNS: u64 = 5_000;

#[test]
fn no_input_makes_a_decoder_panic_or_break_its_promise() {
    let runs = number("FUZZ_RUNS").unwrap_or(RUNS);
    let first = number("FUZZ_FIRST").unwrap_or(0);
    let seeds = seeds::all();
    let began = Instant::now();
    let mut seen = targets::Seen::default();
    for input_number in first..first + runs {
        let (target, input) = mutate::input(&seeds, input_number);
        let checked = catch_unwind(AssertUnwindSafe(|| targets::check(target, &input, &mut seen)));
        assert!(
            checked.is_ok(),
            "{target:?} {input_number} (FUZZ_FIRST={input_number} FUZZ_RUNS=1):\n{input}"
        );
    }
    println!("{runs} inputs in {:?}: {seen:?}", began.elapsed());
    if runs >= RUNS {
        seen.assert_varied();
    }
}

fn number(variable: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "how a developer asks for a longer run")]
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a whole number")))
}
