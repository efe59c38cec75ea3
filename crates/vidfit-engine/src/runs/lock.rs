//! One process at a time works on a run. The system releases its lock however it ends.

use super::clean::remove_any;
use super::{RunId, RunsError};
use crate::small_file::{open_regular, read_small};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// The file in a run's directory whose lock is held, and which names the process that holds it.
pub const LOCK: &str = "lock";

/// How long a lock is waited for: who only looks holds it for a moment.
const PATIENCE: Duration = Duration::from_millis(500);

/// Takes the lock of the run called `id` in `folder`, until the file is dropped.
///
/// # Errors
/// [`RunsError::Busy`] if another process has it, [`RunsError::Unknown`] if the run is gone.
pub fn take(id: &RunId, folder: &Path) -> Result<File, RunsError> {
    let path = folder.join(LOCK);
    let failed = |source| RunsError::File { action: "lock", path: path.clone(), source };
    let gone = || RunsError::Unknown {
        wanted: id.to_string(),
        folder: folder.parent().unwrap_or(folder).to_owned(),
    };
    // What is no file is no lock of ours: nobody holds it.
    if path.metadata().is_ok_and(|found| !found.is_file()) {
        remove_any(&path);
    }
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|source| match source.kind() {
        ErrorKind::NotFound => gone(),
        _ => failed(source),
    })?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(RunsError::Busy { id: id.clone(), pid: holder(folder) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    // Whoever had it may have taken the run away.
    if !path.exists() {
        return Err(gone());
    }
    // Told to others only; that it cannot be written is no reason to fail.
    let _ = file.set_len(0).and_then(|()| file.rewind());
    let _ = file.write_all(std::process::id().to_string().as_bytes());
    Ok(file)
}

/// Whether a process holds the lock of the run in `folder`.
pub fn is_held(folder: &Path) -> bool {
    let lock = open_regular(&folder.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The process that took the lock last.
pub fn holder(folder: &Path) -> Option<u32> {
    read_small(&folder.join(LOCK)).ok()?.parse().ok()
}
