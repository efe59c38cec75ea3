//! Shapes of up to four dimensions.

use serde::{Deserialize, Serialize};

/// The lengths of a tensor's dimensions, slowest first; at most four.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    lengths: [usize; 4],
    rank: u8,
}

impl Shape {
    /// The lengths, slowest dimension first.
    pub fn dims(&self) -> &[usize] {
        &self.lengths[..self.rank as usize]
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// The last length: a row's elements. 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The product of all lengths but the last.
    pub fn rows(&self) -> usize {
        self.dims().split_last().map_or(1, |(_, rest)| rest.iter().product())
    }

    /// The shape without its first dimension.
    pub fn tail(&self) -> Shape {
        Shape::from(self.dims().get(1..).unwrap_or(&[]))
    }
}

impl From<&[usize]> for Shape {
    /// # Panics
    /// If there are more than four lengths.
    fn from(dims: &[usize]) -> Self {
        assert!(dims.len() <= 4, "a tensor has at most four dimensions, not {dims:?}");
        let mut lengths = [1; 4];
        lengths[..dims.len()].copy_from_slice(dims);
        Shape { lengths, rank: dims.len() as u8 }
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape::from(&dims[..])
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}
