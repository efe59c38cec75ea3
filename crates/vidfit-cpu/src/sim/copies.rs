//! The two queues that copy, each a thread that does what it is told in that order.

use super::config::{Direction, Draws, SimConfig};
use super::pages::{GARBAGE, GuardedPages};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vidfit_tensor::{HostBuffer, HostSource, Region};

/// A copy to be made.
pub(super) struct Job {
    /// Its number among those of its direction.
    pub number: u64,
    /// How many copies of each direction must have been done before.
    pub needs: [u64; 2],
    /// The card's end.
    pub pages: Arc<GuardedPages>,
    /// Where on the card, as addresses.
    pub range: Range<u64>,
    /// The host's end.
    pub host: Host,
    /// Whether it is to fail.
    pub is_doomed: bool,
}

/// The host's end of a copy.
pub(super) enum Host {
    Source(Arc<dyn HostSource>),
    Buffer(HostBuffer),
}

/// A copy that failed.
pub(super) struct Failure {
    pub direction: Direction,
    pub number: u64,
    /// Addresses.
    pub range: Range<u64>,
    pub what: String,
}

/// The two queues. Dropped with work under way, they leave it where it is.
pub(super) struct Copies {
    shared: Arc<Shared>,
    queues: [Sender<Job>; 2],
}

struct Shared {
    config: SimConfig,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// How many copies of each direction are done.
    done: [u64; 2],
    /// Those that failed, until somebody asks.
    failures: Vec<Failure>,
    /// Whether the device is gone.
    is_over: bool,
}

/// The device is gone, and nobody waits for the copies that are left.
struct Over;

impl Copies {
    /// Starts the threads.
    pub fn new(config: &SimConfig) -> std::io::Result<Copies> {
        let shared = Arc::new(Shared {
            config: config.clone(),
            progress: Mutex::default(),
            changed: Condvar::new(),
        });
        let start = |direction, name: &str| {
            let (sender, jobs) = channel();
            let shared = shared.clone();
            let body = move || drop(run(&shared, direction, &jobs));
            std::thread::Builder::new().name(name.into()).spawn(body).map(|_| sender)
        };
        let queues = [
            start(Direction::Upload, "vidfit-sim-upload")?,
            start(Direction::Download, "vidfit-sim-download")?,
        ];
        Ok(Copies { shared, queues })
    }

    /// Puts a copy at the end of its queue.
    pub fn begin(&self, direction: Direction, job: Job) {
        self.queues[direction as usize].send(job).expect("a queue ends with its device");
    }

    /// Waits until so many copies of each direction are done.
    pub fn wait(&self, copies: [u64; 2]) {
        // As long as there is a device to ask, it is not over.
        let _ = self.shared.wait(copies);
    }

    /// The failures since the last call.
    pub fn take_failures(&self) -> Vec<Failure> {
        std::mem::take(&mut self.shared.lock().failures)
    }
}

impl Drop for Copies {
    /// Tells the threads to end. They are not waited for: one may be held up by its source. What a
    /// copy works on stays alive with it.
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
    }
}

/// What a thread does until the device is gone.
fn run(shared: &Shared, direction: Direction, jobs: &Receiver<Job>) -> Result<(), Over> {
    for job in jobs {
        shared.wait(job.needs)?;
        let mut draws = Draws::new(shared.config.seed, 2 * job.number + direction as u64);
        shared.pause_until(Instant::now() + draws.duration(&shared.config.copy_delay))?;
        let doom = job.is_doomed.then(|| (draws.unit() * job.bytes() as f64) as u64);
        let result = job.copy(shared, doom)?;
        shared.pause_until(Instant::now() + draws.duration(&shared.config.copy_delay))?;
        // Whoever waits may count on it that nothing of the copy is held any more.
        let Job { number, range, host, pages, .. } = job;
        drop((host, pages));
        let failure = result.err().map(|what| Failure { direction, number, range, what });
        let mut progress = shared.lock();
        progress.failures.extend(failure);
        progress.done[direction as usize] = number;
        drop(progress);
        shared.changed.notify_all();
    }
    Ok(())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, copies: [u64; 2]) -> Result<(), Over> {
        let is_early =
            |p: &mut Progress| !p.is_over && (p.done[0] < copies[0] || p.done[1] < copies[1]);
        let waited = self.changed.wait_while(self.lock(), is_early);
        match waited.unwrap_or_else(PoisonError::into_inner).is_over {
            true => Err(Over),
            false => Ok(()),
        }
    }

    /// Waits for a time, unless it is over before.
    fn pause_until(&self, time: Instant) -> Result<(), Over> {
        let mut progress = self.lock();
        loop {
            let left = time.saturating_duration_since(Instant::now());
            match progress.is_over {
                true => return Err(Over),
                false if left.is_zero() => return Ok(()),
                false => {}
            }
            let waited = self.changed.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Job {
    fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Where in its pages the copy begins.
    fn first(&self) -> u64 {
        Region::of(self.range.start).1
    }

    /// Copies piece by piece, up to the byte where it is doomed to fail. A copy that fails leaves
    /// garbage at its destination, so that nobody gets by with what was there before.
    fn copy(&self, shared: &Shared, doom: Option<u64>) -> Result<Result<(), String>, Over> {
        let config = &shared.config;
        let speed = match self.host {
            Host::Source(_) => config.upload_bytes_per_second,
            Host::Buffer(_) => config.download_bytes_per_second,
        };
        let begin = Instant::now();
        let piece_bytes = config.piece_bytes as u64;
        let mut staging = vec![0; piece_bytes.min(self.bytes()) as usize];
        let mut first = 0;
        let mut result = Ok(());
        while result.is_ok() && first < self.bytes().min(doom.unwrap_or(u64::MAX)) {
            let len = piece_bytes.min(self.bytes() - first);
            let piece = &mut staging[..len as usize];
            // A source is foreign code: that it panics must not hold up the queue for ever.
            result = catch_unwind(AssertUnwindSafe(|| self.copy_piece(first, piece)))
                .unwrap_or_else(|_| Err("the source panicked".into()));
            first += len;
            let taken = speed.map_or(0.0, |speed| first as f64 / speed);
            shared.pause_until(begin + Duration::from_secs_f64(taken))?;
        }
        if let (Ok(()), Some(byte)) = (&result, doom) {
            result = Err(format!("simulated failure at byte {byte} of {}", self.bytes()));
        }
        if result.is_err() {
            self.leave_garbage(&mut staging);
        }
        Ok(result)
    }

    fn copy_piece(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        let at = self.first() + first;
        match &self.host {
            Host::Source(source) => {
                source.read(first, piece)?;
                // SAFETY: the checker has found this copy apart from all others and from the
                // computing, or the device lets it run alone, see `SimDevice`.
                unsafe { self.pages.write(at, piece) }
            }
            Host::Buffer(buffer) => {
                // SAFETY: as above.
                unsafe { self.pages.read(at, piece) }
                let first = first as usize;
                buffer.lock()[first..first + piece.len()].copy_from_slice(piece);
            }
        }
        Ok(())
    }

    fn leave_garbage(&self, staging: &mut [u8]) {
        match &self.host {
            Host::Source(_) => {
                staging.fill(GARBAGE);
                for first in (0..self.bytes()).step_by(staging.len().max(1)) {
                    let len = (staging.len() as u64).min(self.bytes() - first) as usize;
                    // SAFETY: as in `copy_piece`.
                    unsafe { self.pages.write(self.first() + first, &staging[..len]) }
                }
            }
            Host::Buffer(buffer) => buffer.lock()[..self.bytes() as usize].fill(GARBAGE),
        }
    }
}
