//! Everything that is left to chance, as a tape of choices. A tape is drawn from a seed, replayed,
//! enumerated, or cut down to the shortest that still shows a violation.
//!
//! 0 is always the plainest choice: no fault, no delay, no further event.

/// Where choices come from.
pub struct Choices {
    tape: Vec<u32>,
    beyond: Option<fastrand::Rng>,
    /// What was chosen, and out of how many.
    pub taken: Vec<(u32, u32)>,
}

impl Choices {
    /// Random choices.
    pub fn from_seed(seed: u64) -> Self {
        Self { tape: Vec::new(), beyond: Some(fastrand::Rng::with_seed(seed)), taken: Vec::new() }
    }

    /// These choices, and the plainest one after the end of the tape.
    pub fn replay(tape: Vec<u32>) -> Self {
        Self { tape, beyond: None, taken: Vec::new() }
    }

    /// One of `options`.
    pub fn below(&mut self, options: u32) -> u32 {
        self.draw(options, |rng| rng.u32(..options))
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.draw(2, |rng| u32::from(rng.u32(..n) == 0)) == 1
    }

    /// One of a list's elements; the first is the plainest.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = self.below(u32::try_from(list.len()).unwrap());
        &list[at as usize]
    }

    fn draw(&mut self, options: u32, random: impl FnOnce(&mut fastrand::Rng) -> u32) -> u32 {
        if options < 2 {
            return 0;
        }
        let choice = match (self.tape.get(self.taken.len()), &mut self.beyond) {
            (Some(choice), _) => (*choice).min(options - 1),
            (None, Some(rng)) => random(rng),
            (None, None) => 0,
        };
        self.taken.push((choice, options));
        choice
    }

    /// What was chosen, as a tape.
    pub fn tape(&self) -> Vec<u32> {
        self.taken.iter().map(|(choice, _)| *choice).collect()
    }

    /// The next tape when all tapes are enumerated in order; `None` after the last.
    pub fn next_tape(&self) -> Option<Vec<u32>> {
        let last = self.taken.iter().rposition(|(choice, options)| choice + 1 < *options)?;
        let mut tape = self.tape();
        tape.truncate(last + 1);
        tape[last] += 1;
        Some(tape)
    }
}

/// Cuts a failing tape down. If a tape still fails, `fails` returns the choices that were taken.
pub fn shrink(mut tape: Vec<u32>, mut fails: impl FnMut(&[u32]) -> Option<Vec<u32>>) -> Vec<u32> {
    let mut runs = 3_000_u32;
    let mut attempt = |tape: &[u32]| {
        runs = runs.checked_sub(1)?;
        fails(tape)
    };
    let weight = |tape: &[u32]| (tape.len(), tape.iter().map(|choice| u64::from(*choice)).sum());
    loop {
        let before: (usize, u64) = weight(&tape);
        let mut size = tape.len().max(1);
        while size > 0 {
            let mut start = tape.len().saturating_sub(size);
            loop {
                let end = (start + size).min(tape.len());
                let mut shorter = tape.clone();
                shorter.drain(start..end);
                let zeroed: Vec<u32> = (0..tape.len())
                    .map(|at| if (start..end).contains(&at) { 0 } else { tape[at] })
                    .collect();
                for candidate in [shorter, zeroed] {
                    if weight(&candidate) < weight(&tape)
                        && let Some(taken) = attempt(&candidate)
                        && weight(&taken) < weight(&tape)
                    {
                        tape = taken;
                        break;
                    }
                }
                if start == 0 {
                    break;
                }
                start = start.saturating_sub(size).min(tape.len());
            }
            size /= 2;
        }
        while tape.last() == Some(&0) {
            tape.pop();
        }
        if weight(&tape) >= before {
            return tape;
        }
    }
}
