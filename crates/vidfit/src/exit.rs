//! Errors at the command line, and the exit codes that they end in.

use crate::say::note;
use std::error::Error;
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
    /// Whether the machine is at fault as it is now, and not what was asked for: once there is room,
    /// the same will do.
    pub is_machines: bool,
    /// Whether another try would end the same way: a run does not go on from there.
    pub is_final: bool,
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
    fn new(code: u8, message: impl Display) -> Failure {
        Failure { code, message: message.to_string(), is_machines: false, is_final: false }
    }

    /// Bad input; `message` says what to do.
    pub fn input(message: impl Display) -> Failure {
        Failure::new(BAD_INPUT, message)
    }

    /// Anything else.
    pub fn other(message: impl Display) -> Failure {
        Failure::new(OTHER, message)
    }

    /// The job does not fit; `message` says what would.
    pub fn no_room(message: impl Display) -> Failure {
        Failure::new(DOES_NOT_FIT, message).of_the_machine()
    }

    /// The answer is no, and has been given.
    pub fn no() -> Failure {
        Failure::new(OTHER, "")
    }

    /// Stopped by the user.
    pub fn interrupted() -> Failure {
        Failure::new(INTERRUPTED, "interrupted; nothing was written")
    }

    /// Bad input, if the output is none; but a disk that is full is nobody's input.
    pub fn of_output(error: MediaError) -> Failure {
        Failure { code: BAD_INPUT, ..error.into() }
    }

    /// The same, with the machine at fault.
    #[must_use]
    pub fn of_the_machine(self) -> Failure {
        Failure { is_machines: true, ..self }
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
        let has_no_room = matches!(error, EngineError::Runs(RunsError::NoRoom { .. }));
        let is_machines = code == DOES_NOT_FIT || has_no_room || cannot_be_written(&error);
        // What a model comes to, it comes to again.
        let is_final = matches!(error, EngineError::Run(_));
        Failure { code, message: error.to_string(), is_machines, is_final }
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
        let has_no_room = matches!(
            error,
            MediaError::NoRoom { .. }
                | MediaError::DiskFull { .. }
                | MediaError::NotWritable { .. }
        );
        Failure { is_machines: has_no_room || cannot_be_written(&error), ..Failure::other(error) }
    }
}

/// Whether a disk that is full, or may not be written, is behind an error.
fn cannot_be_written(error: &(dyn Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let is_it = |error: &(dyn Error + 'static)| {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(kind, Some(StorageFull | QuotaExceeded | ReadOnlyFilesystem))
    };
    let mut next = Some(error);
    while let Some(error) = next {
        if is_it(error) {
            return true;
        }
        next = error.source();
    }
    false
}

impl From<vidfit_tensor::Error> for Failure {
    fn from(error: vidfit_tensor::Error) -> Self {
        EngineError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn a_full_disk_is_the_machines_fault_and_a_bad_name_is_not() {
        let file = |kind: ErrorKind| EngineError::File {
            action: "write",
            path: "state.safetensors".into(),
            source: kind.into(),
        };
        let tensors = |kind: ErrorKind| SafetensorsError::Io {
            action: "write",
            path: "state.safetensors".into(),
            source: kind.into(),
        };
        for (kind, expected) in [
            (ErrorKind::StorageFull, true),
            (ErrorKind::QuotaExceeded, true),
            (ErrorKind::ReadOnlyFilesystem, true),
            (ErrorKind::NotFound, false),
        ] {
            assert_eq!(Failure::from(file(kind)).is_machines, expected, "{kind}");
            assert_eq!(Failure::from(tensors(kind)).is_machines, expected, "{kind}");
            // Through the engine, which keeps the states of runs for the device.
            let inner = Box::new(EngineError::from(tensors(kind)));
            let device = vidfit_tensor::Error::Model(inner);
            assert_eq!(Failure::from(device).is_machines, expected, "{kind}");
        }
        let room =
            |free_bytes| RunsError::NoRoom { folder: "q".into(), needed_bytes: 9, free_bytes };
        let failure = Failure::from(room(3));
        assert!(failure.is_machines && failure.code == BAD_INPUT);
        assert!(failure.message.contains("--queue-dir"), "{}", failure.message);
        assert!(Failure::no_room("").is_machines);
        assert!(!Failure::input("").is_machines && !Failure::interrupted().is_machines);
    }
}
