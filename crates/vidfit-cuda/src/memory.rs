//! The reservations of a device.

use crate::driver::Driver;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use vidfit_tensor::{DType, Place, Region, Tensor};

/// Offsets in the arena are multiples of this, in bytes: what the widest loads need, and more.
pub(crate) const ALIGNMENT: u64 = 256;

/// Memory of the card, until the last who works on it is done.
pub(crate) struct Held {
    driver: Arc<dyn Driver>,
    addresses: Range<u64>,
}

impl Held {
    /// So many bytes of the card, or why they cannot be had. None need no memory.
    pub fn new(driver: Arc<dyn Driver>, bytes: u64) -> Result<Held, String> {
        let first = if bytes == 0 { 0 } else { driver.allocate(bytes)? };
        Ok(Held { driver, addresses: first..first + bytes })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.addresses.is_empty() {
            // What failed is told to whoever waits for it.
            let _ = self.driver.finish();
            self.driver.free(self.addresses.start);
        }
    }
}

/// Where each region lies on the card.
#[derive(Default)]
pub(crate) struct Memory {
    regions: BTreeMap<Region, Arc<Held>>,
    /// Warm regions so far.
    last: Option<Region>,
}

impl Memory {
    pub fn hold(&mut self, region: Region, held: Held) {
        self.regions.insert(region, Arc::new(held));
    }

    /// Forgets a region.
    pub fn let_go(&mut self, region: Region) -> Option<Arc<Held>> {
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
            .addresses
            .clone()
    }

    /// The addresses of a tensor's bytes.
    ///
    /// # Panics
    /// If it is not on the card: that is a bug of who asks.
    pub fn range_of(&self, tensor: &Tensor) -> Range<u64> {
        self.place_of(tensor).0
    }

    /// The addresses of a tensor's bytes, and the memory that they lie in.
    ///
    /// # Panics
    /// As [`Memory::range_of`].
    pub fn place_of(&self, tensor: &Tensor) -> (Range<u64>, &Arc<Held>) {
        let life = match tensor.place() {
            Place::Arena(life) => life,
            Place::Host(_) => panic!("{tensor:?} lies in host memory, which no card can read"),
            Place::Nowhere => panic!("{tensor:?} has no elements in a real run"),
        };
        let held = self.regions.get(&life.region()).expect("a tensor whose region was given back");
        let first = held.addresses.start + life.offset() + tensor.first_byte();
        let end = first + tensor.bytes();
        assert!(end <= held.addresses.end, "a tensor outside its region");
        (first..end, held)
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

    /// The same without its first elements, of which each takes what `dtype` does.
    pub fn from(self, elements: usize, dtype: DType) -> View {
        View { address: self.address + elements as u64 * dtype.bytes(), ..self }
    }
}
