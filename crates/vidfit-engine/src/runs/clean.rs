//! Taking away runs, or what is not needed of them.

use super::directory::{FRAMES, REQUEST, STATE, is_leftover, is_ours};
use super::{Listed, RunId, Runs, RunsError, Standing, lock};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What [`Runs::clean`] takes away.
#[derive(Clone, Debug)]
pub struct CleanRules {
    /// Now.
    pub now: SystemTime,
    /// Frames and states of runs that have been done for so long.
    pub drop_frames_after: Duration,
    /// Whole runs, done or not, in which nothing was written for so long; none without it.
    pub drop_runs_after: Option<Duration>,
    /// As many of the newest runs as are left alone.
    pub keep_last: usize,
    /// Whether it is only said what would be taken away.
    pub is_dry: bool,
}

/// What of a run was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// All of it.
    Run,
    /// Its frames and its state.
    Frames,
    /// What a process that was killed left half written.
    Leftovers,
}

/// What was taken away, or would be.
#[derive(Clone, Debug, Default)]
pub struct Cleaned {
    /// Of which run what, and its bytes on the disk. Directories that never became a run have no name.
    pub dropped: Vec<(Option<RunId>, Dropped, u64)>,
    /// What could not be taken away, in words.
    pub failed: Vec<String>,
}

impl Cleaned {
    /// Bytes that were freed.
    pub fn bytes(&self) -> u64 {
        self.dropped.iter().map(|(.., bytes)| bytes).sum()
    }
}

/// How long a directory without a request is left alone: a process may be about to fill it.
const GRACE: Duration = Duration::from_secs(3600);

impl Runs {
    /// Takes a run away, and says how many bytes that freed.
    ///
    /// # Errors
    /// [`RunsError::Busy`] if a process works on it; [`RunsError::ForeignFiles`] if something stays
    /// because it is not of the run.
    pub fn remove(&self, id: &RunId) -> Result<u64, RunsError> {
        let folder = self.folder_of(id);
        let bytes = bytes_of(&folder);
        if folder.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            let failed =
                |source| RunsError::File { action: "remove", path: folder.clone(), source };
            fs::remove_file(&folder).map_err(failed)?;
            return Ok(bytes);
        }
        let _lock = lock::take(id, &folder)?;
        remove(id, &folder)?;
        Ok(bytes)
    }

    /// Takes away what `rules` say. Runs on which a process works are left alone.
    ///
    /// # Errors
    /// [`RunsError::File`] if the folder of runs cannot be read. What cannot be taken away is in the
    /// answer.
    pub fn clean(&self, rules: &CleanRules) -> Result<Cleaned, RunsError> {
        let mut cleaned = Cleaned::default();
        let runs = self.list()?;
        let last = runs.len().saturating_sub(rules.keep_last);
        for (index, run) in runs.iter().enumerate() {
            let spared = index >= last;
            if let Err(error) = self.clean_run(run, spared, rules, &mut cleaned) {
                cleaned.failed.push(error.to_string());
            }
        }
        for part in self.never_begun(rules.now) {
            let bytes = bytes_of(&part);
            if rules.is_dry || fs::remove_dir_all(&part).is_ok() {
                cleaned.dropped.push((None, Dropped::Leftovers, bytes));
            }
        }
        Ok(cleaned)
    }

    fn clean_run(
        &self,
        run: &Listed,
        spared: bool,
        rules: &CleanRules,
        cleaned: &mut Cleaned,
    ) -> Result<(), RunsError> {
        let age = rules.now.duration_since(run.changed).unwrap_or_default();
        if matches!(run.standing, Standing::Running { .. }) || !run.folder.is_dir() {
            return Ok(());
        }
        // Whoever was killed while taking a run away began with its request.
        let is_remains = !run.folder.join(REQUEST).exists() && foreign(&run.folder).is_none();
        let is_old = rules.drop_runs_after.is_some_and(|after| age >= after);
        if (is_old && !spared) || (is_remains && age >= GRACE) {
            let bytes = if rules.is_dry { run.bytes } else { self.remove(&run.id)? };
            cleaned.dropped.push((Some(run.id.clone()), Dropped::Run, bytes));
            return Ok(());
        }
        let _lock = match rules.is_dry {
            true => None,
            false => Some(lock::take(&run.id, &run.folder)?),
        };
        let mut drop_all = |what, paths: Vec<PathBuf>| {
            let bytes: u64 = paths.iter().map(|path| bytes_of(path)).sum();
            if !rules.is_dry {
                paths.iter().for_each(|path| remove_any(path));
            }
            if !paths.is_empty() {
                cleaned.dropped.push((Some(run.id.clone()), what, bytes));
            }
        };
        drop_all(Dropped::Leftovers, leftovers(&run.folder));
        if run.standing == Standing::Done && age >= rules.drop_frames_after && !spared {
            drop_all(Dropped::Frames, needless(run));
        }
        Ok(())
    }

    /// Directories that were made for runs, but never came to a request.
    fn never_begun(&self, now: SystemTime) -> Vec<PathBuf> {
        let is_old = |path: &PathBuf| {
            let changed = path.metadata().and_then(|folder| folder.modified());
            changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age >= GRACE))
        };
        let of_a_run = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let id = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part"));
            id.and_then(RunId::parse).is_some()
        };
        leftovers(self.folder()).into_iter().filter(of_a_run).filter(is_old).collect()
    }
}

/// What a run that is done can do without: its state, and its frames, unless these are all there is of
/// the video.
fn needless(run: &Listed) -> Vec<PathBuf> {
    let has_video = run.record.as_ref().is_some_and(|record| {
        let video = |extension: &str| run.folder.join(format!("video.{extension}")).exists();
        video("mp4") || video("gif") || has_all(&record.output, &run.folder.join(FRAMES))
    });
    let frames = has_video.then_some(FRAMES);
    let paths = [Some(STATE), frames].into_iter().flatten().map(|name| run.folder.join(name));
    paths.filter(|path| path.exists()).collect()
}

/// Whether each of the frames in `frames` is in `folder` too, of the same length.
fn has_all(folder: &Path, frames: &Path) -> bool {
    let bytes = |folder: &Path, name: &str| {
        let file = folder.join(name).metadata().ok()?;
        file.is_file().then_some(file.len())
    };
    let mut names = names(frames).into_iter();
    names.all(|name| bytes(folder, &name).is_some_and(|there| Some(there) == bytes(frames, &name)))
}

/// Takes away what a process that was killed left half written.
pub(super) fn drop_leftovers(folder: &Path) {
    leftovers(folder).iter().for_each(|path| remove_any(path));
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    names(folder).into_iter().filter(|name| is_leftover(name)).map(|n| folder.join(n)).collect()
}

/// Takes away all that is of the run in `folder`, whose lock is held, and the folder.
pub(super) fn remove(id: &RunId, folder: &Path) -> Result<(), RunsError> {
    // Without its request it is no run any more: whoever is killed on the way leaves none that could
    // be mistaken for one that has just begun.
    remove_any(&folder.join(REQUEST));
    let ours = names(folder).into_iter().filter(|name| is_ours(name));
    ours.for_each(|name| remove_any(&folder.join(name)));
    let folder = folder.to_owned();
    if let Some(found) = foreign(&folder) {
        return Err(RunsError::ForeignFiles { id: id.clone(), folder, found });
    }
    fs::remove_dir(&folder).map_err(|source| RunsError::File {
        action: "remove",
        path: folder,
        source,
    })
}

/// A file that no run has put into `folder`.
fn foreign(folder: &Path) -> Option<String> {
    names(folder).into_iter().find(|name| !is_ours(name))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Takes away a file, or a folder with all that is in it; not what a link stands for.
pub(super) fn remove_any(path: &Path) {
    let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let _ = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// Bytes of a file, or of all files in a folder. A file that has another name elsewhere takes none by
/// itself.
pub(super) fn bytes_of(path: &Path) -> u64 {
    let Ok(found) = path.symlink_metadata() else { return 0 };
    if !found.is_dir() {
        return if has_other_names(&found) { 0 } else { found.len() };
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| bytes_of(&entry.path())).sum()
}

#[cfg(unix)]
fn has_other_names(file: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(file) > 1
}

#[cfg(not(unix))]
fn has_other_names(_: &fs::Metadata) -> bool {
    false
}
