//! `vidfit work`: jobs of others, one after another, in a process of their own. It holds the device
//! from the first job on; when it ends, nothing of it is held.

mod desk;
mod job;
mod orders;

use crate::args::WorkArgs;
use crate::exit::Failure;
use crate::interrupt;
use crate::progress::{JobName, Shown};
use crate::say::line;
use crate::warm;
use desk::{Desk, Next};
use job::Bench;
use serde_json::{Value, json};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The file whose lock the worker holds.
const LOCK: &str = "worker.lock";

/// How often a lock that another worker holds is asked for.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Does what is asked for on standard input, until that ends.
///
/// # Errors
/// Bad input in the arguments or the settings; if there can be no lock.
pub fn run(args: &WorkArgs) -> Result<(), Failure> {
    let settings = args.warm.instead_of(warm::settings()?);
    let desk = Arc::new(Desk::default());
    let closing = desk.clone();
    interrupt::at_first(move || end_waiting(closing.close()))?;
    let reading = desk.clone();
    std::thread::spawn(move || orders::read(std::io::stdin().lock(), &reading));
    let Some(_lock) = lock(&args.queue_dir, &desk)? else { return Ok(()) };
    line!("{}", json!({ "event": "ready" }));

    let mut bench = Bench::new(&args.machine, settings);
    loop {
        match desk.next(bench.unload_idle(Instant::now())) {
            Next::Job(job) => {
                let result = bench.run(&job);
                desk.done();
                ended(job.name, result);
            }
            Next::Nothing => {}
            Next::Closed => return Ok(()),
        }
    }
}

/// Whether a worker of the queue in `folder` is there.
pub fn is_under_way(folder: &Path) -> bool {
    let lock = File::open(folder.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Takes the lock, once no other worker has it. None, if the desk is closed before.
fn lock(folder: &Path, desk: &Desk) -> Result<Option<File>, Failure> {
    let path = folder.join(LOCK);
    let failed = |error| Failure::other(format!("cannot lock {}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(failed)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if desk.is_closed() => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_TRIES),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// Tells how a job ended.
fn ended(name: JobName, result: Result<(), Failure>) {
    Shown::Job(name).event(end_of(result));
}

/// The last event of a job. `fault` is `machine` if the same job will do once there is room.
fn end_of(result: Result<(), Failure>) -> Value {
    let (code, message, fault) = match result {
        Ok(()) => (0, None, None),
        Err(Failure { code, message, is_machines, .. }) => {
            (code, Some(message), is_machines.then_some("machine"))
        }
    };
    json!({ "event": "ended", "code": code, "message": message, "fault": fault })
}

/// Tells that jobs ended that had not begun.
fn end_waiting(jobs: impl IntoIterator<Item = desk::Job>) {
    for job in jobs {
        ended(job.name, Err(Failure::interrupted()));
    }
}
