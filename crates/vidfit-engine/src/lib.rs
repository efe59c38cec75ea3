//! Checkpoints and runs: what stands between a model's files and its arithmetic.
//!
//! - [`hub`]: finding and downloading models. [`safetensors`]: their files. [`checkpoint`]: what
//!   they hold. [`placement`]: where weights are while they are used. [`lora`]: what is added to
//!   them.
//! - [`request`]: what to make, held against a checkpoint. [`pixels`]: what it starts from.
//!   [`pipeline`]: text, image and video to video. [`schedule`]: how it uses memory. [`plan`]: the
//!   pipeline run dry. [`planner`]: the search for a schedule. [`generate`]: the pipeline run in what
//!   was planned. [`host_memory`]: what its results take. [`state`]: what it goes on from.
//! - [`pipelines`]: models that are loaded once and used again, and the weights that stay on the
//!   device between their jobs.
//! - [`gpus`], [`machine`]: what this machine has. [`catalogue`]: the cards that there are.
//!   [`running`]: the jobs under way. [`runs`]: what is kept of each.
//! - [`bytes`], [`settings`], [`presets`], [`folders`], [`whole_file`]: what is written, by whom, and
//!   where. [`texts`]: the prompts of many jobs.
//! - [`progress`], [`error`], [`digest`]: what surrounds a run.

pub mod bytes;
pub mod calibration;
pub mod catalogue;
pub mod checkpoint;
pub mod digest;
pub mod error;
pub mod folders;
pub mod generate;
pub mod gpus;
pub mod host_memory;
pub mod hub;
pub mod lora;
pub mod machine;
pub mod pipeline;
pub mod pipelines;
pub mod pixels;
pub mod placement;
pub mod plan;
pub mod planner;
pub mod presets;
pub mod progress;
pub mod request;
pub mod running;
pub mod runs;
pub mod safetensors;
pub mod schedule;
pub mod settings;
mod small_file;
pub mod state;
pub mod texts;
pub mod whole_file;

pub use error::{EngineError, Fault};
