//! Histories with a name, each the shortest of its kind, a file for each subject. `survived` is what
//! the exporter survives by itself, and `beyond` the few things that only a reconcile repairs. The
//! indexes are `a/x` and `b/x`, the shop ids `s` and `t`. Each index has a shard of its own.

mod beyond;
mod brakes;
mod case;
mod environments;
mod late;
mod old_answers;
mod put_back;
mod survived;
mod twins;
