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
use crate::services::ports::Ports;
use crate::world::{Invocation, Kind, State};

/// The time that the exporter reserves for its answer and for a put-back, and a bit more. Before a
/// delete it reserves the time of a pass too.
const MARGIN: Duration = Duration::from_secs(5);

/// The time that a reconcile reserves for a round of writes or removals beside its passes, and a bit more.
const TIME_FOR_A_GO: Duration = Duration::from_secs(50);

pub struct Sim {
    pub state: Rc<RefCell<State>>,
    /// Notified whenever there may be something to do.
    pub changed: Rc<Notify>,
}

/// How an invocation ended.
#[expect(clippy::large_enum_variant, reason = "one at a time, and most are answered")]
pub enum End {
    Answered(Handled),
    Crashed,
}

impl Sim {
    /// Whether nothing is left to happen.
    pub fn is_over(&self) -> bool {
        let state = self.state.borrow();
        (state.events_left == 0 && state.is_drained()) || state.violation.is_some()
    }

    /// Runs the exporter on a payload until it answers or dies. Returns the invocation's number too.
    pub async fn invoke(&self, payload: &str, mut run: Invocation, what: &str) -> (usize, End) {
        let (invocation, config, time_left) = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            run.began = state.step;
            run.began_at = state.wall_clock();
            let environment = &state.environments[run.environment];
            let config = ExporterConfig {
                default_cell: environment.default_cell.map(str::to_owned),
                bulk_max_pairs: state.shape.bulk_max_pairs,
                removals_up_to: state.shape.removals_up_to,
                ..config(environment.name)
            };
            let invocation = state.invocations.len();
            state.invocations.push(run);
            state.count("invocations", 1);
            state.busy += 1;
            state.note(|| format!("[{invocation}] {what}"));
            let is_reconcile = matches!(state.invocations[invocation].kind, Kind::Reconcile(_));
            let seconds = match state.shape.small {
                _ if state.quiet => 900,
                None if is_reconcile => *state.choices.pick(&[900, 150, 300]),
                Some(_) => 60,
                None if state.shape.brisk => 150,
                None => *state.choices.pick(&[60, 150, 20]),
            };
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
        let end = {
            let handler = Handler::new(Memory(ports), config);
            let handle = pin!(handler.handle(payload, time_left));
            let crashed = pin!(crash.notified());
            match select(handle, crashed).await {
                Either::Left((handled, _)) => End::Answered(handled),
                Either::Right(_) => End::Crashed,
            }
        };
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.busy -= 1;
        let run = &mut state.invocations[invocation];
        run.ended = true;
        let reserved = match run.kind {
            Kind::Reconcile(_) => TIME_FOR_A_GO + run.pass_time(),
            Kind::Stream { .. } | Kind::ReExport(_) => MARGIN,
        };
        run.out_of_time = started.elapsed() + reserved + run.pass_time() >= time_left;
        if matches!(end, End::Crashed) {
            state.uncertain.extend(run.attempted.iter().cloned());
            state.excused.half_removed.extend(run.delete_attempts.iter().cloned());
            state.count("crashes", 1);
            state.note(|| format!("[{invocation}] dies"));
        } else if started.elapsed() >= time_left {
            state.violate("the answer comes before the time-out", format!("[{invocation}]"));
        }
        (invocation, end)
    }
}
