//! What happens before and at a call: how long it takes, and what goes wrong.

use std::time::Duration;

use crate::world::{
    Call, Failure, Fault, OTHER_FAULTS, READ_FAULTS, Small, State, WRITE_FAULTS, fire,
};

/// Small worlds have the first faults of each list, up to these numbers.
const SMALL_WRITE_FAULTS: usize = 5;
const SMALL_FAULTS: usize = 2;

const QUICK: Duration = Duration::from_millis(1);
/// A call that everything else overtakes.
const DELAY: Duration = Duration::from_secs(10);
/// The second such call returns later than the first.
const LONGER_DELAY: Duration = Duration::from_secs(25);

/// A call that is about to be made.
pub struct AtCall {
    pub latency: Duration,
    pub fault: Fault,
    /// Whether KV's response is to be stale, where it can be.
    pub stale: bool,
}

impl AtCall {
    fn after(latency: Duration) -> Self {
        Self { latency, fault: Fault::None, stale: false }
    }
}

impl State {
    /// Decides how long a call takes, what happens before it, and what goes wrong.
    pub fn at_call(&mut self, invocation: usize, call: Call) -> AtCall {
        self.count("steps", 1);
        let at_call = if self.quiet {
            AtCall::after(QUICK)
        } else if let Some(small) = self.shape.small {
            self.small_call(small, call)
        } else {
            self.random_call(invocation, call)
        };
        let fault = at_call.fault;
        if fault != Fault::None {
            self.note(|| format!("  [{invocation}] {call:?}: {fault:?}"));
            self.count("faults", 1);
            let run = &mut self.invocations[invocation];
            run.failed_services.insert(service(call));
            run.was_refused |= fault == Fault::Fail { why: Failure::RefusedContent, done: false };
        }
        let run = &mut self.invocations[invocation];
        let slowest = run.slowest.entry(call).or_default();
        *slowest = at_call.latency.max(*slowest);
        if call == Call::Table {
            run.table_time += at_call.latency;
        }
        at_call
    }

    fn random_call(&mut self, invocation: usize, call: Call) -> AtCall {
        if self.events_left > 0 && self.choices.one_in(self.shape.event_one_in) {
            fire(self);
        }
        let latencies: [u64; 8] = match self.shape.brisk {
            true => [1, 1, 1, 1, 3, 10, 30, 100],
            false => [1, 1, 1, 3, 10, 100, 1_000, 8_000],
        };
        let latency = Duration::from_millis(latencies[self.choices.below(8) as usize]);
        let fault = match self.shape.brisk {
            true => self.delivery_fault(invocation, call),
            false => self.random_fault(invocation, call),
        };
        AtCall { latency, fault, stale: self.shape.stale_reads }
    }

    fn random_fault(&mut self, invocation: usize, call: Call) -> Fault {
        let environment = match call {
            Call::KvWrite | Call::KvRead => 0,
            Call::Table | Call::ApiKey => self.invocations[invocation].environment,
        };
        let service = (environment, service(call));
        if let Some(left) = self.outages.get_mut(&service).filter(|left| **left > 0) {
            *left -= 1;
            return Fault::Fail { why: Failure::Transient, done: false };
        }
        if self.shape.faults == 0 || !self.choices.one_in(self.shape.fault_one_in) {
            return Fault::None;
        }
        self.shape.faults -= 1;
        if self.choices.below(4) == 1 {
            let calls = 1 + self.choices.below(12);
            self.outages.insert(service, calls);
            return Fault::Fail { why: Failure::Transient, done: false };
        }
        if self.shape.stragglers && call == Call::KvWrite && self.choices.below(2) == 1 {
            return Fault::Straggles;
        }
        let faults = match call {
            Call::KvWrite => WRITE_FAULTS,
            Call::KvRead => READ_FAULTS,
            Call::Table | Call::ApiKey => OTHER_FAULTS,
        };
        *self.choices.pick(faults)
    }

    /// Where only deliveries of batches fail, they die at a write, which is done or not.
    fn delivery_fault(&mut self, invocation: usize, call: Call) -> Fault {
        let may_die = self.invocations[invocation].is_stream() && call == Call::KvWrite;
        if !may_die || self.shape.faults == 0 || !self.choices.one_in(self.shape.fault_one_in) {
            return Fault::None;
        }
        self.shape.faults -= 1;
        Fault::Crash { done: self.choices.below(2) == 1 }
    }

    fn small_call(&mut self, mut left: Small, call: Call) -> AtCall {
        if left.interruptions > 0 && self.events_left > 0 && self.choices.below(2) == 1 {
            left.interruptions -= 1;
            self.shape.small = Some(left);
            fire(self);
        }
        if left.delays > 0 && self.busy > 1 && self.choices.below(2) == 1 {
            left.delays -= 1;
            self.shape.small = Some(left);
            return AtCall::after(if left.delays == 0 { LONGER_DELAY } else { DELAY });
        }
        let stale = left.stale_reads > 0;
        let faults = match call {
            Call::KvWrite => &WRITE_FAULTS[..SMALL_WRITE_FAULTS],
            Call::KvRead => &READ_FAULTS[..SMALL_FAULTS],
            Call::Table | Call::ApiKey => &OTHER_FAULTS[..SMALL_FAULTS],
        };
        let options = if self.shape.faults == 0 { 1 } else { faults.len() + 1 };
        let fault = match self.choices.below(u32::try_from(options).unwrap()) {
            0 => Fault::None,
            fault => {
                self.shape.faults -= 1;
                faults[fault as usize - 1]
            }
        };
        AtCall { latency: QUICK, fault, stale }
    }
}

fn service(call: Call) -> &'static str {
    match call {
        Call::KvWrite | Call::KvRead => "kv",
        Call::Table => "table",
        Call::ApiKey => "keys",
    }
}
