//! The memory of the CPU device: the job's arena, and what stays beyond it.

use crate::element::{Sink, Source};
use crate::sim::GuardedPages;
use crate::workers::{Scratch, scratch_bytes};
use memmap2::{MmapMut, MmapOptions};
use std::collections::BTreeMap;
use std::sync::Arc;
use vidfit_tensor::{Life, Place, Region, Tensor};

/// Tensors, and the scratch behind them, begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 64;

/// All reservations of a device.
#[derive(Default)]
pub(crate) struct Memory {
    /// By their regions; the job's arena is the first.
    regions: BTreeMap<Region, Reservation>,
    /// Warm regions so far.
    last: Option<Region>,
}

impl Memory {
    /// Makes this the job's arena.
    pub fn hold(&mut self, reservation: Reservation) {
        self.regions.insert(Region::ARENA, reservation);
    }

    /// Gives the job's arena back.
    pub fn let_go(&mut self) {
        self.regions.remove(&Region::ARENA);
    }

    /// A region that there has not been yet, if any is left.
    pub fn next_region(&mut self) -> Option<Region> {
        self.last = Some(self.last.unwrap_or(Region::ARENA).next()?);
        self.last
    }

    pub fn hold_warm(&mut self, region: Region, reservation: Reservation) {
        self.regions.insert(region, reservation);
    }

    pub fn let_go_warm(&mut self, region: Region) {
        if region != Region::ARENA {
            self.regions.remove(&region);
        }
    }

    pub fn arena(&self) -> &Reservation {
        self.regions.get(&Region::ARENA).expect("an operation before the arena was reserved")
    }

    /// The elements of `tensor`, to read.
    pub fn source(&self, tensor: &Tensor) -> Source {
        let first = match tensor.place() {
            Place::Arena(_) => self.of(tensor).first_of(tensor).cast_const(),
            Place::Host(host) => {
                let bytes = &host.bytes()[tensor.first_byte() as usize..];
                bytes[..tensor.bytes() as usize].as_ptr()
            }
            Place::Nowhere => panic!("a weight without elements in a real run"),
        };
        assert_aligned(first, tensor);
        // SAFETY: in bounds by `first_of` or by slicing, aligned by the assertion, of a type that
        // has every pattern of bits. The pages are mapped as long as the session holds this value,
        // and host memory stays as long as the tensor's handle, which the operation borrows.
        unsafe { Source::new(first, tensor.shape().elements(), tensor.dtype()) }
    }

    /// The reservation that a tensor lies in.
    pub fn of(&self, tensor: &Tensor) -> &Reservation {
        match life_of(tensor).region() {
            Region::ARENA => self.arena(),
            warm => self.regions.get(&warm).expect("a tensor whose region was given back"),
        }
    }
}

/// One reservation: the tensors' bytes, and the workers' scratch.
pub(crate) struct Reservation {
    /// Held for their drop: unmaps the pages.
    _pages: MmapMut,
    _guarded: Option<Arc<GuardedPages>>,
    first: *mut u8,
    tensor_bytes: u64,
    scratch: Scratch,
}

// SAFETY: the pointers are to pages this value owns. They are written through `Sink`, `Scratch` and
// `poison` only, by one operation at a time, see `CpuDevice`; guarded ones also by copies, which
// are kept apart from operations, see `SimDevice`.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Takes the memory at once. On Linux an anonymous map costs nothing until a page is touched,
    /// and a machine that has promised more than it has ends the process then; so every page is
    /// touched here, before hours of work, and none is left to be had later. Windows commits its
    /// maps by itself; other systems give pages as they are touched.
    pub fn new(tensor_bytes: u64, threads: usize) -> std::io::Result<Reservation> {
        assert!(tensor_bytes.is_multiple_of(ALIGNMENT), "{tensor_bytes} bytes for tensors");
        let bytes = tensor_bytes
            .checked_add(scratch_bytes(threads))
            .and_then(|bytes| usize::try_from(bytes).ok())
            .ok_or(std::io::ErrorKind::OutOfMemory)?;
        let mut pages = MmapOptions::new().len(bytes).populate().map_anon()?;
        let first = pages.as_mut_ptr();
        // SAFETY: the scratch lies behind the tensors in the same pages.
        let scratch = unsafe { first.add(tensor_bytes as usize) };
        let scratch = Scratch { first: scratch.cast(), threads };
        Ok(Reservation { first, _pages: pages, _guarded: None, tensor_bytes, scratch })
    }

    /// Tensors between guard pages, and the scratch elsewhere, so that it does not hide what is
    /// done behind the tensors.
    pub fn guarded(guarded: Arc<GuardedPages>, threads: usize) -> std::io::Result<Reservation> {
        let bytes = scratch_bytes(threads) as usize;
        // A warm region has no scratch, and a map of nothing is none.
        let mut pages = MmapOptions::new().len(bytes.max(1)).populate().map_anon()?;
        let scratch = Scratch { first: pages.as_mut_ptr().cast(), threads };
        let (first, tensor_bytes) = (guarded.first(), guarded.bytes());
        Ok(Reservation { first, _pages: pages, _guarded: Some(guarded), tensor_bytes, scratch })
    }

    pub fn scratch(&self) -> Scratch {
        self.scratch
    }

    /// Fills a range with NaN in every element type.
    pub fn poison(&self, offset: u64, bytes: u64) {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.tensor_bytes));
        // SAFETY: inside the pages by the assertion; every pattern of bits is an element of every
        // type, and no operation is under way.
        unsafe { self.first.add(offset as usize).write_bytes(0xff, bytes as usize) }
    }

    /// The elements of `tensor`, to write.
    pub fn sink(&self, tensor: &mut Tensor) -> Sink {
        let first = self.first_of(tensor);
        assert_aligned(first, tensor);
        // SAFETY: as in `Memory::source`, and pages may be written.
        unsafe { Sink::new(first, tensor.shape().elements(), tensor.dtype()) }
    }

    /// The bytes of a tensor in the arena, to read.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        let first = self.first_of(tensor);
        // SAFETY: in bounds by `first_of`; the pages are mapped as long as this is borrowed, and no
        // operation writes them meanwhile, see `CpuDevice`.
        unsafe { std::slice::from_raw_parts(first, tensor.bytes() as usize) }
    }

    /// The bytes of a tensor in the arena, to write.
    #[allow(clippy::mut_from_ref)] // One operation at a time, see `CpuDevice`.
    pub fn bytes_mut(&self, tensor: &mut Tensor) -> &mut [u8] {
        let first = self.first_of(tensor);
        // SAFETY: as in `bytes`, and the one operation under way takes this slice alone.
        unsafe { std::slice::from_raw_parts_mut(first, tensor.bytes() as usize) }
    }

    /// Where a tensor of this region begins.
    fn first_of(&self, tensor: &Tensor) -> *mut u8 {
        let start = life_of(tensor).offset().checked_add(tensor.first_byte());
        let end = start.and_then(|start| start.checked_add(tensor.bytes()));
        match (start, end) {
            // SAFETY: inside the pages by the condition.
            (Some(start), Some(end)) if end <= self.tensor_bytes => unsafe {
                self.first.add(start as usize)
            },
            _ => panic!("a tensor outside the arena"),
        }
    }
}

/// The life of a tensor's memory on the device.
fn life_of(tensor: &Tensor) -> &Life {
    match tensor.place() {
        Place::Arena(life) => life,
        _ => panic!("only tensors in the arena can be written, and copied by bytes"),
    }
}

fn assert_aligned(first: *const u8, tensor: &Tensor) {
    assert!(first.addr().is_multiple_of(tensor.dtype().bytes() as usize), "misaligned tensor");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_begins_right_behind_the_tensors() {
        let reservation = Reservation::new(3 * ALIGNMENT, 2).unwrap();
        assert_eq!(reservation.scratch().first.addr() - reservation.first.addr(), 192);
        assert_eq!(reservation._pages.len() as u64, 192 + scratch_bytes(2));
    }

    #[test]
    fn more_than_there_can_be_is_an_error() {
        assert!(Reservation::new(u64::MAX - 63, 1).is_err());
        assert!(Reservation::new(1 << 62, 1).is_err());
    }
}
