//! A stack whose KV takes only what the schemas describe.

use std::ops::Deref;
use std::sync::{Arc, Mutex};

use testbed::kv::Stored;
use testbed::stack::{QUERY_CONFIGS, Stack, StackOptions};
use testbed::table::StreamView;

use crate::schemas::published as schemas;

/// The stand-ins. When they are dropped, each pair that was written has to match its schema.
#[derive(Clone)]
pub struct CheckedStack {
    stack: Stack,
    broken: Arc<Mutex<Vec<String>>>,
}

impl CheckedStack {
    /// Starts the stand-ins with a stream view.
    pub async fn start(view: StreamView) -> Self {
        let stack = Stack::start(StackOptions { view, ..StackOptions::default() }).await.unwrap();
        // A second of KV's is as long as the first back-off of the functions here.
        stack.kv.clock().set_speed(1_000);
        let broken = Arc::new(Mutex::new(Vec::new()));
        let found = broken.clone();
        stack.kv.inspect_writes(move |namespace, key, stored| {
            if let Err(why) = check(namespace, stored) {
                found.lock().unwrap().push(format!("{key}: {why}"));
            }
        });
        Self { stack, broken }
    }
}

/// Only what the predecessor wrote has no metadata. It may be put back, whatever it is.
fn check(namespace: &str, stored: &Stored) -> Result<(), String> {
    let Some(metadata) = &stored.metadata else { return Ok(()) };
    // A test may move to namespaces with other names.
    let query_config = namespace.ends_with(QUERY_CONFIGS);
    let value = if query_config { schemas::QUERY_CONFIG } else { schemas::SETTINGS };
    schemas::check(value, &stored.json())?;
    schemas::check(schemas::METADATA, metadata)
}

impl Deref for CheckedStack {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}

impl Drop for CheckedStack {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(*self.broken.lock().unwrap(), [""; 0], "what was written to KV");
        }
    }
}
