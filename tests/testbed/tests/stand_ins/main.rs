//! What other tests rest on: that the stand-ins' faults come as they are scripted, that the mapping keeps
//! order, retries and parts, and that KV has Cloudflare's limits.

mod kv;
mod lambda;
mod probes;
mod stream;
