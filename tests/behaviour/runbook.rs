//! The runbook, practised: every symptom is produced with the real binary, found by the runbook's
//! queries over the lines that it printed, and resolved by the runbook's commands.

mod drills;
mod errors;
mod explained;
mod messages;
mod page;
mod practice;
mod procedures;
mod query;
mod refused;
mod values;
