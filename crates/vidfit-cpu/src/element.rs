//! Widening loads and rounding stores.

mod convert;

use half::{bf16, f16};
use vidfit_tensor::DType;

/// A run of elements to read.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    first: *const u8,
    elements: usize,
    dtype: DType,
}

/// A run of elements to write.
#[derive(Clone, Copy)]
pub(crate) struct Sink {
    first: *mut u8,
    elements: usize,
    dtype: DType,
}

// SAFETY: operations give disjoint parts of a sink to their jobs. What they read lies apart from
// what they write, or exactly upon it, and then a job reads only what it alone writes: `CpuDevice`
// asserts the one or the other before each operation, and its lock keeps other operations away.
unsafe impl Sync for Source {}
// SAFETY: as above.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Sink {}
// SAFETY: as above.
unsafe impl Send for Sink {}

impl Source {
    /// # Safety
    /// `first` must point to `elements` initialised elements of `dtype`, aligned to their size,
    /// which outlive the value. What [`Source::as_f32`] is asked for must not be written as long as
    /// its answer lives.
    pub unsafe fn new(first: *const u8, elements: usize, dtype: DType) -> Source {
        Source { first, elements, dtype }
    }

    pub fn dtype(self) -> DType {
        self.dtype
    }

    /// The number of elements.
    pub fn len(self) -> usize {
        self.elements
    }

    /// Where the first element is, for kernels with loads of their own.
    pub fn first(self) -> *const u8 {
        self.first
    }

    /// The elements themselves, if they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        // SAFETY: by the contract of `new`.
        (self.dtype == DType::F32)
            .then(|| unsafe { std::slice::from_raw_parts(self.first.cast(), self.elements) })
    }

    /// Elements `start..start + out.len()`, widened.
    pub fn load(&self, start: usize, out: &mut [f32]) {
        assert!(start + out.len() <= self.elements);
        // SAFETY: inside the run by the assertion, typed by the contract of `new`.
        unsafe {
            match self.dtype {
                DType::F32 => {
                    let from = self.first.cast::<f32>().add(start);
                    std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len());
                }
                DType::F16 => {
                    let from = self.first.cast::<f16>().add(start);
                    convert::widen_f16(std::slice::from_raw_parts(from, out.len()), out);
                }
                DType::BF16 => {
                    let from = self.first.cast::<bf16>().add(start);
                    convert::widen_bf16(std::slice::from_raw_parts(from, out.len()), out);
                }
            }
        }
    }

    /// One element, widened.
    pub fn get(&self, index: usize) -> f32 {
        let mut one = [0.0];
        self.load(index, &mut one);
        one[0]
    }
}

impl Sink {
    /// # Safety
    /// `first` must point to `elements` writable elements of `dtype`, aligned to their size, which
    /// outlive the value.
    pub unsafe fn new(first: *mut u8, elements: usize, dtype: DType) -> Sink {
        Sink { first, elements, dtype }
    }

    /// The same run, to read.
    pub fn as_source(&self) -> Source {
        Source { first: self.first, elements: self.elements, dtype: self.dtype }
    }

    /// Writes elements `from..from + count` of `source` from element `start` on, through `scratch`
    /// unless the types agree. Jobs that run at the same time must write to different elements.
    pub fn copy(
        &self,
        start: usize,
        source: &Source,
        from: usize,
        count: usize,
        scratch: &mut [f32],
    ) {
        assert!(start + count <= self.elements && from + count <= source.elements);
        if self.dtype == source.dtype {
            let size = self.dtype.bytes() as usize;
            // SAFETY: inside both runs by the assertion, which have elements of the same size;
            // disjoint from what other jobs write by the contract of this function.
            unsafe {
                let first = source.first.add(from * size);
                std::ptr::copy(first, self.first.add(start * size), count * size);
            }
            return;
        }
        let mut done = 0;
        while done < count {
            let piece = (count - done).min(scratch.len());
            source.load(from + done, &mut scratch[..piece]);
            self.store(start + done, &scratch[..piece]);
            done += piece;
        }
    }

    /// Makes elements `start..start + count` zero. Jobs that run at the same time must write to
    /// different elements.
    pub fn clear(&self, start: usize, count: usize) {
        assert!(start + count <= self.elements);
        let size = self.dtype.bytes() as usize;
        // SAFETY: inside the run by the assertion; zero bytes are a zero of every type; disjoint from
        // what other jobs write by the contract of this function.
        unsafe { self.first.add(start * size).write_bytes(0, count * size) }
    }

    /// Writes `values` from element `start` on, each rounded to nearest even. Jobs that run at
    /// the same time must write to different elements.
    pub fn store(&self, start: usize, values: &[f32]) {
        assert!(start + values.len() <= self.elements);
        // SAFETY: inside the run by the assertion; typed by the contract of `new`; disjoint from
        // what other jobs write by the contract of this function.
        unsafe {
            match self.dtype {
                DType::F32 => {
                    let to = self.first.cast::<f32>().add(start);
                    std::ptr::copy(values.as_ptr(), to, values.len());
                }
                DType::F16 => {
                    let to = self.first.cast::<f16>().add(start);
                    let to = std::slice::from_raw_parts_mut(to, values.len());
                    convert::round_to_f16(values, to);
                }
                DType::BF16 => {
                    let to = self.first.cast::<bf16>().add(start);
                    let to = std::slice::from_raw_parts_mut(to, values.len());
                    convert::round_to_bf16(values, to);
                }
            }
        }
    }
}
