//! Copies between the host and the device that go on beside the computing.
//!
//! A device has three queues: one that computes, one that copies to the device and one that copies
//! from it. Each does its work in the order in which it was asked for. A [`Fence`] is a point in a
//! queue; another queue can be told to wait for it. Nothing else orders the queues, so whoever
//! starts a copy also says what it must come after, and what must come after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A point in one of a device's queues. It is passed once all work that was asked of the queue
/// before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fence(u64);

impl Fence {
    /// The fence that a device knows by `number`.
    pub fn new(number: u64) -> Fence {
        Fence(number)
    }

    /// What the device knows it by.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// What has gone between a device and the host since the device was made, by whatever way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes to the device.
    pub uploaded_bytes: u64,
    /// Bytes from the device.
    pub downloaded_bytes: u64,
}

/// Bytes on the host that a device can be given: read, and converted if need be, piece by piece.
///
/// Pieces are read by threads of the device while the host goes on: several at once, and not always in
/// their order.
pub trait HostSource: Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the bytes from `first` on into `piece`. `first` and the length of `piece` are
    /// multiples of 64, but for the end.
    ///
    /// # Errors
    /// What happened, in words.
    fn read(&self, first: u64, piece: &mut [u8]) -> Result<(), String>;

    /// The buffer that the bytes lie in, if they do. For devices that check in which order a
    /// buffer is written and read.
    fn buffer(&self) -> Option<&HostBuffer> {
        None
    }
}

/// Host memory that a job has planned: what was computed on the device and waits there for its
/// next use.
#[derive(Clone)]
pub struct HostBuffer {
    shared: Arc<Shared>,
}

struct Shared {
    number: u64,
    len: u64,
    bytes: Mutex<Vec<u8>>,
    /// Ends the buffer's life in the books of its arena.
    _life: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl HostBuffer {
    /// A buffer of `len` zero bytes, or one without memory for a dry run. `life` is dropped with
    /// the last handle.
    pub(crate) fn new(
        len: u64,
        is_dry: bool,
        life: Option<Box<dyn std::any::Any + Send + Sync>>,
    ) -> Result<HostBuffer, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut bytes = Vec::new();
        if !is_dry {
            let wanted = usize::try_from(len).map_err(|error| error.to_string())?;
            bytes.try_reserve_exact(wanted).map_err(|error| error.to_string())?;
            bytes.resize(wanted, 0);
        }
        let shared = Shared { number, len, bytes: Mutex::new(bytes), _life: life };
        Ok(HostBuffer { shared: Arc::new(shared) })
    }

    /// Tells this buffer from all others of the process, also from those that are gone.
    pub fn number(&self) -> u64 {
        self.shared.number
    }

    /// How many bytes it holds.
    pub fn len(&self) -> u64 {
        self.shared.len
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes. Empty in a dry run.
    pub fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.shared.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HostSource for HostBuffer {
    fn len(&self) -> u64 {
        self.shared.len
    }

    fn read(&self, first: u64, piece: &mut [u8]) -> Result<(), String> {
        let first = first as usize;
        piece.copy_from_slice(&self.lock()[first..first + piece.len()]);
        Ok(())
    }

    fn buffer(&self) -> Option<&HostBuffer> {
        Some(self)
    }
}
