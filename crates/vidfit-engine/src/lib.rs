//! Checkpoints and runs: what stands between a model's files and its arithmetic.
//!
//! - [`hub`]: finding and downloading models. [`safetensors`]: their files. [`checkpoint`]: what
//!   they hold. [`placement`]: where weights are while they are used.
//! - [`request`]: what to make, held against a checkpoint. [`text_to_video`]: the pipeline.
//!   [`plan`]: the pipeline run dry. [`generate`]: the pipeline run in what was planned.
//! - [`progress`], [`machine`], [`error`]: what surrounds a run.

pub mod checkpoint;
pub mod error;
pub mod generate;
pub mod hub;
pub mod machine;
pub mod placement;
pub mod plan;
pub mod progress;
pub mod request;
pub mod safetensors;
pub mod schedule;
pub mod state;
pub mod text_to_video;

pub use error::{EngineError, Fault};
