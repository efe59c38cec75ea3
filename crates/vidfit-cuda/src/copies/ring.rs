//! Pinned memory, in pieces that are used one after the other.

use crate::driver::{Driver, Event, Queue};
use std::ptr::NonNull;
use std::sync::Arc;

/// How many bytes are copied at once. A multiple of 64.
const PIECE_BYTES: usize = 1 << 20;

/// How many pieces are under way at once.
const PIECES: usize = 4;

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
    driver: Arc<dyn Driver>,
    queue: Queue,
    memory: NonNull<u8>,
    /// Behind the copy that uses each piece.
    used_until: [Option<Point>; PIECES],
    next: usize,
}

// SAFETY: the memory belongs to the ring alone.
unsafe impl Send for Ring {}

impl Ring {
    /// All of its memory.
    pub const BYTES: usize = PIECES * PIECE_BYTES;

    pub fn new(driver: Arc<dyn Driver>, queue: Queue) -> Result<Ring, String> {
        let memory = driver.pin(Ring::BYTES)?;
        Ok(Ring { driver, queue, memory, used_until: [const { None }; PIECES], next: 0 })
    }

    fn piece(&self, number: usize) -> NonNull<u8> {
        // SAFETY: within the memory, which has so many pieces.
        unsafe { self.memory.add(number * PIECE_BYTES) }
    }

    /// Waits until nothing uses a piece.
    fn settle(&mut self, number: usize) -> Result<(), String> {
        self.used_until[number].take().map_or(Ok(()), |point| point.wait())
    }

    /// Waits until nothing uses any piece. That a copy failed is said elsewhere.
    pub fn settle_all(&mut self) {
        for number in 0..PIECES {
            let _ = self.settle(number);
        }
    }

    /// Notes that a copy was begun that uses a piece; if that cannot be, waits for the queue.
    fn note_use(&mut self, number: usize) -> Result<(), String> {
        let point = Point::record(&self.driver, self.queue);
        match point {
            Ok(point) => self.used_until[number] = Some(point),
            Err(what) => {
                let _ = self.driver.finish();
                return Err(what);
            }
        }
        Ok(())
    }

    /// Copies `bytes` to `address`, piece after piece as `make` makes them, which is told where a piece
    /// begins. When this returns, the last of them may be under way.
    pub fn upload(
        &mut self,
        address: u64,
        bytes: u64,
        mut make: impl FnMut(u64, &mut [u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        for first in (0..bytes).step_by(PIECE_BYTES) {
            let number = self.next;
            self.next = (number + 1) % PIECES;
            self.settle(number)?;
            let len = (bytes - first).min(PIECE_BYTES as u64) as usize;
            let piece = self.piece(number);
            // SAFETY: initialised memory of the ring, and what used it is over.
            make(first, unsafe { std::slice::from_raw_parts_mut(piece.as_ptr(), len) })?;
            // SAFETY: pinned; it is not written before the event that is recorded next.
            unsafe { self.driver.begin_write(address + first, piece, len) }?;
            self.note_use(number)?;
        }
        Ok(())
    }

    /// Copies `bytes` from `address`, piece after piece, and hands each to `take` with where it begins.
    pub fn download(
        &mut self,
        address: u64,
        bytes: u64,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let len_at = |first: u64| (bytes - first).min(PIECE_BYTES as u64) as usize;
        let ahead = (PIECES * PIECE_BYTES) as u64;
        let mut begun = 0;
        for landed in (0..bytes).step_by(PIECE_BYTES) {
            while begun < bytes.min(landed + ahead) {
                let number = begun as usize / PIECE_BYTES % PIECES;
                // Before the first pass: another copy may have ended with an error.
                self.settle(number)?;
                // SAFETY: pinned, and not used before the event that is recorded next.
                unsafe {
                    self.driver.begin_read(address + begun, self.piece(number), len_at(begun))
                }?;
                self.note_use(number)?;
                begun += len_at(begun) as u64;
            }
            let number = landed as usize / PIECE_BYTES % PIECES;
            self.settle(number)?;
            let piece = self.piece(number).as_ptr();
            // SAFETY: initialised memory of the ring, and the copy to it is over.
            take(landed, unsafe { std::slice::from_raw_parts(piece, len_at(landed)) })?;
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.settle_all();
        // SAFETY: from `pin`, and nothing uses it any more.
        unsafe { self.driver.unpin(self.memory, Ring::BYTES) }
    }
}
