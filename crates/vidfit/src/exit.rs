//! Errors at the command line, and the exit codes that they end in.

use crate::say::note;
use std::fmt::Display;
use std::process::ExitCode;
use vidfit_engine::checkpoint::CheckpointError;
use vidfit_engine::hub::HubError;
use vidfit_engine::runs::RunsError;
use vidfit_engine::safetensors::SafetensorsError;
use vidfit_engine::settings::SettingsError;
use vidfit_engine::{EngineError, Fault};
use vidfit_media::MediaError;

/// Why the program ends without having done what it was asked to.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What went wrong, and what to do.
    pub message: String,
}

/// What was asked for, or given, cannot work.
const BAD_INPUT: u8 = 2;
/// The job does not fit into the memory there is.
const DOES_NOT_FIT: u8 = 3;
/// The user stopped it.
const INTERRUPTED: u8 = 130;
/// Anything else.
const OTHER: u8 = 1;

impl Failure {
    /// Bad input; `message` says what to do.
    pub fn input(message: impl Display) -> Failure {
        Failure { code: BAD_INPUT, message: message.to_string() }
    }

    /// Anything else.
    pub fn other(message: impl Display) -> Failure {
        Failure { code: OTHER, message: message.to_string() }
    }

    /// The job does not fit; `message` says what would.
    pub fn no_room(message: impl Display) -> Failure {
        Failure { code: DOES_NOT_FIT, message: message.to_string() }
    }

    /// The answer is no, and has been given.
    pub fn no() -> Failure {
        Failure { code: OTHER, message: String::new() }
    }

    /// Stopped by the user.
    pub fn interrupted() -> Failure {
        Failure { code: INTERRUPTED, message: "interrupted; nothing was written".into() }
    }

    /// Whether the user stopped it.
    pub fn is_interruption(&self) -> bool {
        self.code == INTERRUPTED
    }

    /// Whether the job does not fit.
    pub fn is_about_room(&self) -> bool {
        self.code == DOES_NOT_FIT
    }

    /// Whether it is neither the user's doing nor a matter of memory.
    pub fn is_unforeseen(&self) -> bool {
        self.code == OTHER
    }

    /// The word of a run's report for it.
    pub fn outcome(&self) -> &'static str {
        match self.code {
            BAD_INPUT | DOES_NOT_FIT => "refused",
            INTERRUPTED => "interrupted",
            _ => "failed",
        }
    }

    /// Says what went wrong, and gives the exit code.
    pub fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            note!("error: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let code = match error.fault() {
            Fault::Input => BAD_INPUT,
            Fault::Memory => DOES_NOT_FIT,
            Fault::Interruption => return Failure::interrupted(),
            Fault::Other => OTHER,
        };
        Failure { code, message: error.to_string() }
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<RunsError> for Failure {
    fn from(error: RunsError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<SafetensorsError> for Failure {
    fn from(error: SafetensorsError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Failure::input(error)
    }
}

impl From<MediaError> for Failure {
    fn from(error: MediaError) -> Self {
        Failure::other(error)
    }
}

impl From<vidfit_tensor::Error> for Failure {
    fn from(error: vidfit_tensor::Error) -> Self {
        EngineError::from(error).into()
    }
}
