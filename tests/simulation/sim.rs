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

use crate::checks;
use crate::ports::Ports;
use crate::state::{Invocation, State};

/// The time that the exporter reserves for its answer, and a bit more.
const ANSWER_MARGIN: Duration = Duration::from_secs(3);

pub struct Sim {
    pub state: Rc<RefCell<State>>,
    /// Notified whenever there may be something to do.
    pub changed: Rc<Notify>,
    /// When the history began.
    pub began: RefCell<Option<Instant>>,
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

    /// Runs the exporter on a payload, until it answers or dies.
    pub async fn invoke(&self, payload: &str, mut run: Invocation, what: &str) -> (usize, End) {
        let (ports, limits, time_left) = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            run.began = state.step;
            let invocation = state.invocations.len();
            state.invocations.push(run);
            state.stats.invocations += 1;
            state.busy += 1;
            state.note(|| format!("[{invocation}] {what}"));
            let seconds = match state.shape.small {
                _ if state.quiet => 900,
                true => 60,
                false => *state.choices.pick(&[60, 150, 20]),
            };
            let limits = ExporterConfig {
                environment: "sim".into(),
                default_cell: Some(checks::DEFAULT_CELL.to_owned()),
                bulk_max_pairs: state.shape.bulk_max_pairs,
                http_timeout: Duration::from_secs(30),
                retry_base: Duration::from_secs(1),
                dry_run: false,
            };
            let crash = Rc::new(Notify::new());
            let began = self.began.borrow().unwrap();
            let (state, changed) = (Rc::clone(&self.state), Rc::clone(&self.changed));
            let ports = Ports { state, invocation, crash, changed, began };
            (ports, limits, Duration::from_secs(seconds))
        };
        let (invocation, crash) = (ports.invocation, Rc::clone(&ports.crash));
        let started = Instant::now();
        let end = {
            let handler = Handler::new(ports, limits);
            let handle = pin!(handler.handle(payload, time_left));
            let crashed = pin!(crash.notified());
            match select(handle, crashed).await {
                Either::Left((handled, _)) => End::Answered(handled),
                Either::Right(_) => End::Crashed,
            }
        };
        let mut state = self.state.borrow_mut();
        state.busy -= 1;
        state.invocations[invocation].out_of_time = started.elapsed() + ANSWER_MARGIN >= time_left;
        if matches!(end, End::Crashed) {
            state.note(|| format!("[{invocation}] dies"));
            state.stats.crashes += 1;
            state.invocations[invocation].crashed = true;
            let deletes = std::mem::take(&mut state.invocations[invocation].deletes);
            state.half_done.extend(deletes);
        } else if started.elapsed() >= time_left {
            state.violate("the answer comes before the time-out", format!("[{invocation}]"));
        }
        drop(state);
        (invocation, end)
    }
}
