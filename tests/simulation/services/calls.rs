//! What happens before and at a call: how long it takes, and what goes wrong.

use std::time::Duration;

use crate::world::{
    Call, Environment, Fault, Kind, OTHER_FAULTS, READ_FAULTS, State, WRITE_FAULTS, fire,
};

const QUICK: Duration = Duration::from_millis(1);
/// A call that everything else overtakes.
const DELAY: Duration = Duration::from_secs(10);
/// The last such call returns later than the others.
const LONGEST_DELAY: Duration = Duration::from_secs(25);

impl State {
    /// Decides how long a call takes, what happens before it, and what goes wrong.
    pub fn at_call(&mut self, invocation: usize, call: Call) -> (Duration, Fault) {
        self.count("steps", 1);
        let (latency, fault) = match self.quiet {
            true => (QUICK, Fault::None),
            false => (self.latency(), self.fault(invocation, call)),
        };
        if !matches!(fault, Fault::None) {
            self.note(|| format!("  [{invocation}] {call:?}: {fault:?}"));
            self.count("faults", 1);
        }
        let run = &mut self.invocations[invocation];
        if call == Call::Table {
            run.table_failed |= !matches!(fault, Fault::None);
            run.table_time += latency;
        }
        (latency, fault)
    }

    fn latency(&mut self) -> Duration {
        let Self { choices, shape, events_left, .. } = self;
        if *events_left > 0 && shape.interruptions > 0 && choices.one_in(shape.event_one_in) {
            shape.interruptions -= 1;
            fire(self);
        }
        let is_alone = self.busy == 1 && self.environments.iter().all(Environment::is_drained);
        let Self { choices, shape, .. } = self;
        if shape.delays > 0 && !is_alone && choices.one_in(2) {
            shape.delays -= 1;
            return if shape.delays == 0 { LONGEST_DELAY } else { DELAY };
        }
        Duration::from_millis(*choices.pick(shape.latencies))
    }

    fn fault(&mut self, invocation: usize, call: Call) -> Fault {
        let run = &self.invocations[invocation];
        let [writes, reads, others] = self.shape.fault_kinds;
        let (service, faults) = match call {
            Call::KvWrite => ((0, "KV"), &WRITE_FAULTS[..writes]),
            Call::KvRead => ((0, "KV"), &READ_FAULTS[..reads]),
            Call::Table => ((run.environment, "table"), &OTHER_FAULTS[..others]),
            Call::ApiKey => ((run.environment, "API keys"), &OTHER_FAULTS[..others]),
        };
        // Where nothing but writes can fail, the deliveries' do: nobody tries a re-export again.
        let is_spared = reads == 0 && !matches!(run.kind, Kind::Stream { .. });
        let Self { choices, shape, outages, .. } = self;
        if let Some(left) = outages.get_mut(&service).filter(|left| **left > 0) {
            *left -= 1;
            return Fault::outage();
        }
        if shape.faults == 0
            || faults.is_empty()
            || is_spared
            || !choices.one_in(shape.fault_one_in)
        {
            return Fault::None;
        }
        shape.faults -= 1;
        if shape.outages && choices.below(4) == 1 {
            outages.insert(service, 1 + choices.below(12));
            return Fault::outage();
        }
        if shape.stragglers && call == Call::KvWrite && choices.below(2) == 1 {
            return Fault::Straggles;
        }
        choices.pick(faults)()
    }
}
