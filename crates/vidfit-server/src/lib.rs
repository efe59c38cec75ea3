//! The HTTP API of vidfit, its job queue and its web page.
//!
//! What makes the videos is not in here: the server asks a [`Backend`] what it needs to know, and
//! lets a worker process do the work, one job at a time. So a server without a job holds nothing of
//! the device, a job that crashes takes nothing with it, and whichever of the two is killed, the job
//! goes on from its last step.
//!
//! The way of an order: `http/create.rs` reads it (`http/receive.rs`, `order/parse.rs`) and commits
//! it to the database (`store.rs`); the runner (`runner.rs`), a thread, takes it from there and gives
//! it to the worker (`worker.rs`); what that tells changes how the job stands (`live.rs`), and whoever
//! waits for news is told (`state.rs`, `http/events.rs`).

mod backend;
mod config;
mod connection;
mod http;
mod job;
mod live;
mod log;
mod media;
mod metrics;
mod order;
mod runner;
mod scrub;
mod serve;
mod state;
mod store;
mod video;
mod waits;
mod worker;

pub use backend::{
    Backend, Gpu, Model, Next, Preset, Reference, ReferenceKind, Refusal, Report, Settled, Work,
};
pub use config::Config;
pub use log::{Level, log, say};
pub use order::{Order, Task};
pub use serve::{ServeError, serve};
pub use store::StoreError;
