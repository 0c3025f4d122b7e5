//! Histories with a name, each the shortest of its kind: what the exporter survives by itself, and
//! the few things that only reconcile puts right. `a/x` and `b/x` are the indexes, `s` and `t` the
//! shop ids; each index has a shard of its own.

mod beyond;
mod case;
mod survived;
