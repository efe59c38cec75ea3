//! The reservations of a device.

use std::collections::BTreeMap;
use std::ops::Range;
use vidfit_tensor::{DType, Place, Region, Tensor};

/// Offsets in the arena are multiples of this, in bytes: what the widest loads need, and more.
pub(crate) const ALIGNMENT: u64 = 256;

/// Where each region lies on the card, and how many bytes it has.
#[derive(Default)]
pub(crate) struct Memory {
    regions: BTreeMap<Region, Range<u64>>,
    /// Warm regions so far.
    last: Option<Region>,
}

impl Memory {
    pub fn hold(&mut self, region: Region, range: Range<u64>) {
        self.regions.insert(region, range);
    }

    /// Forgets a region, and says where it was.
    pub fn let_go(&mut self, region: Region) -> Option<Range<u64>> {
        self.regions.remove(&region)
    }

    /// A region that there has not been yet, if any is left.
    pub fn next_region(&mut self) -> Option<Region> {
        self.last = Some(self.last.unwrap_or(Region::ARENA).next()?);
        self.last
    }

    /// The arena's addresses.
    pub fn arena(&self) -> Range<u64> {
        self.regions
            .get(&Region::ARENA)
            .expect("an operation before the arena was reserved")
            .clone()
    }

    /// The addresses of a tensor's bytes.
    ///
    /// # Panics
    /// If it is not on the card: that is a bug of who asks.
    pub fn range_of(&self, tensor: &Tensor) -> Range<u64> {
        let life = match tensor.place() {
            Place::Arena(life) => life,
            Place::Host(_) => panic!("{tensor:?} lies in host memory, which no card can read"),
            Place::Nowhere => panic!("{tensor:?} has no elements in a real run"),
        };
        let region =
            self.regions.get(&life.region()).expect("a tensor whose region was given back");
        let first = region.start + life.offset() + tensor.first_byte();
        let end = first + tensor.bytes();
        assert!(end <= region.end, "a tensor outside its region");
        first..end
    }
}

/// Elements as the kernels see them (`View` in `kernels/element.cuh`).
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct View {
    pub address: u64,
    pub dtype: u32,
    pub unused: u32,
}

impl View {
    /// What stands where there is no tensor.
    pub const NONE: View = View { address: 0, dtype: 0, unused: 0 };

    pub fn new(address: u64, dtype: DType) -> View {
        let dtype = match dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::BF16 => 2,
        };
        View { address, dtype, unused: 0 }
    }
}

/// Asserts that an operation which writes `written` does not read any byte of it.
pub(crate) fn assert_apart<'a>(written: &Tensor, read: impl IntoIterator<Item = &'a Tensor>) {
    for read in read {
        assert!(!overlap(written, read), "{written:?} overlaps what it is made of, {read:?}");
    }
}

/// As [`assert_apart`], but `written` may also be the very elements that are read.
pub(crate) fn assert_apart_or_same<'a>(
    written: &Tensor,
    read: impl IntoIterator<Item = &'a Tensor>,
) {
    for read in read {
        let same = device_bytes(written) == device_bytes(read) && written.dtype() == read.dtype();
        assert!(same || !overlap(written, read), "{written:?} overlaps {read:?} in part");
    }
}

fn overlap(a: &Tensor, b: &Tensor) -> bool {
    match (device_bytes(a), device_bytes(b)) {
        (Some(a), Some(b)) => a.start < b.end && b.start < a.end,
        _ => false,
    }
}

fn device_bytes(tensor: &Tensor) -> Option<Range<u64>> {
    let Place::Arena(life) = tensor.place() else { return None };
    let start = life.region().address(life.offset() + tensor.first_byte());
    (tensor.bytes() > 0).then(|| start..start + tensor.bytes())
}
