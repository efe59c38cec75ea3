//! Copies that go on beside the computing: two threads, each with a queue of the card, and the fences.
//!
//! An upload is over for its thread once all of it was read into pinned memory and handed to the card:
//! from then on it is known that its source did not fail, and a point in the card's queue says when
//! it has arrived. A download is over once the host has everything. So whoever waits for a copy
//! waits on the host until its thread is done with it, and the rest of the way on the card.

mod ring;

use crate::driver::{Driver, Queue};
use crate::memory::{Held, Memory};
use ring::{Point, Ring};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use vidfit_tensor::{Fence, HostBuffer, HostSource, Tensor};

/// Pinned memory of the host that copies of both directions go through, in bytes.
pub(crate) const STAGING_BYTES: u64 = (Ring::UPLOAD_BYTES + Ring::DOWNLOAD_BYTES) as u64;

/// What a copy that was given up says: the device is gone, and nobody hears it.
const OVER: &str = "the device is gone";

/// The host's end of a copy.
pub(crate) enum HostEnd {
    /// An upload.
    Source(Arc<dyn HostSource>),
    /// A download.
    Buffer(HostBuffer),
}

/// The card's end of a copy.
pub(crate) struct CardEnd {
    address: u64,
    bytes: u64,
    /// What it lies in.
    _held: Arc<Held>,
}

impl CardEnd {
    pub fn of(tensor: &Tensor, memory: &Memory) -> CardEnd {
        let (addresses, held) = memory.place_of(tensor);
        CardEnd { address: addresses.start, bytes: tensor.bytes(), _held: held.clone() }
    }
}

struct Job {
    fence: u64,
    place: CardEnd,
    host: HostEnd,
    after: Vec<Fence>,
}

/// The two threads and the fences. Dropped with copies under way, it leaves them where they are.
pub(crate) struct Copies {
    shared: Arc<Shared>,
    uploads: Sender<Job>,
    downloads: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    driver: Arc<dyn Driver>,
    fences: Mutex<Fences>,
    changed: Condvar,
}

/// The fences that are not known to be passed, and those of copies that failed.
#[derive(Default)]
struct Fences {
    /// Fences so far.
    last: u64,
    /// Copies that their thread is not done with.
    begun: BTreeSet<u64>,
    /// Copies that failed, until somebody is told.
    failed: BTreeMap<u64, String>,
    /// Points in the computing queue.
    computing: BTreeMap<u64, Arc<Point>>,
    /// Points in the uploading queue.
    uploading: BTreeMap<u64, Arc<Point>>,
    /// The device is gone.
    is_over: bool,
}

/// Why a copy cannot be waited for.
pub(crate) enum Waiting {
    /// The copy failed.
    Copy(String),
    /// The card did.
    Card(String),
}

impl Copies {
    /// Starts the threads.
    pub fn new(driver: Arc<dyn Driver>) -> Result<Copies, String> {
        let fences = Mutex::default();
        let shared = Arc::new(Shared { driver, fences, changed: Condvar::new() });
        let start = |queue, name: &str| {
            let ring = Ring::new(shared.driver.clone(), queue)?;
            let (sender, jobs) = channel();
            let shared = shared.clone();
            let body = move || run(&shared, queue, ring, &jobs);
            let thread = std::thread::Builder::new().name(name.into()).spawn(body);
            let thread =
                thread.map_err(|error| format!("cannot start a thread for copies: {error}"))?;
            Ok::<_, String>((sender, thread))
        };
        let (uploads, uploading) = start(Queue::Uploading, "vidfit-upload")?;
        let (downloads, downloading) = start(Queue::Downloading, "vidfit-download")?;
        Ok(Copies { shared, uploads, downloads, threads: vec![uploading, downloading] })
    }

    /// A fence behind all computing asked for so far.
    pub fn fence(&self) -> Result<Fence, String> {
        let point = Arc::new(Point::record(&self.shared.driver, Queue::Computing)?);
        let mut fences = self.shared.lock();
        fences.forget_passed();
        let number = fences.next();
        fences.computing.insert(number, point);
        Ok(Fence::new(number))
    }

    /// Puts a copy at the end of its queue.
    pub fn begin(&self, place: CardEnd, host: HostEnd, after: &[Fence]) -> Fence {
        let queue = match host {
            HostEnd::Source(_) => &self.uploads,
            HostEnd::Buffer(_) => &self.downloads,
        };
        // Sent with the lock held, so that a copy waits only for such as were begun before it.
        let mut fences = self.shared.lock();
        fences.forget_passed();
        let fence = fences.next();
        fences.begun.insert(fence);
        let job = Job { fence, place, host, after: after.to_vec() };
        queue.send(job).expect("a thread ends with its device");
        Fence::new(fence)
    }

    /// Holds back the computing until `fence` is passed.
    pub fn wait(&self, fence: Fence) -> Result<(), Waiting> {
        // As long as there is a device to ask, it is not over.
        let _ = self.shared.wait_while(|fences| fences.begun.contains(&fence.number()));
        let mut fences = self.shared.lock();
        if let Some(what) = fences.failed.remove(&fence.number()) {
            return Err(Waiting::Copy(what));
        }
        let point = fences.uploading.get(&fence.number()).cloned();
        drop(fences);
        point.map_or(Ok(()), |point| point.hold_back(Queue::Computing)).map_err(Waiting::Card)
    }

    /// Waits until the threads are done with everything that was begun so far.
    pub fn settle(&self) {
        let last = self.shared.lock().last;
        let is_early = |fences: &Fences| fences.begun.first().is_some_and(|first| *first <= last);
        let _ = self.shared.wait_while(is_early);
    }
}

impl Drop for Copies {
    /// Tells the threads to end. With a copy under way they are not waited for: its source may hold it
    /// up, and what it works on stays alive with it. Else they are, so that what they have of the card is
    /// given back here, and not beside the end of the process, when libraries are half gone.
    fn drop(&mut self) {
        let mut fences = self.shared.lock();
        fences.is_over = true;
        let is_idle = fences.begun.is_empty();
        drop(fences);
        self.shared.changed.notify_all();
        // A thread ends once nobody can ask it for copies.
        let (nobody, _) = channel();
        (self.uploads, self.downloads) = (nobody.clone(), nobody);
        for thread in self.threads.drain(..).filter(|_| is_idle) {
            if thread.thread().id() != std::thread::current().id() {
                // That it panicked, whoever waited for its copies has seen.
                let _ = thread.join();
            }
        }
    }
}

impl Fences {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Lets go of the points that are passed. Those of one queue are passed in their order.
    fn forget_passed(&mut self) {
        for points in [&mut self.computing, &mut self.uploading] {
            while points.first_entry().is_some_and(|first| first.get().is_passed()) {
                points.pop_first();
            }
        }
    }

    fn point(&self, fence: Fence) -> Option<Arc<Point>> {
        let number = fence.number();
        self.computing.get(&number).or_else(|| self.uploading.get(&number)).cloned()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Fences> {
        self.fences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, is_early: impl Fn(&Fences) -> bool) -> Result<(), String> {
        let waited = self.changed.wait_while(self.lock(), |f| !f.is_over && is_early(f));
        match waited.unwrap_or_else(PoisonError::into_inner).is_over {
            true => Err(OVER.into()),
            false => Ok(()),
        }
    }

    /// Holds back `queue` until all of `after` are passed.
    fn come_after(&self, after: &[Fence], queue: Queue) -> Result<(), String> {
        for &fence in after {
            // A copy must be handed to the card before the card can be told to wait for it.
            self.wait_while(|fences| fences.begun.contains(&fence.number()))?;
            let point = self.lock().point(fence);
            point.map_or(Ok(()), |point| point.hold_back(queue))?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.lock().is_over { Err(OVER.into()) } else { Ok(()) }
    }
}

/// What a thread does until the device is gone.
fn run(shared: &Shared, queue: Queue, mut ring: Ring, jobs: &Receiver<Job>) {
    for job in jobs {
        let result = copy(shared, queue, &mut ring, &job);
        if result.is_err() {
            // Whoever is told of the failure may count on it that nothing of the copy is under way.
            ring.settle_all();
        }
        let Job { fence, place, host, .. } = job;
        // Nor is anything of it held any more by whoever waits for its end.
        drop((host, place));
        let mut fences = shared.lock();
        match result {
            Ok(None) => {}
            Ok(Some(point)) => {
                fences.uploading.insert(fence, Arc::new(point));
            }
            Err(what) => {
                fences.failed.insert(fence, what);
            }
        }
        fences.begun.remove(&fence);
        let is_over = fences.is_over;
        drop(fences);
        shared.changed.notify_all();
        if is_over {
            return;
        }
    }
}

/// Makes a copy, and returns the point where it is done, if that is not now.
fn copy(
    shared: &Shared,
    queue: Queue,
    ring: &mut Ring,
    job: &Job,
) -> Result<Option<Point>, String> {
    shared.come_after(&job.after, queue)?;
    let CardEnd { address, bytes, .. } = job.place;
    match &job.host {
        HostEnd::Source(source) => {
            ring.upload(address, bytes, |first, piece| {
                shared.check()?;
                // A source is foreign code: that it panics must not hold up the queue for ever.
                catch_unwind(AssertUnwindSafe(|| source.read(first, piece)))
                    .unwrap_or_else(|_| Err("the source panicked".into()))
            })?;
            let point = Point::record(&shared.driver, queue)?;
            // On Windows, asking is what hands the card what was asked of it so far.
            point.is_passed();
            Ok(Some(point))
        }
        HostEnd::Buffer(buffer) => {
            ring.download(address, bytes, |first, piece| {
                shared.check()?;
                let first = first as usize;
                buffer.lock()[first..first + piece.len()].copy_from_slice(piece);
                Ok(())
            })?;
            Ok(None)
        }
    }
}
