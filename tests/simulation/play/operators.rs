//! The operators, who re-export and reconcile at any moment.

use ecom_settings_exporter::lambda::{Answer, Handled};

use super::sim::Sim;
use crate::checks::removal;
use crate::world::{Done, IndexRef, Invocation, Kind, Reconcile, State};

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

    /// Re-exports an index. What a re-export that fails leaves half done, a repair puts right.
    async fn re_export(&self, environment: usize, index: &IndexRef, queries: bool) {
        let payload = format!(
            r#"{{"system_account_id":"{}","index_name":"{}","include_query_configs":{queries}}}"#,
            index.account, index.name
        );
        let run =
            Invocation::new(environment, Kind::ReExport(index.clone()), self.state.borrow().step);
        let (invocation, handled) =
            self.invoke(&payload, run, &format!("re-export of {index}")).await;
        let Some((result, stats)) = handled else { return };
        let mut state = self.state.borrow_mut();
        if let Err(error) = &result {
            state.note(|| format!("  [{invocation}] fails: {error:?}"));
            state.needs_repair |= state.invocations[invocation].wrote;
        }
        removal::check(&mut state, invocation, result.is_err(), &stats);
    }

    /// Runs a reconcile to the end of its chain, as the state machine does: a run that dies is tried again.
    pub async fn reconcile(&self, environment: usize, request: &Reconcile) {
        let mut done = Done::default();
        let mut token = None;
        for _ in 0..MAX_RUNS {
            let payload = request.payload(token.as_deref());
            let kind = Kind::Reconcile(request.clone());
            let run =
                Invocation { done, ..Invocation::new(environment, kind, self.state.borrow().step) };
            let (invocation, handled) = self.invoke(&payload, run, &payload).await;
            let mut state = self.state.borrow_mut();
            let run = &state.invocations[invocation];
            done = run.done.clone();
            if run.wrote && !request.apply {
                state.violate("only a repair writes", format!("[{invocation}]"));
            }
            if state.violation.is_some() {
                return;
            }
            match handled {
                None => {
                    state.count("killed runs", 1);
                    done.killed += 1;
                }
                Some(handled) => match next_run(&mut state, invocation, handled) {
                    None => return,
                    next => token = next,
                },
            }
        }
        let problem = format!("{request:?}");
        self.state.borrow_mut().violate("a chain comes to its end", problem);
    }
}

/// Checks a run that has answered. Returns the token of the next one.
fn next_run(state: &mut State, invocation: usize, (result, stats): Handled) -> Option<String> {
    let report = match result {
        Ok(Answer::Reconcile(report)) => serde_json::to_value(&report).unwrap(),
        other => serde_json::json!({"complete": false, "answer": format!("{other:?}")}),
    };
    state.note(|| format!("  [{invocation}] reports {report}"));
    let keys_failed = ["settings", "query_configs"].map(|name| report[name]["failed"] != 0);
    let failed = report["complete"] == false || keys_failed.contains(&true);
    removal::check(state, invocation, failed, &stats);
    report["continue"].as_str().map(str::to_owned)
}
