//! The operators, who re-export and reconcile at any moment.

use ecom_settings_exporter::export::re_export::ReExportError;
use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::lambda::{Answer, HandlerError};
use ecom_settings_exporter::ports::Namespace;

use crate::checks;
use crate::keys::item_key;
use crate::model::{Settings, index_id};
use crate::sim::{End, Sim};
use crate::state::{Invocation, State};

impl Sim {
    pub async fn operator(&self) {
        while !self.is_over() {
            let reconcile = self.state.borrow_mut().reconciles.pop();
            let re_export = self.state.borrow_mut().re_exports.pop();
            if reconcile.is_none() && re_export.is_none() {
                self.changed.notified().await;
                continue;
            }
            if let Some(apply) = reconcile {
                self.reconcile(apply).await;
            }
            if let Some((index, queries)) = re_export {
                self.re_export(&index, queries).await;
            }
            self.changed.notify_waiters();
        }
        self.changed.notify_waiters();
    }

    async fn re_export(&self, index: &IndexRef, queries: bool) {
        let payload = format!(
            r#"{{"system_account_id":"{}","index_name":"{}","include_query_configs":{queries}}}"#,
            index.account, index.name
        );
        let what = format!("re-export of {index}");
        let (invocation, end) = self.invoke(&payload, Invocation::default(), &what).await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let attempted = state.invocations[invocation].attempted.clone();
        match end {
            End::Crashed => state.tainted.extend(attempted),
            End::Answered((Ok(_), _)) => checks::after_look(state, invocation),
            End::Answered((Err(HandlerError::ReExport(error)), _)) => {
                state.note(|| format!("  [{invocation}] fails: {error}"));
                if let Some(problem) = unfounded(state, invocation, index, &error) {
                    let problem = format!("[{invocation}] {problem}: {error}");
                    state.violate("a re-export fails for a reason", problem);
                }
                state.tainted.extend(attempted);
            }
            End::Answered((other, _)) => {
                state
                    .violate("a re-export is answered as one", format!("[{invocation}] {other:?}"));
            }
        }
    }

    pub async fn reconcile(&self, apply: bool) {
        let payload = format!(r#"{{"reconcile":{{"apply":{apply}}}}}"#);
        let (invocation, end) = self.invoke(&payload, Invocation::default(), "reconcile").await;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let attempted = state.invocations[invocation].attempted.clone();
        if !apply && !attempted.is_empty() {
            state.violate("only a repair writes", format!("[{invocation}] {attempted:?}"));
        }
        match end {
            End::Answered((Ok(Answer::Reconcile(report)), _)) => {
                state.note(|| format!("  [{invocation}] reports {report:?}"));
                state.report = Some(*report);
            }
            End::Answered((Ok(_), _)) => {
                state.violate("a reconcile is answered as one", format!("[{invocation}]"));
            }
            End::Answered((Err(error), _)) => {
                state.note(|| format!("  [{invocation}] fails: {error}"));
                let run = &state.invocations[invocation];
                if run.failed_services.is_empty() && !run.out_of_time {
                    state.violate("a reconcile fails for a reason", format!("{error}"));
                }
            }
            End::Crashed => {}
        }
    }
}

/// Whether a re-export failed for no reason.
fn unfounded(state: &State, at: usize, index: &IndexRef, error: &ReExportError) -> Option<String> {
    let run = &state.invocations[at];
    let past = state.table.get(&item_key(index));
    let was = |test: &dyn Fn(&Settings) -> bool| {
        past.is_some_and(|past| {
            past.since(run.began).flatten().filter_map(|image| image.settings()).any(test)
        })
    };
    let missing = past.is_none_or(|past| past.since(run.began).any(Option::is_none));
    let founded = match error {
        ReExportError::IndexNotFound(_) => missing && run.attempted.is_empty(),
        ReExportError::RecordRejected { .. } => was(&|settings| !state.exportable(index, settings)),
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
