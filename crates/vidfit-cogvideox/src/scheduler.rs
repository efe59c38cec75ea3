//! The two samplers of CogVideoX, DDIM and DPM-Solver++ (SDE, 2M), as plain numbers.
//!
//! A device does the arithmetic on the latents; here a `scheduler_config.json` becomes a list of
//! [`Step`]s, each with the timestep to feed the network and the scalars of its update. Everything
//! is f64, as in diffusers, whose `CogVideoXDDIMScheduler` and `CogVideoXDPMScheduler` are the
//! source of every formula.
//!
//! The coefficients are 0-dimensional f64 tensors in the reference; they multiply f32 tensors as
//! f32, so a device rounds each scalar to f32 once before it is used.

mod config;
mod noise_table;
mod steps;

pub use config::{SchedulerConfig, SchedulerKind, TimestepRule, TimestepSpacing};
pub use noise_table::{AddNoise, NoiseTable};
pub use steps::{DdimStep, DpmStep, SecondOrder, Step, Update};

/// What can be wrong with a scheduler's configuration, or with what is asked of it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SchedulerError {
    /// The text is not JSON, or a field has the wrong type.
    #[error("scheduler_config.json cannot be read: {0}")]
    Json(String),
    /// `_class_name` names a scheduler that CogVideoX does not use.
    #[error(
        "scheduler class {0:?} is not known; known are CogVideoXDDIMScheduler and CogVideoXDPMScheduler"
    )]
    UnknownClass(String),
    /// `_class_name` is absent.
    #[error(
        "scheduler_config.json has no _class_name; CogVideoXDDIMScheduler and CogVideoXDPMScheduler are the known ones"
    )]
    NoClass,
    /// A field holds a value that no CogVideoX checkpoint uses and that is not implemented.
    #[error("scheduler field {field} is {value}, which is not supported; supported: {supported}")]
    Unsupported {
        /// The field's name in the JSON.
        field: &'static str,
        /// The value found (or the reference's default, where the field is absent).
        value: String,
        /// What would have worked.
        supported: &'static str,
    },
    /// The number of steps is 0 or more than the model was trained with.
    #[error("{steps} denoising steps asked for; possible are 1 to {most}")]
    StepCount {
        /// The number asked for.
        steps: usize,
        /// `num_train_timesteps`.
        most: usize,
    },
    /// `steps_offset` pushes a timestep out of the noise table.
    #[error(
        "steps_offset {offset} with {steps} steps gives timestep {timestep}, outside 0 to {last}; use timestep_spacing \"trailing\" or steps_offset 0"
    )]
    OffsetOutOfTable {
        /// `steps_offset` of the configuration.
        offset: i64,
        /// The number of steps asked for.
        steps: usize,
        /// The timestep that does not exist.
        timestep: i64,
        /// The last timestep that does.
        last: i64,
    },
    /// The strength of a video-to-video job is outside its range.
    #[error("strength {0} is outside 0 to 1")]
    Strength(f64),
    /// The strength is so small that no step is left.
    #[error("strength {strength} of {steps} steps leaves no step to do; use at least {least}")]
    NothingToDo {
        /// The strength asked for.
        strength: f64,
        /// The number of steps asked for.
        steps: usize,
        /// The smallest strength that keeps one step.
        least: f64,
    },
}
