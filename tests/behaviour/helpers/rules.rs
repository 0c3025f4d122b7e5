//! When a fault happens: at which requests of KV and of the table.

use testbed::faults::{Fault, Rule};
use testbed::http::Request;

/// At KV's next bulk write.
pub fn writes(fault: Fault) -> Rule {
    Rule::on("PUT", "/bulk", fault)
}

/// At KV's next bulk delete.
pub fn deletes(fault: Fault) -> Rule {
    Rule::on("POST", "/bulk/delete", fault)
}

/// At KV's next bulk read.
pub fn reads(fault: Fault) -> Rule {
    Rule::on("POST", "/bulk/get", fault)
}

/// At KV's next listing.
pub fn listings(fault: Fault) -> Rule {
    Rule::on("GET", "/keys", fault)
}

/// At the next page of a pass over the table.
pub fn scans(fault: Fault) -> Rule {
    Rule::operation("Scan", fault)
}

/// At the next read of one item or of several: the table has an operation for each.
pub fn item_reads(fault: Fault) -> Rule {
    let reads = |request: &Request| matches!(request.operation(), Some("GetItem" | "BatchGetItem"));
    Rule::when(reads, fault)
}

/// AWS's answer to a call that its role may not make.
pub fn denied() -> Fault {
    Fault::aws(400, "AccessDeniedException", "not authorized to perform this")
}
