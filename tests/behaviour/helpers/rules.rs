//! At which requests of KV and of the table a fault happens, and a spy on a stand-in.

use std::sync::{Arc, Mutex};

use testbed::faults::{Fault, Faults, Rule};
use testbed::http::Request;

/// At KV's next bulk write.
pub fn writes(fault: Fault) -> Rule {
    Rule::on("PUT", "/bulk", fault)
}

/// At KV's next bulk delete.
pub fn deletes(fault: Fault) -> Rule {
    Rule::on("POST", "/bulk/delete", fault)
}

/// At KV's next listing.
pub fn listings(fault: Fault) -> Rule {
    Rule::on("GET", "/keys", fault)
}

/// At the next page of a pass over the table.
pub fn scans(fault: Fault) -> Rule {
    Rule::operation("Scan", fault)
}

/// At the next read of items by their keys.
pub fn item_reads(fault: Fault) -> Rule {
    Rule::operation("BatchGetItem", fault)
}

/// AWS's answer to a call that its role may not make.
pub fn denied() -> Fault {
    Fault::aws(400, "AccessDeniedException", "not authorized to perform this")
}

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
