//! Histories with a name, each the shortest of its kind: what the exporter survives by itself, and
//! the few things that only a reconcile repairs. The indexes are `a/x` and `b/x`, the shop ids `s`
//! and `t`. Each index has a shard of its own.

mod beyond;
mod case;
mod survived;
