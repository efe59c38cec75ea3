//! What can go wrong with a job, and whose fault it is.

use crate::bytes::both_in_words;
use crate::checkpoint::CheckpointError;
use crate::hub::HubError;
use crate::runs::RunsError;
use crate::safetensors::SafetensorsError;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The checkpoint cannot make what was asked for.
    #[error("{0}")]
    Request(String),
    /// The checkpoint is missing, incomplete or broken.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model could not be found or downloaded.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Tensors could not be written.
    #[error(transparent)]
    Tensors(#[from] SafetensorsError),
    /// The directory of a run cannot be used.
    #[error(transparent)]
    Runs(#[from] RunsError),
    /// A file of the run's own cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The job does not fit into the memory there is.
    #[error(
        "this job needs at least {} of memory, and {} may be used{}. Make the video smaller or \
         shorter, or close other programs",
        both_in_words(*required_bytes, *available_bytes).0,
        both_in_words(*required_bytes, *available_bytes).1,
        if *tiled { "" } else { " (decoding in tiles, --vae-tiling auto, takes less)" }
    )]
    DoesNotFit {
        /// What the least demanding plan needs.
        required_bytes: u64,
        /// What may be used.
        available_bytes: u64,
        /// Whether that plan decodes in tiles already.
        tiled: bool,
    },
    /// The job fits the device, but not the host's memory.
    #[error(
        "this job needs {} of RAM besides the weights' memory map, and {} may be used. Close other \
         programs, or make the video smaller or shorter",
        both_in_words(*required_bytes, *available_bytes).0,
        both_in_words(*required_bytes, *available_bytes).1
    )]
    NotEnoughRam {
        /// What the job holds in host memory.
        required_bytes: u64,
        /// What may be used.
        available_bytes: u64,
    },
    /// The system refused the memory, although it seemed to have it.
    #[error(
        "{source}. Close other programs, lift the limit on this one, or make the video smaller"
    )]
    CannotReserve {
        /// What the device says.
        source: vidfit_tensor::Error,
    },
    /// Copies to or from the device failed again and again.
    #[error("{source}, more than once. {}", stopped(state.as_deref()))]
    Stopped {
        /// What the device says.
        source: vidfit_tensor::Error,
        /// What the run can go on from, if it had come to its first step.
        state: Option<Box<crate::state::RunState>>,
    },
    /// The user stopped the run.
    #[error("interrupted")]
    Interrupted,
    /// The device or the plan failed.
    #[error(transparent)]
    Run(vidfit_tensor::Error),
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What was asked for, or given, cannot work.
    Input,
    /// The machine is too small.
    Memory,
    /// The user stopped it.
    Interruption,
    /// Anything else.
    Other,
}

impl EngineError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            EngineError::Request(_) | EngineError::Checkpoint(_) => Fault::Input,
            EngineError::Hub(error) => match error {
                HubError::Cancelled => Fault::Interruption,
                HubError::InvalidId { .. }
                | HubError::BadConfig { .. }
                | HubError::NotAModel { .. }
                | HubError::NotAFolder { .. }
                | HubError::NotCached { .. } => Fault::Input,
                _ => Fault::Other,
            },
            EngineError::Runs(error) => error.fault(),
            EngineError::DoesNotFit { .. }
            | EngineError::NotEnoughRam { .. }
            | EngineError::CannotReserve { .. } => Fault::Memory,
            EngineError::Interrupted => Fault::Interruption,
            EngineError::File { action: "read", .. } => Fault::Input,
            EngineError::File { .. }
            | EngineError::Tensors(_)
            | EngineError::Stopped { .. }
            | EngineError::Run(_) => Fault::Other,
        }
    }
}

impl From<vidfit_tensor::Error> for EngineError {
    fn from(error: vidfit_tensor::Error) -> Self {
        match error {
            vidfit_tensor::Error::Interrupted => EngineError::Interrupted,
            vidfit_tensor::Error::DoesNotFit { required_bytes, available_bytes } => {
                EngineError::DoesNotFit { required_bytes, available_bytes, tiled: true }
            }
            // Whoever keeps the state of a run has errors of this kind, and they come back through it.
            vidfit_tensor::Error::Model(source) => match source.downcast::<EngineError>() {
                Ok(error) => *error,
                Err(source) => EngineError::Run(vidfit_tensor::Error::Model(source)),
            },
            other => EngineError::Run(other),
        }
    }
}

/// What is left of a run that was stopped.
fn stopped(state: Option<&crate::state::RunState>) -> String {
    match state {
        Some(state) if state.steps_done == 0 => {
            "What came before the first step is not lost".into()
        }
        Some(state) => format!("The first {} steps are not lost", state.steps_done),
        None => "Nothing was lost: the first step had not begun".into(),
    }
}
