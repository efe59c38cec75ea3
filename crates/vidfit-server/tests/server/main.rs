//! A whole server with a backend that pretends, over real connections.

#![allow(clippy::unwrap_used, reason = "nobody but tests runs this")]

mod client;
mod pretend;
mod running;

mod api;
mod events;
mod guard;
mod limits;
mod queue;
mod waits;

/// Not a test: the worker process of the servers under test, which is this program again.
#[test]
fn pretend_worker() {
    if let Some(queue_dir) = std::env::var_os(running::WORKER) {
        pretend::work(queue_dir.as_ref());
    }
}

/// Not a test: a server that another test kills.
#[test]
fn pretend_server() {
    if let Some(queue_dir) = std::env::var_os(running::SERVER) {
        running::serve_until_killed(queue_dir.as_ref());
    }
}
