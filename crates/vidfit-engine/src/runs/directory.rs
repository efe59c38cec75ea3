//! The directory of one run, held by this process.

use super::lock::{self, LOCK};
use super::{RunId, RunLog, RunRecord, Runs, RunsError};
use crate::error::EngineError;
use crate::generate::RunReport;
use crate::pixels::Pixels;
use crate::planner::SavedPlan;
use crate::request::Job;
use crate::small_file::read_small;
use crate::state::RunState;
use crate::whole_file::{sync_folder, sync_folder_of, write_whole};
use serde_json::json;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What was asked for.
pub const REQUEST: &str = "request.json";
/// The plan that the run began with.
pub const PLAN: &str = "plan.json";
/// What the run goes on from.
pub const STATE: &str = "state.safetensors";
/// What happened.
pub const LOG: &str = "log.jsonl";
/// How the run ended.
pub const REPORT: &str = "report.json";
/// The folder of the pixels that the run starts from.
pub const INPUT: &str = "input";
/// The file in it.
const PIXELS: &str = "pixels.safetensors";
/// The frames, as PNGs.
pub const FRAMES: &str = "frames";
/// The video; its extension follows.
const VIDEO: &str = "video.";

/// Names that are tried for a new run. There are 32 in every thousandth of a second.
const MOST_NAMES: usize = 100;

/// A run on which no other process works as long as this lives.
#[derive(Debug)]
pub struct Run {
    id: RunId,
    folder: PathBuf,
    record: RunRecord,
    log: RunLog,
    /// Held, not read.
    _lock: File,
}

impl Runs {
    /// Makes the directory of a new run. It gets its name once request, plan and what the video starts
    /// from are in it.
    ///
    /// # Errors
    /// [`RunsError::File`] if the system will not.
    pub fn begin(
        &self,
        record: &RunRecord,
        plan: &SavedPlan,
        pixels: Option<&Pixels>,
    ) -> Result<Run, RunsError> {
        let file = |action, path: &Path| {
            let path = path.to_owned();
            move |source| RunsError::File { action, path, source }
        };
        make_lasting(self.folder()).map_err(file("make", self.folder()))?;
        for _ in 0..MOST_NAMES {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let id = RunId::new(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
            let folder = self.folder_of(&id);
            let part = self.folder().join(format!(".{id}.part"));
            // Two processes never both make this one.
            match fs::create_dir(&part) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                made => made.map_err(file("make", &part))?,
            }
            // From here on it is ours to take away.
            let part = Part(part);
            if folder.exists() {
                continue;
            }
            fill(&part.0, record, plan, pixels)?;
            // Whoever sees the run by its name finds it taken: the lock goes with the directory. Only
            // Unix renames a directory with an open file in it.
            let lock = cfg!(unix).then(|| lock::take(&id, &part.0)).transpose()?;
            sync_folder(&part.0).map_err(file("write", &part.0))?;
            // A directory that is there by now, and is not empty, is not replaced.
            match fs::rename(&part.0, &folder) {
                Err(_) if folder.exists() => continue,
                named => named.map_err(file("make", &folder))?,
            }
            sync_folder(self.folder()).map_err(file("write", self.folder()))?;
            let lock = lock.map_or_else(|| lock::take(&id, &folder), Ok)?;
            let run = self.hold(&id, lock)?;
            run.log.note(json!({
                "event": "began",
                "pid": std::process::id(),
                "vidfit": record.vidfit,
            }));
            return Ok(run);
        }
        let source = io::Error::new(ErrorKind::AlreadyExists, "all names are taken");
        Err(RunsError::File { action: "make", path: self.folder().to_owned(), source })
    }

    /// Takes hold of a run.
    ///
    /// # Errors
    /// [`RunsError::Busy`] if another process has it, [`RunsError::Damaged`] if it cannot be told what
    /// was asked for.
    pub fn open(&self, id: &RunId) -> Result<Run, RunsError> {
        let folder = self.folder_of(id);
        let damaged = |what| RunsError::Damaged { id: id.clone(), what };
        if folder.exists() && !folder.is_dir() {
            return Err(damaged("it is no folder".into()));
        }
        self.hold(id, lock::take(id, &folder)?)
    }

    /// A run whose lock is held.
    fn hold(&self, id: &RunId, lock: File) -> Result<Run, RunsError> {
        let folder = self.folder_of(id);
        let damaged = |what| RunsError::Damaged { id: id.clone(), what };
        let record = self.record_of(id).map_err(damaged)?;
        let path = folder.join(LOG);
        let file = |source| RunsError::File { action: "write", path: path.clone(), source };
        let log = RunLog::open(&path).map_err(file)?;
        Ok(Run { id: id.clone(), folder, record, log, _lock: lock })
    }
}

/// Makes a folder, and those that it is in, to outlast a power cut.
fn make_lasting(folder: &Path) -> io::Result<()> {
    let folders = folder.ancestors().filter(|folder| !folder.as_os_str().is_empty());
    let made: Vec<&Path> = folders.take_while(|folder| !folder.exists()).collect();
    fs::create_dir_all(folder)?;
    made.into_iter().try_for_each(sync_folder_of)
}

/// A directory that has no name yet. It vanishes unless it gets one.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // Once it has its name, there is nothing here to remove any more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes what a run has from the beginning.
fn fill(
    folder: &Path,
    record: &RunRecord,
    plan: &SavedPlan,
    pixels: Option<&Pixels>,
) -> Result<(), RunsError> {
    let path = folder.join(REQUEST);
    let file = |source| RunsError::File { action: "write", path: path.clone(), source };
    let text = serde_json::to_string_pretty(record).map_err(|error| file(error.into()))?;
    write_whole(&path, |out| out.write_all(text.as_bytes())).map_err(file)?;
    let plan_path = folder.join(PLAN);
    plan.save(&plan_path).map_err(|error| not_written(&plan_path, error))?;
    let Some(pixels) = pixels else { return Ok(()) };
    let input = folder.join(INPUT);
    let failed = |source| RunsError::File { action: "make", path: input.clone(), source };
    fs::create_dir(&input).map_err(failed)?;
    let path = input.join(PIXELS);
    pixels.save(&path).map_err(|error| not_written(&path, error))
}

fn not_written(path: &Path, error: EngineError) -> RunsError {
    match error {
        EngineError::File { action, path, source } => RunsError::File { action, path, source },
        other => {
            let (path, source) = (path.to_owned(), io::Error::other(other));
            RunsError::File { action: "write", path, source }
        }
    }
}

impl Run {
    /// Its name.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// Its directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was asked for.
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    /// What happened.
    pub fn log(&self) -> &RunLog {
        &self.log
    }

    /// The file or the folder of it that is called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes away what a process that was killed left half written, and the report of an earlier end:
    /// the run goes on.
    pub fn go_on(&self) {
        super::clean::drop_leftovers(&self.folder);
        let _ = fs::remove_file(self.path(REPORT));
        self.log.note(json!({ "event": "resumed", "pid": std::process::id() }));
    }

    /// Keeps what the run can go on from in the place of what it could go on from so far. Once this
    /// returns, it outlasts a power cut.
    ///
    /// # Errors
    /// As [`RunState::save`]; what was kept so far then stays.
    pub fn save(&self, state: &RunState) -> Result<(), EngineError> {
        let began = Instant::now();
        let path = self.path(STATE);
        state.save(&path)?;
        if state.has_begun() {
            // What the run started from is in there, encoded.
            let _ = fs::remove_dir_all(self.path(INPUT));
        }
        self.log.note(json!({
            "event": "saved",
            "steps_done": state.steps_done,
            "bytes": path.metadata().map_or(0, |file| file.len()),
            "seconds": began.elapsed().as_secs_f64(),
        }));
        Ok(())
    }

    /// What the run goes on from, held to its job, if it has come to something. `embeds` is the
    /// number of values in the prompts' embeddings.
    ///
    /// # Errors
    /// [`RunsError::Damaged`] if it is not what was saved.
    pub fn state(&self, job: &Job, embeds: usize) -> Result<Option<RunState>, RunsError> {
        let path = self.path(STATE);
        // A link to nowhere is damage, and not a beginning.
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        RunState::load(&path, job, embeds).map(Some).map_err(|error| RunsError::Damaged {
            id: self.id.clone(),
            what: format!("{error}. Without {} it can begin anew", path.display()),
        })
    }

    /// The pixels that the run starts from, if there are any, and they are not encoded yet.
    ///
    /// # Errors
    /// [`RunsError::Damaged`] if they are not what was saved.
    pub fn pixels(&self) -> Result<Option<Pixels>, RunsError> {
        let path = self.path(INPUT).join(PIXELS);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        Pixels::load(&path)
            .map(Some)
            .map_err(|error| RunsError::Damaged { id: self.id.clone(), what: error.to_string() })
    }

    /// How the run ended, if it has.
    pub fn report(&self) -> Option<RunReport> {
        serde_json::from_str(&read_small(&self.path(REPORT)).ok()?).ok()
    }

    /// Whether the run is at its end, with nothing left to do.
    pub fn is_done(&self) -> bool {
        super::list::outcome(&self.folder).is_some_and(|(outcome, _)| outcome == "done")
    }

    /// The video that is kept here, if it is no folder of frames.
    pub fn video(&self) -> Option<PathBuf> {
        let names = fs::read_dir(&self.folder).ok()?;
        let mut paths = names.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|path| path.file_name().is_some_and(|name| is_video(&name.to_string_lossy())))
    }

    /// Keeps the video that was written at `path`: as a link where the disk can, else as a copy.
    ///
    /// # Errors
    /// [`RunsError::File`] if the system will not; the video that was asked for is not touched.
    pub fn keep_video(&self, path: &Path) -> Result<(), RunsError> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let kept = self.path(&format!("{VIDEO}{extension}"));
        let part = self.path(&format!(".{VIDEO}{extension}.part"));
        let copied = || -> io::Result<()> {
            let _ = fs::remove_file(&part);
            // What a link stands for, and not the link.
            if fs::hard_link(path.canonicalize()?, &part).is_err() {
                fs::copy(path, &part)?;
                File::open(&part)?.sync_all()?;
            }
            fs::rename(&part, &kept)?;
            sync_folder(&self.folder)
        };
        let failed = |source| RunsError::File { action: "write", path: kept.clone(), source };
        copied().map_err(failed)
    }

    /// Says how the run ended, which is the last that is written.
    ///
    /// # Errors
    /// As [`RunReport::save`].
    pub fn end(&self, report: &RunReport) -> Result<(), EngineError> {
        report.save(&self.path(REPORT))?;
        self.log.note(json!({ "event": report.outcome, "error": report.error }));
        Ok(())
    }

    /// Takes the run away: its video is elsewhere, and nothing of it is to be kept.
    ///
    /// # Errors
    /// [`RunsError::File`], [`RunsError::ForeignFiles`].
    pub fn discard(self) -> Result<(), RunsError> {
        super::clean::remove(&self.id, &self.folder)
    }
}

/// Whether a run's directory may hold a file of this name.
pub(super) fn is_ours(name: &str) -> bool {
    [REQUEST, PLAN, STATE, LOG, REPORT, INPUT, FRAMES, LOCK].contains(&name)
        || is_video(name)
        || is_leftover(name)
}

/// Whether this is a file or folder that was not written to its end.
pub(super) fn is_leftover(name: &str) -> bool {
    name.starts_with('.') && (name.ends_with(".tmp") || name.ends_with(".part"))
}

fn is_video(name: &str) -> bool {
    name.strip_prefix(VIDEO).is_some_and(|extension| ["mp4", "gif"].contains(&extension))
}
