//! What an operator does.

use serde_json::{Value, json};
use testbed::lambda::{Failure, Function};
use testbed::poller::{Poller, PollerOptions};
use testbed::stack::SETTINGS;

use super::query::Query;
use crate::helpers::CheckedStack;
use crate::printed::Printed;
use crate::process;

/// The local stack with the function, as an operator uses them.
pub struct Practice {
    pub stack: CheckedStack,
    pub function: Function,
}

impl Practice {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(more: &[(&str, &str)]) -> Self {
        Self::on(process::stack().await, more).await
    }

    /// Another function on a stack.
    pub async fn on(stack: CheckedStack, more: &[(&str, &str)]) -> Self {
        let function = process::function(&stack, more).await;
        Self { stack, function }
    }

    pub fn poll(&self) -> Poller {
        self.stack.poll(&self.function, PollerOptions::default())
    }

    /// Puts items, and waits until the stream has carried them.
    pub async fn put(&self, poller: &Poller, items: impl IntoIterator<Item = Value>) {
        for item in items {
            self.stack.table.put(&item);
        }
        poller.caught_up().await;
    }

    pub async fn invoke(&self, payload: Value) -> Result<Value, Failure> {
        process::invoke(&self.function, &payload).await.result
    }

    /// `make re-export ACCOUNT=… INDEX=…`
    pub async fn re_export(&self, account: &str, index: &str) -> Result<Value, Failure> {
        self.invoke(json!({"system_account_id": account, "index_name": index})).await
    }

    /// `make reconcile`
    pub async fn audit(&self) -> Value {
        self.reconcile(json!({"apply": false})).await
    }

    /// `make reconcile APPLY=true`
    pub async fn repair(&self) -> Value {
        self.reconcile(json!({"apply": true})).await
    }

    /// `make reconcile APPLY=true ACCOUNT=…`
    pub async fn repair_account(&self, account: &str) -> Value {
        self.reconcile(json!({"apply": true, "system_account_id": account})).await
    }

    /// `make reconcile` with these fields, to the end of its runs.
    pub async fn reconcile(&self, mut fields: Value) -> Value {
        loop {
            let report = self.invoke(json!({"reconcile": fields})).await.unwrap();
            let place = report["continue"].clone();
            if place.is_null() {
                return report;
            }
            fields["continue"] = place;
        }
    }

    /// What a query of the runbook shows, of each line that it finds.
    pub fn ask(&self, query: &Query) -> Vec<Value> {
        let lines = Printed::of(&self.function.logs()).lines;
        lines.iter().filter(|line| query.matches(line)).map(|line| query.shown(line)).collect()
    }

    pub fn setting(&self, key: &str) -> Option<Value> {
        self.stack.kv.get(SETTINGS, key).map(|stored| stored.json())
    }

    #[track_caller]
    pub fn assert_equal(&self, audit: &Value) {
        for namespace in ["settings", "query_configs"] {
            for class in ["missing", "stale", "orphaned", "failed"] {
                assert_eq!(audit[namespace][class], 0, "{namespace} {class} in {audit}");
            }
        }
    }
}
