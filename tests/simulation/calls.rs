//! What happens before and at a call: how long it takes, and what goes wrong.

use std::time::Duration;

use crate::events::fire;
use crate::faults::{Call, Failure, Fault, OTHER_FAULTS, READ_FAULTS, WRITE_FAULTS};
use crate::state::State;

/// How many of the faults small worlds have.
const SMALL_WRITE_FAULTS: usize = 5;
const SMALL_FAULTS: usize = 2;

const QUICK: Duration = Duration::from_millis(1);
/// A call that everything else overtakes.
const DELAY: Duration = Duration::from_secs(10);
/// The second such call returns later than the first.
const LONGER_DELAY: Duration = Duration::from_secs(25);

impl State {
    /// Decides what happens before and at a call: how long it takes, and what goes wrong.
    pub fn at_call(&mut self, invocation: usize, call: Call) -> (Duration, Fault) {
        self.stats.steps += 1;
        let (latency, fault) = if self.quiet {
            (QUICK, Fault::None)
        } else if self.shape.scripted {
            self.scripted_call(invocation, call)
        } else if self.shape.small {
            self.small_call(call)
        } else {
            self.random_call(call)
        };
        if fault != Fault::None {
            self.note(|| format!("  [{invocation}] {call:?}: {fault:?}"));
            self.stats.faults += 1;
            let service = match call {
                Call::KvWrite | Call::KvRead => "kv",
                Call::Table => "table",
                Call::ApiKey => "keys",
            };
            self.invocations[invocation].failed_services.insert(service);
        }
        (latency, fault)
    }

    fn random_call(&mut self, call: Call) -> (Duration, Fault) {
        let event = self.events_left > 0 && {
            let storm = self.shape.storm && call == Call::Table;
            let one_in = if storm { 2 } else { self.shape.event_one_in };
            self.choices.one_in(one_in)
        };
        if event {
            fire(self);
        }
        let latency = [1, 1, 1, 3, 10, 100, 1_000, 8_000][self.choices.below(8) as usize];
        (Duration::from_millis(latency), self.random_fault(call))
    }

    fn random_fault(&mut self, call: Call) -> Fault {
        let (service, faults) = match call {
            Call::KvWrite => ("kv", WRITE_FAULTS),
            Call::KvRead => ("kv", READ_FAULTS),
            Call::Table => ("table", OTHER_FAULTS),
            Call::ApiKey => ("keys", OTHER_FAULTS),
        };
        if let Some(left) = self.outages.get_mut(service).filter(|left| **left > 0) {
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
        if self.shape.late && call == Call::KvWrite && self.choices.below(2) == 1 {
            return Fault::Late;
        }
        *self.choices.pick(faults)
    }

    fn scripted_call(&mut self, invocation: usize, call: Call) -> (Duration, Fault) {
        let calls = self.invocations[invocation].calls.entry(call).or_default();
        let nth = *calls;
        *calls += 1;
        let planned = self.script.iter().find(|planned| {
            (planned.invocation, planned.call, planned.nth) == (invocation, call, nth)
        });
        let Some(planned) = planned else { return (QUICK, Fault::None) };
        let latency = if planned.overtaken { DELAY } else { QUICK };
        let fault = planned.fault;
        if let Some(event) = planned.event {
            event(self);
        }
        (latency, fault)
    }

    fn small_call(&mut self, call: Call) -> (Duration, Fault) {
        let interrupt = self.shape.interruptions > 0 && self.events_left > 0;
        if interrupt && self.choices.below(2) == 1 {
            self.shape.interruptions -= 1;
            fire(self);
        }
        if self.shape.delays > 0 && self.busy > 1 && self.choices.below(2) == 1 {
            self.shape.delays -= 1;
            let delay = if self.shape.delays == 0 { LONGER_DELAY } else { DELAY };
            return (delay, Fault::None);
        }
        let faults = match call {
            Call::KvWrite => &WRITE_FAULTS[..SMALL_WRITE_FAULTS],
            Call::KvRead => &READ_FAULTS[..SMALL_FAULTS],
            Call::Table | Call::ApiKey => &OTHER_FAULTS[..SMALL_FAULTS],
        };
        if self.shape.faults == 0 {
            return (QUICK, Fault::None);
        }
        let options = u32::try_from(faults.len()).unwrap() + 1;
        match self.choices.below(options) {
            0 => (QUICK, Fault::None),
            fault => {
                self.shape.faults -= 1;
                (QUICK, faults[fault as usize - 1])
            }
        }
    }
}
