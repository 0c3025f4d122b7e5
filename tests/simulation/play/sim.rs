//! The world while a history runs, and the exporter invoked in it.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::config::ExporterConfig;
use ecom_settings_exporter::lambda::{Handled, Handler};
use futures_util::future::{Either, select};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::memory::{Memory, config};
use crate::services::Ports;
use crate::world::{DEFAULT_CELL, Invocation, Kind, State};

pub struct Sim {
    pub state: Rc<RefCell<State>>,
    /// Notified whenever there may be something to do.
    pub changed: Rc<Notify>,
}

impl Sim {
    /// Whether nothing is left to happen.
    pub fn is_over(&self) -> bool {
        let state = self.state.borrow();
        (state.events_left == 0 && state.is_drained()) || state.violation.is_some()
    }

    /// Runs the exporter on a payload. Returns the invocation's number, and its answer; `None` where it dies.
    pub async fn invoke(
        &self,
        payload: &str,
        run: Invocation,
        what: &str,
    ) -> (usize, Option<Handled>) {
        let (invocation, config, time_left) = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let name = state.environments[run.environment].name;
            let config = ExporterConfig {
                default_cell: Some(DEFAULT_CELL.to_owned()),
                bulk_max_pairs: state.shape.bulk_max_pairs,
                removals_up_to: state.shape.removals_up_to,
                ..config(name)
            };
            let of_reconcile = matches!(run.kind, Kind::Reconcile(_)) && !state.shape.is_small();
            let times = if of_reconcile { &[900, 150, 300] } else { state.shape.time_left };
            let seconds = if state.quiet { 900 } else { *state.choices.pick(times) };
            let invocation = state.invocations.len();
            state.invocations.push(run);
            state.count("invocations", 1);
            state.busy += 1;
            state.note(|| format!("[{invocation}] {name}: {what}"));
            (invocation, config, Duration::from_secs(seconds))
        };
        let crash: Rc<Notify> = Rc::default();
        let ports = Ports {
            state: Rc::clone(&self.state),
            invocation,
            crash: Rc::clone(&crash),
            changed: Rc::clone(&self.changed),
        };
        let started = Instant::now();
        let handled = {
            let handler = Handler::new(Memory(ports), config);
            let handle = pin!(handler.handle(payload, time_left));
            match select(handle, pin!(crash.notified())).await {
                Either::Left((handled, _)) => Some(handled),
                Either::Right(_) => None,
            }
        };
        let mut state = self.state.borrow_mut();
        state.busy -= 1;
        if handled.is_none() {
            state.count("crashes", 1);
            state.note(|| format!("[{invocation}] dies"));
            // Without old images, a second delivery does not learn which shop ids were given up.
            let is_repeated = matches!(state.invocations[invocation].kind, Kind::Stream { .. });
            state.needs_repair |= !is_repeated || !state.shape.old_images;
        } else if started.elapsed() >= time_left {
            state.violate("the answer comes before the time-out", format!("[{invocation}]"));
        }
        (invocation, handled)
    }
}
