//! How runs stand, told from what is in their directories.

use super::directory::{FRAMES, REPORT, REQUEST, STATE, is_ours};
use super::{RECORD_VERSION, RunId, RunRecord, Runs, RunsError, clean, lock};
use crate::small_file::read_small;
use crate::state::RunState;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A process works on it.
    Running {
        /// Which, where it says.
        pid: Option<u32>,
    },
    /// It was stopped, and can go on.
    Stopped,
    /// All is there.
    Done,
    /// It ended in an error.
    Failed(
        /// The error.
        String,
    ),
    /// It cannot be told what it was, or it cannot go on.
    Damaged(
        /// What is wrong.
        String,
    ),
}

/// What is known of a run.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub id: RunId,
    /// Its directory.
    pub folder: PathBuf,
    /// How it stands.
    pub standing: Standing,
    /// What was asked for, if that can be told.
    pub record: Option<RunRecord>,
    /// Denoising steps that are done and kept.
    pub steps_done: usize,
    /// Whether its frames are there.
    pub has_frames: bool,
    /// Bytes on the disk that it alone takes.
    pub bytes: u64,
    /// When something in it was written last.
    pub changed: SystemTime,
}

impl Listed {
    /// Whether all steps are done, so that there is only the video to be made.
    pub fn is_denoised(&self) -> bool {
        self.record.as_ref().is_some_and(|record| self.steps_done >= record.steps)
    }
}

impl Runs {
    /// All runs, the oldest first, damaged ones included.
    ///
    /// # Errors
    /// [`RunsError::File`] if their folder cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, RunsError> {
        Ok(self.ids()?.iter().map(|id| self.look(id)).collect())
    }

    /// How the run called `id` stands.
    pub fn look(&self, id: &RunId) -> Listed {
        let folder = self.folder_of(id);
        let is_running = lock::is_held(&folder);
        let (outcome, steps) = (outcome(&folder), steps_done(&folder));
        let record = self.record_of(id);
        let is_done = outcome.as_ref().is_some_and(|(outcome, _)| outcome == "done");
        let standing = match (&record, &steps, outcome) {
            (Err(what), ..) => Standing::Damaged(what.clone()),
            _ if is_running => Standing::Running { pid: lock::holder(&folder) },
            _ if is_done => Standing::Done,
            (_, Err(what), _) => Standing::Damaged(what.clone()),
            (.., Some((outcome, error))) if outcome == "failed" => {
                Standing::Failed(error.unwrap_or_default())
            }
            _ => Standing::Stopped,
        };
        let all = record.as_ref().map_or(0, |record| record.steps);
        Listed {
            id: id.clone(),
            standing,
            steps_done: if is_done { all } else { steps.unwrap_or(0).min(all) },
            record: record.ok(),
            has_frames: folder.join(FRAMES).is_dir(),
            bytes: clean::bytes_of(&folder),
            changed: changed(&folder),
            folder,
        }
    }

    /// What was asked for; or, in words, why that cannot be told.
    pub(super) fn record_of(&self, id: &RunId) -> Result<RunRecord, String> {
        let folder = self.folder_of(id);
        if !folder.is_dir() {
            return Err("it is no folder".into());
        }
        let text = match read_small(&folder.join(REQUEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(format!("{REQUEST} is missing"));
            }
            Err(error) => return Err(format!("{REQUEST} cannot be read: {error}")),
        };
        let garbage = |error: serde_json::Error| format!("{REQUEST} cannot be read: {error}");
        let version: Version = serde_json::from_str(&text).map_err(garbage)?;
        if version.version != RECORD_VERSION {
            return Err(format!(
                "its version is {}, and this program's is {RECORD_VERSION}",
                version.version
            ));
        }
        serde_json::from_str(&text).map_err(garbage)
    }
}

/// All that must be known before the rest is read.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// How the run in `folder` ended, by its report, and the error that it ended in.
pub(super) fn outcome(folder: &Path) -> Option<(String, Option<String>)> {
    #[derive(Deserialize)]
    struct Outcome {
        outcome: String,
        error: Option<String>,
    }
    let text = read_small(&folder.join(REPORT)).ok()?;
    let Outcome { outcome, error } = serde_json::from_str(&text).ok()?;
    Some((outcome, error))
}

/// Steps that are done and kept: none before the first.
fn steps_done(folder: &Path) -> Result<usize, String> {
    let path = folder.join(STATE);
    match path.symlink_metadata() {
        Err(_) => Ok(0),
        Ok(_) => RunState::steps_done_in(&path).map_err(|error| error.to_string()),
    }
}

/// When something of the run was written last. Who takes its lock writes nothing of it.
fn changed(folder: &Path) -> SystemTime {
    let time = |path: &Path| path.symlink_metadata().and_then(|file| file.modified()).ok();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_told = |name: &str| is_ours(name) && name != lock::LOCK;
    let ours = entries.filter(|entry| is_told(&entry.file_name().to_string_lossy()));
    let times = ours.filter_map(|entry| time(&entry.path()));
    times.max().or(time(folder)).unwrap_or(SystemTime::UNIX_EPOCH)
}
