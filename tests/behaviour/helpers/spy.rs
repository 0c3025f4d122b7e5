//! A spy on a stand-in.

use std::sync::{Arc, Mutex};

use testbed::faults::{Fault, Faults, Rule};
use testbed::http::Request;

/// Keeps every request that a stand-in gets. Add it before other rules, which may decide without
/// asking it.
pub fn spy(faults: &Faults) -> Spy {
    let spy = Spy::default();
    let seen = spy.0.clone();
    let look = move |request: &Request| {
        seen.lock().unwrap().push(request.clone());
        false
    };
    faults.add(Rule::when(look, Fault::Hang).forever());
    spy
}

/// The requests that a spy has seen.
#[derive(Clone, Default)]
pub struct Spy(Arc<Mutex<Vec<Request>>>);

impl Spy {
    pub fn requests(&self) -> Vec<Request> {
        self.0.lock().unwrap().clone()
    }
}
