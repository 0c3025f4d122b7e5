//! The HTTP that all the stand-ins speak: requests and replies as plain values, a server that can
//! also break connections, and a client.

mod client;
mod message;
mod server;

pub use client::Client;
pub use message::{Reply, Request, decode};
pub use server::{Outcome, Server};
