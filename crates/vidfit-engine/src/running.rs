//! Jobs that run now. Each says in a small file what it is and how far it has come, so that other
//! programs of the same user can tell; nothing here ever ends a job.
//!
//! A job that was killed cannot take its file away. So each holds a lock on a second file for as
//! long as it lives, which the system releases however it ends: a record whose lock is free is of
//! a job that is gone, whatever runs under its process id by now.

use crate::folders::Folders;
use crate::progress::Progress;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a job is. Nothing of it changes while it runs but what it has reserved, if it is planned again.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunningJob {
    /// The model, as people name it.
    pub model: String,
    /// The device, as the command line spells it.
    pub device: String,
    /// What it has reserved on the device.
    pub arena_bytes: u64,
    /// Where the video will be.
    pub output: Option<PathBuf>,
}

/// How far a job has come.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunningState {
    /// The phase, such as `denoise`; empty before the first.
    pub phase: String,
    /// Steps of the phase that are done.
    pub step: Option<usize>,
    /// Steps of the phase.
    pub steps: Option<usize>,
    /// How much of the phase is done, from 0 to 1.
    pub fraction: f64,
    /// Seconds that the rest of the phase will take.
    pub seconds_left: Option<f64>,
}

/// What is known of a running job.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunningRecord {
    /// Its process.
    pub pid: u32,
    /// When it began, in seconds since 1970.
    pub started_unix_seconds: u64,
    /// What it is.
    #[serde(flatten)]
    pub job: RunningJob,
    /// How far it has come.
    #[serde(flatten)]
    pub state: RunningState,
}

/// This process's record of a job. Dropping it takes the record away.
pub struct Running {
    record: RunningRecord,
    path: PathBuf,
    written: Instant,
    /// The least time between two writes within a phase.
    between_writes: Duration,
    /// Held, not read: see above.
    _lock: File,
}

/// [`Running::between_writes`], of every job outside of tests.
const BETWEEN_WRITES: Duration = Duration::from_millis(500);

/// How long a lock without a record is left alone: its job may be about to write the record.
const GRACE: Duration = Duration::from_secs(60);

impl Running {
    /// Tells others of a job that begins. `None` if that is not possible, which does the job no
    /// harm.
    pub fn start(job: RunningJob) -> Option<Running> {
        Running::start_in(&Folders::from_env().running, job)
    }

    /// As [`start`](Self::start), in a folder.
    pub fn start_in(folder: &Path, job: RunningJob) -> Option<Running> {
        std::fs::create_dir_all(folder).ok()?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let pid = std::process::id();
        // The nanoseconds tell jobs of one process apart, and of processes that share an id.
        let path = folder.join(format!("{pid}-{}.json", since_1970.as_nanos()));
        let lock = File::create_new(lock_of(&path)).ok()?;
        let started_unix_seconds = since_1970.as_secs();
        let state = RunningState::default();
        let record = RunningRecord { pid, started_unix_seconds, job, state };
        let (written, between_writes) = (Instant::now(), BETWEEN_WRITES);
        let running = Running { record, path, written, between_writes, _lock: lock };
        // From here on, dropping takes away what is there.
        // A reader may hold the lock for the moment of its look.
        running._lock.lock().ok()?;
        running.write().ok()?;
        Some(running)
    }

    /// Notes news of the run.
    pub fn hear(&mut self, news: &Progress) {
        let state = match news {
            Progress::PhaseBegan { phase, steps } => RunningState {
                phase: (*phase).to_owned(),
                step: steps.map(|_| 0),
                steps: *steps,
                fraction: 0.0,
                seconds_left: None,
            },
            Progress::Advanced { phase, steps_done, fraction, time_left } => RunningState {
                phase: (*phase).to_owned(),
                step: self.record.state.steps.map(|_| *steps_done),
                steps: self.record.state.steps,
                fraction: *fraction,
                seconds_left: time_left.map(|time| time.as_secs_f64()),
            },
            Progress::PlannedAgain { device_bytes, .. } => {
                self.record.job.arena_bytes = *device_bytes;
                return self.write_now();
            }
            Progress::PhaseEnded { .. } => return,
        };
        self.update(state);
    }

    /// Notes how far the job has come. Within a phase it is written twice a second at most.
    pub fn update(&mut self, state: RunningState) {
        let same_phase = state.phase == self.record.state.phase;
        self.record.state = state;
        if !same_phase || self.written.elapsed() >= self.between_writes {
            self.write_now();
        }
    }

    fn write_now(&mut self) {
        self.written = Instant::now();
        // A full disk is no reason to end a job; the next write may succeed.
        let _ = self.write();
    }

    /// Replaces the record: a reader sees the old one or the new one, whole.
    fn write(&self) -> std::io::Result<()> {
        let text = serde_json::to_string(&self.record)?;
        let part = part_of(&self.path);
        File::create(&part).and_then(|mut file| file.write_all(text.as_bytes()))?;
        std::fs::rename(part, &self.path)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn lock_of(record: &Path) -> PathBuf {
    record.with_extension("lock")
}

fn part_of(record: &Path) -> PathBuf {
    record.with_extension("part")
}

/// Takes a record away, and its lock last: as long as that is there, the rest can be found.
fn remove(record: &Path) {
    for path in [part_of(record), record.to_owned(), lock_of(record)] {
        let _ = std::fs::remove_file(path);
    }
}

/// The jobs of this user that run now, the oldest first. Takes away what jobs that are gone have
/// left.
pub fn list() -> Vec<RunningRecord> {
    let folders = Folders::from_env();
    // A job without a session, such as one that a timer started, has no run-time folder.
    let mut places = vec![folders.state.join("running"), folders.running];
    places.dedup();
    let mut records: Vec<RunningRecord> = places.iter().flat_map(|place| list_in(place)).collect();
    records.sort_by_key(|record| (record.started_unix_seconds, record.pid));
    records
}

/// As [`list`], of one folder.
pub fn list_in(folder: &Path) -> Vec<RunningRecord> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let locks = paths.filter(|path| path.extension().is_some_and(|extension| extension == "lock"));
    let mut records: Vec<RunningRecord> = locks.filter_map(|lock| read(&lock)).collect();
    records.sort_by_key(|record| (record.started_unix_seconds, record.pid));
    records
}

/// The record of the job that holds a lock. If nobody does, takes both away.
fn read(lock: &Path) -> Option<RunningRecord> {
    let path = lock.with_extension("json");
    match File::open(lock).ok()?.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
        }
        Ok(()) => {
            let age = lock.metadata().and_then(|file| file.modified()).ok()?.elapsed();
            if path.exists() || age.is_ok_and(|age| age > GRACE) {
                remove(&path);
            }
            None
        }
        // A file system without locks tells nothing.
        Err(TryLockError::Error(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> RunningJob {
        RunningJob {
            model: "CogVideoX-5b".into(),
            device: "cpu".into(),
            arena_bytes: 1 << 30,
            output: Some("panda.mp4".into()),
        }
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    fn advanced(steps_done: usize) -> Progress {
        let time_left = Some(Duration::from_secs(90));
        Progress::Advanced { phase: "denoise", steps_done, fraction: 0.5, time_left }
    }

    #[test]
    fn a_job_is_seen_while_it_runs_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("made/for/it");
        assert_eq!(list_in(&place), []);
        let running = Running::start_in(&place, job()).unwrap();
        let second = Running::start_in(&place, job()).unwrap();
        let records = list_in(&place);
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].pid, std::process::id());
        assert_eq!(records[0].job, job());
        assert_eq!(records[0].state, RunningState::default());
        drop(running);
        assert_eq!(list_in(&place).len(), 1);
        drop(second);
        assert_eq!(files(&place), 0);
    }

    #[test]
    fn news_are_written_twice_a_second_at_most_but_phases_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut running = Running::start_in(folder.path(), job()).unwrap();
        let state = || list_in(folder.path()).remove(0).state;
        // However slow this machine is: too soon, until the test says otherwise.
        assert_eq!(running.between_writes, Duration::from_millis(500));
        running.between_writes = Duration::MAX;
        running.hear(&Progress::PhaseBegan { phase: "denoise", steps: Some(50) });
        assert_eq!(
            (state().phase.as_str(), state().step, state().steps),
            ("denoise", Some(0), Some(50))
        );
        running.hear(&advanced(1));
        assert_eq!(state().step, Some(0), "too soon after the phase");
        running.between_writes = Duration::ZERO;
        running.hear(&advanced(2));
        let expected = RunningState {
            phase: "denoise".into(),
            step: Some(2),
            steps: Some(50),
            fraction: 0.5,
            seconds_left: Some(90.0),
        };
        assert_eq!(state(), expected);
        running.hear(&Progress::PhaseBegan { phase: "decode", steps: None });
        assert_eq!(state(), RunningState { phase: "decode".into(), ..RunningState::default() });
    }

    #[test]
    fn what_a_job_reserves_is_told_again_if_it_is_planned_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut running = Running::start_in(folder.path(), job()).unwrap();
        running.between_writes = Duration::MAX;
        running.hear(&Progress::PlannedAgain { planned_bytes: 1 << 30, device_bytes: 3 << 28 });
        let record = list_in(folder.path()).remove(0);
        assert_eq!(record.job, RunningJob { arena_bytes: 3 << 28, ..job() });
        assert_eq!(record.state, RunningState::default());
    }

    /// A record with a process id that is alive, but whose job is gone.
    #[test]
    fn a_reused_process_id_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start_in(folder.path(), job()).unwrap();
        let text = std::fs::read_to_string(&running.path).unwrap();
        let stale = folder.path().join(format!("{}-1.json", std::process::id()));
        std::fs::write(&stale, &text).unwrap();
        std::fs::write(lock_of(&stale), "").unwrap();
        std::fs::write(part_of(&stale), "{").unwrap();
        assert_eq!(list_in(folder.path()).len(), 1);
        assert_eq!(files(folder.path()), 2, "the record and the lock of the one that runs");
        assert_eq!(list_in(folder.path()), std::slice::from_ref(&running.record));
    }

    /// Not a test: the process that the next test kills.
    #[test]
    #[ignore = "runs until it is killed"]
    fn a_job_until_it_is_killed() {
        let Some(folder) = std::env::var_os("VIDFIT_TEST_RUNNING") else { return };
        let _running = Running::start_in(Path::new(&folder), job()).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn a_job_that_is_killed_is_gone_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "running::tests::a_job_until_it_is_killed"])
            .env("VIDFIT_TEST_RUNNING", folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while list_in(folder.path()).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30), "the other process never began");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(list_in(folder.path())[0].pid, child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(files(folder.path()), 2, "a killed job cannot take its record away");
        assert_eq!(list_in(folder.path()), []);
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn a_lock_without_a_record_is_left_alone_at_first() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("1-1.lock");
        let file = File::create(&lock).unwrap();
        assert_eq!(list_in(folder.path()), []);
        assert!(lock.exists(), "its job may be about to begin");
        file.set_modified(SystemTime::now() - GRACE * 2).unwrap();
        assert_eq!(list_in(folder.path()), []);
        assert!(!lock.exists());
    }

    #[test]
    fn foreign_files_and_broken_records_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start_in(folder.path(), job()).unwrap();
        std::fs::write(&running.path, "{\"pid\":").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        assert_eq!(list_in(folder.path()), []);
        drop(running);
        assert_eq!(files(folder.path()), 1);
    }

    #[test]
    fn a_job_that_cannot_be_told_of_runs_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Running::start_in(&file, job()).is_none());
        // The folder goes away under a job.
        let place = folder.path().join("place");
        let mut running = Running::start_in(&place, job()).unwrap();
        std::fs::remove_dir_all(&place).unwrap();
        running.hear(&Progress::PhaseBegan { phase: "text", steps: None });
    }
}
