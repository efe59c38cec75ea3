//! Pinned memory, in pieces that are used one after the other.

use crate::driver::{Driver, Event, Queue};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes are copied at once. A multiple of 64.
const PIECE_BYTES: usize = 1 << 20;

/// Threads that fill pieces at once, where there is enough to fill: one copies from the page cache at
/// some 8 GB/s, and a fast bus takes four times that.
const READERS: usize = 4;

/// Pieces of each thread: one is filled while another is copied.
const PIECES_EACH: usize = 2;

/// Pieces that come back at once.
const PIECES_BACK: usize = 4;

/// A point in a queue, which the driver forgets with it.
pub(super) struct Point {
    driver: Arc<dyn Driver>,
    event: Event,
}

impl Point {
    /// The point behind everything that was asked of `queue` so far.
    pub fn record(driver: &Arc<dyn Driver>, queue: Queue) -> Result<Point, String> {
        Ok(Point { event: driver.record(queue)?, driver: driver.clone() })
    }

    /// Holds back what `queue` is asked for from now on until this is passed.
    pub fn hold_back(&self, queue: Queue) -> Result<(), String> {
        self.driver.hold_back(queue, self.event)
    }

    /// Waits until this is passed.
    pub fn wait(&self) -> Result<(), String> {
        self.driver.wait_for(self.event)
    }

    pub fn is_passed(&self) -> bool {
        // If the card has failed, whoever waits is told.
        self.driver.is_passed(self.event).unwrap_or(false)
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        self.driver.forget(self.event);
    }
}

/// The staging memory of one queue.
pub(super) struct Ring {
    memory: NonNull<u8>,
    pieces: Pieces,
}

// SAFETY: the memory belongs to the ring alone.
unsafe impl Send for Ring {}

/// Pieces of a ring that one thread has to itself.
struct Pieces {
    driver: Arc<dyn Driver>,
    queue: Queue,
    first: NonNull<u8>,
    /// Behind the copy that uses each piece.
    used_until: Vec<Option<Point>>,
}

// SAFETY: nobody else uses the memory meanwhile.
unsafe impl Send for Pieces {}

impl Ring {
    /// All memory of a ring for copies to the card.
    pub const UPLOAD_BYTES: usize = READERS * PIECES_EACH * PIECE_BYTES;
    /// All memory of a ring for copies from the card.
    pub const DOWNLOAD_BYTES: usize = PIECES_BACK * PIECE_BYTES;

    pub fn new(driver: Arc<dyn Driver>, queue: Queue) -> Result<Ring, String> {
        let bytes = match queue {
            Queue::Uploading => Ring::UPLOAD_BYTES,
            _ => Ring::DOWNLOAD_BYTES,
        };
        let memory = driver.pin(bytes)?;
        let used_until = (0..bytes / PIECE_BYTES).map(|_| None).collect();
        Ok(Ring { memory, pieces: Pieces { driver, queue, first: memory, used_until } })
    }

    /// Waits until nothing uses any piece. That a copy failed is said elsewhere.
    pub fn settle_all(&mut self) {
        for number in 0..self.pieces.used_until.len() {
            let _ = self.pieces.settle(number);
        }
    }

    /// Copies `bytes` to `address`, piece after piece as `make` makes them, which is told where a piece
    /// begins. It is asked by several threads at once. When this returns, the last pieces may be under
    /// way.
    pub fn upload(
        &mut self,
        address: u64,
        bytes: u64,
        make: impl Fn(u64, &mut [u8]) -> Result<(), String> + Sync,
    ) -> Result<(), String> {
        let readers = bytes.div_ceil(PIECE_BYTES as u64).min(READERS as u64) as usize;
        let (upload, make) = (&Upload::new(bytes), &make);
        if readers <= 1 {
            return self.pieces.upload(address, upload, make);
        }
        let mut shares = self.pieces.share(PIECES_EACH);
        let mut others = shares.split_off(1);
        let result = std::thread::scope(|scope| {
            let mut started = Vec::new();
            for pieces in &mut others[..readers - 1] {
                let body = || pieces.upload(address, upload, make);
                let reader = std::thread::Builder::new().name("vidfit-read".into());
                // Where the system has no more threads, fewer do it.
                started.extend(reader.spawn_scoped(scope, body));
            }
            let own = shares[0].upload(address, upload, make);
            started.into_iter().fold(own, |result, reader| {
                result.and(reader.join().unwrap_or_else(|_| Err("a reader panicked".into())))
            })
        });
        self.pieces.take_back(shares.into_iter().chain(others));
        result
    }

    /// Copies `bytes` from `address`, piece after piece, and hands each to `take` with where it begins.
    pub fn download(
        &mut self,
        address: u64,
        bytes: u64,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let pieces = &mut self.pieces;
        let len_at = |first: u64| (bytes - first).min(PIECE_BYTES as u64) as usize;
        let count = pieces.used_until.len();
        let mut begun = 0;
        for landed in (0..bytes).step_by(PIECE_BYTES) {
            while begun < bytes.min(landed + (count * PIECE_BYTES) as u64) {
                let number = begun as usize / PIECE_BYTES % count;
                // Before the first pass: another copy may have ended with an error.
                pieces.settle(number)?;
                let (from, to) = (address + begun, pieces.piece(number));
                // SAFETY: pinned, and not used before the event that is recorded next.
                unsafe { pieces.driver.begin_read(from, to, len_at(begun)) }?;
                pieces.note_use(number)?;
                begun += len_at(begun) as u64;
            }
            let number = landed as usize / PIECE_BYTES % count;
            pieces.settle(number)?;
            let piece = pieces.piece(number).as_ptr();
            // SAFETY: initialised memory of the ring, and the copy to it is over.
            take(landed, unsafe { std::slice::from_raw_parts(piece, len_at(landed)) })?;
        }
        Ok(())
    }
}

/// What is left to do of a copy to the card, for all who work on it.
struct Upload {
    bytes: u64,
    /// Where the next piece begins.
    next: AtomicU64,
}

impl Upload {
    fn new(bytes: u64) -> Upload {
        Upload { bytes, next: AtomicU64::new(0) }
    }

    /// Where a piece begins that nobody works on yet, and how long it is.
    fn take(&self) -> Option<(u64, usize)> {
        let first = self.next.fetch_add(PIECE_BYTES as u64, Ordering::Relaxed);
        let left = self.bytes.checked_sub(first).filter(|left| *left > 0)?;
        Some((first, left.min(PIECE_BYTES as u64) as usize))
    }

    /// Nobody takes another piece.
    fn end(&self) {
        self.next.store(self.bytes, Ordering::Relaxed);
    }
}

impl Pieces {
    fn piece(&self, number: usize) -> NonNull<u8> {
        // SAFETY: within the memory, which has so many pieces.
        unsafe { self.first.add(number * PIECE_BYTES) }
    }

    /// Waits until nothing uses a piece.
    fn settle(&mut self, number: usize) -> Result<(), String> {
        self.used_until[number].take().map_or(Ok(()), |point| point.wait())
    }

    /// Notes that a copy was begun that uses a piece; if that cannot be, waits for the queue.
    fn note_use(&mut self, number: usize) -> Result<(), String> {
        match Point::record(&self.driver, self.queue) {
            Ok(point) => self.used_until[number] = Some(point),
            Err(what) => {
                let _ = self.driver.finish();
                return Err(what);
            }
        }
        Ok(())
    }

    /// Hands the pieces out, so many each, until they are taken back.
    fn share(&mut self, each: usize) -> Vec<Pieces> {
        let mut used_until = std::mem::take(&mut self.used_until).into_iter();
        (0..used_until.len() / each)
            .map(|share| Pieces {
                driver: self.driver.clone(),
                queue: self.queue,
                first: self.piece(share * each),
                used_until: used_until.by_ref().take(each).collect(),
            })
            .collect()
    }

    /// Takes all shares back, in their order.
    fn take_back(&mut self, shares: impl Iterator<Item = Pieces>) {
        self.used_until = shares.flat_map(|share| share.used_until).collect();
    }

    /// Makes pieces and begins to copy them until none is left.
    fn upload(
        &mut self,
        address: u64,
        upload: &Upload,
        make: &(impl Fn(u64, &mut [u8]) -> Result<(), String> + Sync),
    ) -> Result<(), String> {
        let mut number = 0;
        while let Some((first, len)) = upload.take() {
            self.upload_piece(number, address + first, len, |piece| make(first, piece))
                .inspect_err(|_| upload.end())?;
            number = (number + 1) % self.used_until.len();
        }
        Ok(())
    }

    fn upload_piece(
        &mut self,
        number: usize,
        to: u64,
        len: usize,
        make: impl FnOnce(&mut [u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        self.settle(number)?;
        let piece = self.piece(number);
        // SAFETY: initialised memory of the ring, and what used it is over.
        make(unsafe { std::slice::from_raw_parts_mut(piece.as_ptr(), len) })?;
        // SAFETY: pinned; it is not written before the event that is recorded next.
        unsafe { self.driver.begin_write(to, piece, len) }?;
        self.note_use(number)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.settle_all();
        let bytes = self.pieces.used_until.len() * PIECE_BYTES;
        // SAFETY: from `pin`, and nothing uses it any more.
        unsafe { self.pieces.driver.unpin(self.memory, bytes) }
    }
}
