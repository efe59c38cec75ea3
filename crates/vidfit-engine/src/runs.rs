//! Runs in directories, so that nothing is lost: what a run was asked for, its plan, its state after
//! every step, and what came of it. A run that was stopped, however, goes on from its last step.
//!
//! ```text
//! RUNS/20261123-181530-k3f/
//!   request.json        what was asked for: all that it takes to do it again
//!   plan.json           the plan that it began with
//!   state.safetensors   what it goes on from: after the text, and after every step
//!   log.jsonl           what happened, and when
//!   input/              the pixels that it starts from, until they are encoded
//!   frames/             the frames, as PNGs
//!   video.mp4           the video: a link to the one that was asked for, or a copy
//!   report.json         how it ended
//!   lock                held by the process that works on it
//! ```
//!
//! How a run stands is never written down but follows from what is there ([`Standing`]): a process
//! lives as long as its lock, a file that is replaced whole is never half there, and a directory gets
//! its name only once its request and its plan are in it.

mod clean;
mod directory;
mod error;
mod id;
mod list;
mod lock;
mod log;
mod record;
mod room;

pub use clean::{CleanRules, Cleaned, Dropped};
pub use directory::{FRAMES, INPUT, LOG, PLAN, REPORT, REQUEST, Run, STATE};
pub use error::RunsError;
pub use id::RunId;
pub use list::{Listed, Standing};
pub use log::RunLog;
pub use record::{MachineRecord, RECORD_VERSION, RunRecord, settled};
pub use room::{are_on_one_disk, check_room};

use crate::folders::Folders;
use std::path::{Path, PathBuf};

/// The directory of all runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    folder: PathBuf,
}

impl Runs {
    /// The runs in `folder`, which need not be there yet.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Runs {
        Runs { folder: folder.into() }
    }

    /// The runs in the user's data folder.
    pub fn of_user() -> Runs {
        Runs::in_folder(Folders::from_env().runs)
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the run called `id` is, or would be.
    pub fn folder_of(&self, id: &RunId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    /// The run that a user means: by its name, by the beginning of its name if no other has it, or
    /// `last` for the one that was begun last.
    ///
    /// # Errors
    /// [`RunsError::Unknown`], [`RunsError::Ambiguous`], [`RunsError::NoRuns`].
    pub fn find(&self, wanted: &str) -> Result<RunId, RunsError> {
        let mut ids = self.ids()?;
        if wanted == "last" {
            return ids.pop().ok_or_else(|| RunsError::NoRuns { folder: self.folder.clone() });
        }
        ids.retain(|id| !wanted.is_empty() && id.as_str().starts_with(wanted));
        let wanted = wanted.to_owned();
        match ids.len() {
            1 => Ok(ids.remove(0)),
            0 => Err(RunsError::Unknown { wanted, folder: self.folder.clone() }),
            _ => Err(RunsError::Ambiguous { wanted, found: ids }),
        }
    }

    /// The names of all runs, the oldest first.
    fn ids(&self) -> Result<Vec<RunId>, RunsError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                let path = self.folder.clone();
                return Err(RunsError::File { action: "read", path, source });
            }
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ids: Vec<RunId> = names.filter_map(|name| RunId::parse(&name)).collect();
        ids.sort();
        Ok(ids)
    }
}
