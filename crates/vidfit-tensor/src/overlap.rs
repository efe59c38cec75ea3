//! What may be written while what is read: the checks of a device's operations.

use crate::{Place, Tensor};
use std::ops::Range;

impl Tensor {
    /// The bytes of the device that it is, as [`crate::Region::address`] counts them. `None` if there
    /// are none.
    pub fn device_bytes(&self) -> Option<Range<u64>> {
        let Place::Arena(life) = self.place() else { return None };
        let start = life.region().address(life.offset() + self.first_byte());
        (self.bytes() > 0).then(|| start..start + self.bytes())
    }
}

/// Asserts that an operation which writes `written` does not read any byte of it.
///
/// # Panics
/// If it does.
pub fn assert_apart<'a>(written: &Tensor, read: impl IntoIterator<Item = &'a Tensor>) {
    for read in read {
        assert!(!overlap(written, read), "{written:?} overlaps what it is made of, {read:?}");
    }
}

/// As [`assert_apart`], but `written` may also be the very elements that are read.
///
/// # Panics
/// If they overlap otherwise.
pub fn assert_apart_or_same<'a>(written: &Tensor, read: impl IntoIterator<Item = &'a Tensor>) {
    for read in read {
        let same = written.device_bytes() == read.device_bytes() && written.dtype() == read.dtype();
        assert!(same || !overlap(written, read), "{written:?} overlaps {read:?} in part");
    }
}

fn overlap(a: &Tensor, b: &Tensor) -> bool {
    match (a.device_bytes(), b.device_bytes()) {
        (Some(a), Some(b)) => a.start < b.end && b.start < a.end,
        _ => false,
    }
}

/// The tensors of a pair that may be there.
pub fn both<'a>(pair: Option<(&'a Tensor, &'a Tensor)>) -> impl Iterator<Item = &'a Tensor> {
    pair.into_iter().flat_map(|(a, b)| [a, b])
}
