//! The HTTP API of vidfit, its job queue and its web page.
//!
//! What makes the videos is not in here: the server asks a [`Backend`] what it needs to know, and
//! lets a worker process do the work, one job at a time. So a server without a job holds nothing of
//! the device, a job that crashes takes nothing with it, and whichever of the two is killed, the job
//! goes on from its last step.

mod backend;
mod config;
mod media;
mod order;

pub use backend::{
    Backend, Gpu, Model, Next, Preset, Reference, ReferenceKind, Refusal, Report, Settled, Work,
};
pub use config::Config;
pub use order::{Order, Task};
