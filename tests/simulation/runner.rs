//! Runs many histories, and prints how to run a failing one again.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::choices::{Choices, shrink};
use crate::world::{Counts, State};

/// Choices that tell the parts apart into which an enumeration is cut.
const PART_CHOICES: usize = 6;

/// How the simulation is asked to run.
pub struct Settings {
    /// The only seed to run, with everything printed that happens.
    pub seed: Option<u64>,
    /// Histories to run.
    pub histories: Option<u64>,
    /// Changes in small worlds.
    pub changes: Option<u64>,
}

impl Settings {
    #[expect(clippy::disallowed_methods, reason = "the one place where a test run is configured")]
    pub fn read() -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
        };
        Self {
            seed: number("SIMULATION_SEED"),
            histories: number("SIMULATION_HISTORIES"),
            changes: number("SIMULATION_CHANGES"),
        }
    }
}

fn add(total: &mut Counts, counts: &Counts) {
    for (what, times) in counts {
        *total.entry(what).or_default() += times;
    }
}

/// Runs histories with the seeds from 0 on. Panics with the shortest form of the first that fails.
pub fn random(name: &str, histories: u64, play: impl Fn(Choices, bool) -> State + Sync) {
    let settings = Settings::read();
    if let Some(seed) = settings.seed {
        let state = play(Choices::from_seed(seed), true);
        println!("{}", state.trace.as_deref().unwrap_or_default().join("\n"));
        report_failure(name, seed, state, &play);
        return;
    }
    let histories = settings.histories.unwrap_or(histories);
    let next = AtomicU64::new(0);
    let failed: Mutex<Option<u64>> = Mutex::default();
    let total: Mutex<Counts> = Mutex::default();
    let started = Instant::now();
    let work = || {
        let mut counts = Counts::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= histories || failed.lock().unwrap().is_some() {
                break;
            }
            let state = play(Choices::from_seed(seed), false);
            add(&mut counts, &state.counts);
            if state.violation.is_some() {
                let mut failed = failed.lock().unwrap();
                *failed = Some(failed.map_or(seed, |other| other.min(seed)));
            }
        }
        add(&mut total.lock().unwrap(), &counts);
    };
    on_all_cores(work);
    println!("{name}: {}", describe(&total.into_inner().unwrap(), started));
    if let Some(seed) = failed.into_inner().unwrap() {
        let state = play(Choices::from_seed(seed), false);
        report_failure(name, seed, state, &play);
    }
}

/// Enumerates the tapes of choices. Panics with the shortest form of the first that fails.
pub fn exhaustive(name: &str, play: impl Fn(Choices, bool) -> State + Sync) {
    let started = Instant::now();
    let parts: Mutex<Option<Vec<u32>>> = Mutex::new(Some(Vec::new()));
    let failed: Mutex<Option<Vec<(u32, u32)>>> = Mutex::default();
    let total: Mutex<Counts> = Mutex::default();
    // A part is what a few first choices have in common; its plainest history tells the next part.
    let work = || {
        let mut counts = Counts::new();
        loop {
            let part = {
                let mut next = parts.lock().unwrap();
                let Some(first) = next.take() else { break };
                let state = play(Choices::replay(first), false);
                let mut choices = state.choices;
                choices.taken.truncate(PART_CHOICES);
                *next = choices.next_tape();
                choices.taken
            };
            let part: Vec<u32> = part.into_iter().map(|(choice, _)| choice).collect();
            let mut tape = Some(part.clone());
            while let Some(choices) = tape.filter(|tape| tape.starts_with(&part)) {
                if failed.lock().unwrap().is_some() {
                    break;
                }
                let state = play(Choices::replay(choices), false);
                add(&mut counts, &state.counts);
                tape = state.choices.next_tape();
                if state.violation.is_some() {
                    *failed.lock().unwrap() = Some(state.choices.taken);
                }
            }
        }
        add(&mut total.lock().unwrap(), &counts);
    };
    on_all_cores(work);
    println!("{name}: all {}", describe(&total.into_inner().unwrap(), started));
    if let Some(taken) = failed.into_inner().unwrap() {
        let tape = taken.into_iter().map(|(choice, _)| choice).collect();
        let state = play(Choices::replay(tape), false);
        let (rule, detail) = state.violation.clone().unwrap_or_default();
        println!("{name}: a history breaks {rule:?}: {detail}");
        panic!("{}", shortest(state, &play));
    }
}

fn on_all_cores(work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 1..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(&work);
        }
        work();
    });
}

fn report_failure(name: &str, seed: u64, state: State, play: &impl Fn(Choices, bool) -> State) {
    if let Some((rule, detail)) = &state.violation {
        println!(
            "{name}: seed {seed} breaks {rule:?}: {detail}; SIMULATION_SEED={seed} replays it"
        );
        panic!("{}", shortest(state, play));
    }
}

/// The shortest history that still breaks a rule, step by step.
fn shortest(state: State, play: &impl Fn(Choices, bool) -> State) -> String {
    let rule = state.violation.as_ref().map(|(rule, _)| *rule);
    let taken = |state: State| state.choices.taken.into_iter().map(|(choice, _)| choice).collect();
    let tape = shrink(taken(state), |tape| {
        let state = play(Choices::replay(tape.to_vec()), false);
        let same = state.violation.as_ref().is_some_and(|(found, _)| Some(*found) == rule);
        same.then(|| taken(state))
    });
    let state = play(Choices::replay(tape), true);
    let (rule, detail) = state.violation.clone().unwrap_or_default();
    let mut text = format!("{rule:?} is broken: {detail}");
    let shape = &state.shape;
    write!(text, "\nthe shortest history that breaks the rule, old images {}:", shape.old_images)
        .unwrap();
    for line in state.trace.into_iter().flatten() {
        write!(text, "\n{line}").unwrap();
    }
    text
}

fn describe(counts: &Counts, started: Instant) -> String {
    let counts: Vec<String> =
        counts.iter().map(|(what, times)| format!("{times} {what}")).collect();
    format!("{} in {:.1} s", counts.join(", "), started.elapsed().as_secs_f64())
}
