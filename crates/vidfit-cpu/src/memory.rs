//! The arena of the CPU device.

use crate::element::{Sink, Source};
use crate::workers::{SCRATCH_ELEMENTS, Scratch};
use memmap2::MmapMut;
use vidfit_tensor::{Place, Tensor};

/// One reservation: the tensors' bytes, and behind them the workers' scratch.
pub(crate) struct Reservation {
    /// Held for its drop: unmaps the pages.
    _pages: MmapMut,
    first: *mut u8,
    tensor_bytes: u64,
    threads: usize,
}

// SAFETY: the pointer is to pages this value owns; who writes where is the arena's business.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Reservation {
    pub fn new(tensor_bytes: u64, threads: usize) -> std::io::Result<Reservation> {
        let tensor_bytes = tensor_bytes.next_multiple_of(4096);
        let scratch_bytes = (threads * SCRATCH_ELEMENTS * size_of::<f32>()) as u64;
        let bytes = usize::try_from(tensor_bytes + scratch_bytes)
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
        let mut pages = MmapMut::map_anon(bytes)?;
        Ok(Reservation { first: pages.as_mut_ptr(), _pages: pages, tensor_bytes, threads })
    }

    pub fn scratch(&self) -> Scratch {
        // SAFETY: the scratch lies behind the tensors in the same pages.
        let first = unsafe { self.first.add(self.tensor_bytes as usize) };
        Scratch { first: first.cast(), threads: self.threads }
    }

    /// Fills a range with NaN in every element type.
    pub fn poison(&self, offset: u64, bytes: u64) {
        assert!(offset + bytes <= self.tensor_bytes);
        // SAFETY: inside the pages by the assertion; the range belongs to no living tensor.
        unsafe { self.first.add(offset as usize).write_bytes(0xff, bytes as usize) }
    }

    /// The elements of `tensor`, to read.
    pub fn source(&self, tensor: &Tensor) -> Source {
        let first = match tensor.place() {
            Place::Arena(life) => self.at(life.offset(), tensor).cast_const(),
            // SAFETY: `Tensor::from_host` checked the length.
            Place::Host(host) => unsafe { host.bytes().as_ptr().add(tensor.first_byte() as usize) },
            Place::Nowhere => panic!("a weight without elements in a real run"),
        };
        assert!(first.addr().is_multiple_of(tensor.dtype().bytes() as usize), "misaligned tensor");
        // SAFETY: in bounds by `at` or `Tensor::from_host`, aligned by the assertion, and alive as
        // long as the tensor's handle, which the caller holds for the whole operation.
        unsafe { Source::new(first, tensor.shape().elements(), tensor.dtype()) }
    }

    /// The elements of `tensor`, to write.
    pub fn sink(&self, tensor: &mut Tensor) -> Sink {
        let Place::Arena(life) = tensor.place() else {
            panic!("only tensors in the arena can be written");
        };
        let first = self.at(life.offset(), tensor);
        // SAFETY: as in `source`.
        unsafe { Sink::new(first, tensor.shape().elements(), tensor.dtype()) }
    }

    fn at(&self, offset: u64, tensor: &Tensor) -> *mut u8 {
        let start = offset + tensor.first_byte();
        assert!(start + tensor.bytes() <= self.tensor_bytes, "a tensor outside the arena");
        // SAFETY: inside the pages by the assertion.
        unsafe { self.first.add(start as usize) }
    }
}
