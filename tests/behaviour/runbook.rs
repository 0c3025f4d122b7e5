//! The runbook: its pages, its queries, and the procedures that nothing else plays.

mod messages;
mod pages;
mod procedures;
mod queries;
