//! The operators, who re-export and reconcile at any moment.

use ecom_settings_exporter::export::re_export::ReExportError;
use ecom_settings_exporter::lambda::{Answer, HandlerError};

use super::sim::{End, Sim};
use crate::checks::after_look;
use crate::world::{
    Done, IndexRef, Invocation, Kind, Namespace, Reconcile, Settings, State, index_id, item_key,
};

impl Sim {
    pub async fn operator(&self, environment: usize) {
        while !self.is_over() {
            let (reconcile, re_export) = {
                let own = &mut self.state.borrow_mut().environments[environment];
                (own.reconciles.pop(), own.re_exports.pop())
            };
            if reconcile.is_none() && re_export.is_none() {
                self.changed.notified().await;
                continue;
            }
            if let Some(request) = reconcile {
                self.reconcile(environment, &request).await;
            }
            if let Some((index, queries)) = re_export {
                self.re_export(environment, &index, queries).await;
            }
            self.changed.notify_waiters();
        }
        self.changed.notify_waiters();
    }

    async fn re_export(&self, environment: usize, index: &IndexRef, queries: bool) {
        let payload = format!(
            r#"{{"system_account_id":"{}","index_name":"{}","include_query_configs":{queries}}}"#,
            index.account, index.name
        );
        let name = self.state.borrow().environments[environment].name;
        let what = format!("{name}: re-export of {index}");
        let run = Invocation { environment, kind: Kind::ReExport, ..Invocation::default() };
        let (invocation, end) = self.invoke(&payload, run, &what).await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let attempted = state.invocations[invocation].attempted.clone();
        let half_re_exported = &mut state.excused.half_re_exported;
        let (handled, stats) = match end {
            End::Crashed => return half_re_exported.extend(attempted),
            End::Answered(handled) => handled,
        };
        match handled {
            Ok(Answer::ReExport(_)) => {}
            Err(HandlerError::ReExport(error)) => {
                half_re_exported.extend(attempted);
                state.note(|| format!("  [{invocation}] fails: {error}"));
                if let Some(problem) = unfounded(state, invocation, index, &error) {
                    let problem = format!("[{invocation}] {problem}: {error}");
                    state.violate("a re-export fails for a reason", problem);
                }
            }
            other => {
                let problem = format!("[{invocation}] {other:?}");
                state.violate("a re-export is answered as one", problem);
            }
        }
        after_look(state, invocation, &stats);
    }

    /// Runs a reconcile, and what it says that goes on with it.
    pub async fn reconcile(&self, environment: usize, request: &Reconcile) {
        let mut done = Done::default();
        let mut token = None;
        loop {
            let kind = Kind::Reconcile(request.clone());
            let payload = request.payload(token.as_deref());
            let run = Invocation { environment, kind, done, ..Invocation::default() };
            let name = self.state.borrow().environments[environment].name;
            let (invocation, end) = self.invoke(&payload, run, &format!("{name}: {payload}")).await;
            let mut state = self.state.borrow_mut();
            token = reconciled(&mut state, invocation, request, end);
            if token.is_none() || state.violation.is_some() {
                return;
            }
            done = std::mem::take(&mut state.invocations[invocation].done);
        }
    }
}

/// Checks the end of a reconcile; tells how to go on.
fn reconciled(
    state: &mut State,
    invocation: usize,
    request: &Reconcile,
    end: End,
) -> Option<String> {
    let attempted = &state.invocations[invocation].attempted;
    if !request.apply && !attempted.is_empty() {
        let problem = format!("[{invocation}] {attempted:?}");
        state.violate("only a repair writes", problem);
    }
    let End::Answered((handled, stats)) = end else { return None };
    state.stats.refused += stats.repair_refused.unwrap_or_default();
    let mut token = None;
    match handled {
        Ok(Answer::Reconcile(report)) => {
            state.note(|| format!("  [{invocation}] reports {report:?}"));
            let json = serde_json::to_value(&report).unwrap();
            token = json["continue"].as_str().map(str::to_owned);
            state.report = Some(*report);
        }
        Ok(_) => state.violate("a reconcile is answered as one", format!("[{invocation}]")),
        Err(error) => {
            state.note(|| format!("  [{invocation}] fails: {error}"));
            let run = &state.invocations[invocation];
            if run.failed_services.is_empty() && !run.out_of_time {
                state.violate("a reconcile fails for a reason", format!("{error}"));
            }
        }
    }
    after_look(state, invocation, &stats);
    token
}

/// Whether a re-export failed for no reason.
fn unfounded(state: &State, at: usize, index: &IndexRef, error: &ReExportError) -> Option<String> {
    let run = &state.invocations[at];
    let environment = state.environment_of(at);
    let past = environment.table.get(&item_key(index));
    let was = |test: &dyn Fn(&Settings) -> bool| {
        past.is_some_and(|past| {
            past.since(run.began).flatten().filter_map(|image| image.settings()).any(test)
        })
    };
    let missing = past.is_none_or(|past| past.since(run.began).any(Option::is_none));
    let founded = match error {
        ReExportError::IndexNotFound(_) => missing && run.attempted.is_empty(),
        ReExportError::RecordRejected { .. } => {
            was(&|settings| !environment.exportable(index, settings))
        }
        ReExportError::CloudflareAuthRejected { .. } => run.failed_services.contains("kv"),
        ReExportError::Incomplete { .. } => {
            let held = state.kv.contains_key(&(Namespace::Settings, index_id(index)));
            !run.failed_services.is_empty()
                || run.out_of_time
                // A slow answer is no answer: the API keys service gets only a part of the time.
                || !run.unanswered.is_empty()
                || (held && run.passes > 5)
                || run.table_calls > 5
        }
    };
    (!founded).then(|| "a re-export failed for no reason".to_owned())
}
