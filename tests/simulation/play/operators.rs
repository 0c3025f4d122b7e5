//! The operators, who re-export and reconcile at any moment.

use ecom_settings_exporter::lambda::Answer;

use super::sim::{End, Sim};
use crate::checks::after_removal;
use crate::world::{Done, IndexRef, Invocation, Kind, Reconcile, Settings, State, item_key};

/// The most runs of a chain, those that die and are tried again among them.
const MAX_RUNS: u32 = 60;

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
        let kind = Kind::ReExport(index.clone());
        let run = Invocation { environment, kind, ..Invocation::default() };
        let (invocation, end) = self.invoke(&payload, run, &what).await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let attempted = state.invocations[invocation].attempted.clone();
        let half_re_exported = &mut state.excused.half_re_exported;
        let (handled, stats) = match end {
            End::Crashed => return half_re_exported.extend(attempted),
            End::Answered(handled) => handled,
        };
        let failed = handled.is_err();
        match handled {
            Ok(Answer::ReExport(_)) => {}
            Err(error) => {
                half_re_exported.extend(attempted);
                state.note(|| format!("  [{invocation}] fails: {error:?}"));
                if !is_founded(state, invocation, index, &error.error_type) {
                    let problem = format!("[{invocation}] {error:?}");
                    state.violate("a re-export fails for a reason", problem);
                }
            }
            other => {
                let problem = format!("[{invocation}] {other:?}");
                state.violate("a re-export is answered as one", problem);
            }
        }
        after_removal(state, invocation, failed, &stats);
    }

    /// Runs a reconcile to the end of its chain, as the state machine does: a run that dies is tried again.
    pub async fn reconcile(&self, environment: usize, request: &Reconcile) {
        let mut done = Done::default();
        let mut token = None;
        for _ in 0..MAX_RUNS {
            let kind = Kind::Reconcile(request.clone());
            let payload = request.payload(token.as_deref());
            let run = Invocation { environment, kind, done, ..Invocation::default() };
            let name = self.state.borrow().environments[environment].name;
            let (invocation, end) = self.invoke(&payload, run, &format!("{name}: {payload}")).await;
            let mut state = self.state.borrow_mut();
            done = state.invocations[invocation].done.clone();
            match reconciled(&mut state, invocation, request, end) {
                Next::Again => done.killed += 1,
                Next::Advance(next) => token = Some(next),
                Next::End => return,
            }
        }
        let problem = format!("{request:?}");
        self.state.borrow_mut().violate("a chain comes to its end", problem);
    }
}

/// What follows a run of a reconcile.
enum Next {
    Again,
    Advance(String),
    End,
}

/// Checks the end of a run. Returns what follows it.
fn reconciled(state: &mut State, invocation: usize, request: &Reconcile, end: End) -> Next {
    let attempted = &state.invocations[invocation].attempted;
    if !request.apply && !attempted.is_empty() {
        let problem = format!("[{invocation}] {attempted:?}");
        state.violate("only a repair writes", problem);
    }
    let End::Answered((handled, stats)) = end else {
        state.count("killed runs", 1);
        return if state.violation.is_none() { Next::Again } else { Next::End };
    };
    let mut token = None;
    let mut failed = true;
    match handled {
        Ok(Answer::Reconcile(report)) => {
            let report = serde_json::to_value(&report).unwrap();
            state.note(|| format!("  [{invocation}] reports {report}"));
            token = report["continue"].as_str().map(str::to_owned);
            let keys_failed = ["settings", "query_configs"].map(|name| report[name]["failed"] != 0);
            failed = report["complete"] == false || keys_failed.contains(&true);
            state.report = report;
        }
        Ok(_) => state.violate("a reconcile is answered as one", format!("[{invocation}]")),
        Err(error) => {
            state.note(|| format!("  [{invocation}] fails: {error:?}"));
            let run = &state.invocations[invocation];
            if run.failed_services.is_empty() && !run.out_of_time {
                state.violate("a reconcile fails for a reason", format!("{error:?}"));
            }
        }
    }
    after_removal(state, invocation, failed, &stats);
    token.filter(|_| state.violation.is_none()).map_or(Next::End, Next::Advance)
}

/// Returns whether a re-export had a reason to fail like this.
fn is_founded(state: &State, at: usize, index: &IndexRef, error_type: &str) -> bool {
    let (run, environment) = state.run(at);
    let past = environment.table.get(&item_key(index));
    let was = |test: &dyn Fn(&Settings) -> bool| {
        past.is_some_and(|past| {
            past.since(run.began).flatten().filter_map(|image| image.settings()).any(test)
        })
    };
    let missing = past.is_none_or(|past| past.since(run.began).any(Option::is_none));
    match error_type {
        "IndexNotFound" => missing && run.attempted.is_empty(),
        "RecordRejected" => {
            let lacks_a_key = run.lacks_api_key(&index.account);
            lacks_a_key || was(&|settings| !environment.exportable(index, settings))
        }
        "CloudflareAuthRejected" => run.failed_services.contains("kv"),
        "ReExportIncomplete" => {
            !run.failed_services.is_empty()
                || run.out_of_time
                // A slow response is none: the API keys service gets only a part of the time.
                || !run.without_api_key.is_empty()
                || environment.has_changed_since(run.began)
        }
        _ => false,
    }
}
