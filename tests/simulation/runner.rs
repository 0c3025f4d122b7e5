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
    pub changes: Option<u32>,
}

impl Settings {
    #[expect(clippy::disallowed_methods, reason = "the one place where a test run is configured")]
    pub fn read() -> Self {
        let number = |name: &str| -> Option<u64> {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
        };
        let changes = number("SIMULATION_CHANGES");
        Self {
            seed: number("SIMULATION_SEED"),
            histories: number("SIMULATION_HISTORIES"),
            changes: changes.map(|it| it.try_into().expect("SIMULATION_CHANGES is small")),
        }
    }
}

/// Histories that one thread plays.
enum Job {
    Seed(u64),
    /// All that begin with these choices.
    Part(Vec<u32>),
}

/// Runs histories with the seeds from 0 on. Panics with the shortest form of the first that fails.
pub fn random(name: &str, histories: u64, play: impl Fn(Choices, bool) -> State + Sync) {
    let settings = Settings::read();
    if let Some(seed) = settings.seed {
        let state = play(Choices::from_seed(seed), true);
        println!("{}", state.trace.iter().flatten().cloned().collect::<Vec<_>>().join("\n"));
    }
    let histories = settings.histories.unwrap_or(histories);
    let range = settings.seed.map_or(0..histories, |seed| seed..seed + 1);
    let next = AtomicU64::new(range.start);
    play_all(name, &play, || {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        range.contains(&seed).then_some(Job::Seed(seed))
    });
}

/// Enumerates the tapes of choices. Panics with the shortest form of the first that fails.
pub fn exhaustive(name: &str, play: impl Fn(Choices, bool) -> State + Sync) {
    // A part is what a few first choices have in common; its plainest history tells the next part.
    let parts: Mutex<Option<Vec<u32>>> = Mutex::new(Some(Vec::new()));
    play_all(name, &play, || {
        let mut next = parts.lock().unwrap();
        let mut choices = play(Choices::replay(next.take()?), false).choices;
        choices.taken.truncate(PART_CHOICES);
        *next = choices.next_tape();
        Some(Job::Part(choices.tape()))
    });
}

/// What was played so far, and the failing history with the lowest seed.
#[derive(Default)]
struct Total {
    counts: Counts,
    failed: Option<(u64, Vec<u32>)>,
}

fn play_all(
    name: &str,
    play: &(impl Fn(Choices, bool) -> State + Sync),
    next: impl Fn() -> Option<Job> + Sync,
) {
    let started = Instant::now();
    let total: Mutex<Total> = Mutex::default();
    let has_failed = || total.lock().unwrap().failed.is_some();
    let note = |seed: u64, counts: &mut Counts, state: State| {
        for (what, times) in &state.counts {
            *counts.entry(what).or_default() += times;
        }
        if state.violation.is_some() {
            let mut total = total.lock().unwrap();
            let failed = (seed, state.choices.tape());
            let first = total.failed.take().filter(|(other, _)| *other < seed);
            total.failed = Some(first.unwrap_or(failed));
        }
        state.choices
    };
    let work = || {
        let mut counts = Counts::new();
        while !has_failed() {
            match next() {
                None => break,
                Some(Job::Seed(seed)) => {
                    note(seed, &mut counts, play(Choices::from_seed(seed), false));
                }
                Some(Job::Part(part)) => {
                    let mut tape = Some(part.clone());
                    while let Some(choices) = tape.filter(|tape| tape.starts_with(&part)) {
                        let state = play(Choices::replay(choices), false);
                        tape = note(0, &mut counts, state).next_tape().filter(|_| !has_failed());
                    }
                }
            }
        }
        for (what, times) in counts {
            *total.lock().unwrap().counts.entry(what).or_default() += times;
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
        work();
    });
    let Total { counts, failed } = total.into_inner().unwrap();
    let counts: Vec<String> =
        counts.iter().map(|(what, times)| format!("{times} {what}")).collect();
    println!("{name}: {} in {:.1} s", counts.join(", "), started.elapsed().as_secs_f64());
    if let Some((seed, tape)) = failed {
        let state = play(Choices::replay(tape.clone()), false);
        let (rule, detail) = state.violation.unwrap_or_default();
        println!(
            "{name}: seed {seed} breaks {rule:?}: {detail}; SIMULATION_SEED={seed} replays it"
        );
        panic!("{}", shortest(rule, tape, play));
    }
}

/// The shortest history that still breaks a rule, step by step.
fn shortest(rule: &str, tape: Vec<u32>, play: &impl Fn(Choices, bool) -> State) -> String {
    let tape = shrink(tape, |tape| {
        let state = play(Choices::replay(tape.to_vec()), false);
        let same = state.violation.as_ref().is_some_and(|(found, _)| *found == rule);
        same.then(|| state.choices.tape())
    });
    let state = play(Choices::replay(tape), true);
    let (rule, detail) = state.violation.unwrap_or_default();
    let mut text = format!("{rule:?} is broken: {detail}\nthe shortest history that breaks it:");
    for line in state.trace.into_iter().flatten() {
        write!(text, "\n{line}").unwrap();
    }
    text
}
