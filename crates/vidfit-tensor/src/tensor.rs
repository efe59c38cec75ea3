//! The tensor: a handle on planned device memory, or on host memory that never moves.

use crate::arena::Life;
use crate::{DType, Shape};
use std::ops::Range;
use std::sync::Arc;

/// Host memory that stays where it is while it is held, such as a memory-mapped file.
pub trait HostBytes: Send + Sync {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

impl HostBytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Where a tensor's elements are.
#[derive(Clone)]
pub enum Place {
    /// In the job's arena. The life ends with the last handle on it.
    Arena(Arc<Life>),
    /// In host memory, read only.
    Host(Arc<dyn HostBytes>),
    /// Nowhere: a weight in a dry run without a checkpoint.
    Nowhere,
}

/// Elements of one type in a dense row-major shape. Cloning makes another handle on the same
/// elements; the memory's life ends when the last handle is dropped.
#[derive(Clone)]
pub struct Tensor {
    place: Place,
    first_byte: u64,
    shape: Shape,
    dtype: DType,
}

impl Tensor {
    pub(crate) fn in_arena(life: Arc<Life>, dtype: DType, shape: Shape) -> Self {
        Tensor { place: Place::Arena(life), first_byte: 0, shape, dtype }
    }

    /// A read-only tensor over host memory, starting at `first_byte`.
    ///
    /// # Panics
    /// If the memory is too short for the shape.
    pub fn from_host(
        bytes: Arc<dyn HostBytes>,
        first_byte: u64,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Self {
        let shape = shape.into();
        let end = first_byte + shape.elements() as u64 * dtype.bytes();
        assert!(end <= bytes.bytes().len() as u64, "host memory is too short for {shape:?}");
        Tensor { place: Place::Host(bytes), first_byte, shape, dtype }
    }

    /// A tensor without elements, for dry runs.
    pub fn nowhere(dtype: DType, shape: impl Into<Shape>) -> Self {
        Tensor { place: Place::Nowhere, first_byte: 0, shape: shape.into(), dtype }
    }

    /// Where the elements are.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Position of the first element within its place, in bytes.
    pub fn first_byte(&self) -> u64 {
        self.first_byte
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The lengths of the dimensions, slowest first.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// All lengths but the last, multiplied.
    pub fn rows(&self) -> usize {
        self.shape.rows()
    }

    /// The last length.
    pub fn columns(&self) -> usize {
        self.shape.columns()
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> u64 {
        self.shape.elements() as u64 * self.dtype.bytes()
    }

    /// The part `range` of the first dimension.
    ///
    /// # Panics
    /// If the range lies outside the first dimension.
    pub fn slice(&self, range: Range<usize>) -> Tensor {
        let dims = self.dims();
        assert!(
            !dims.is_empty() && range.start <= range.end && range.end <= dims[0],
            "{range:?} lies outside {:?}",
            self.shape
        );
        let mut lengths = dims.to_vec();
        lengths[0] = range.len();
        let inner = self.shape.tail().elements() as u64 * self.dtype.bytes();
        Tensor {
            first_byte: self.first_byte + range.start as u64 * inner,
            shape: Shape::from(&lengths[..]),
            ..self.clone()
        }
    }

    /// Entry `index` of the first dimension, which the result no longer has.
    pub fn at(&self, index: usize) -> Tensor {
        let slice = self.slice(index..index + 1);
        Tensor { shape: self.shape.tail(), ..slice }
    }

    /// The same elements in another shape.
    ///
    /// # Panics
    /// If the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        assert_eq!(shape.elements(), self.shape.elements(), "{:?} as {shape:?}", self.shape);
        Tensor { shape, ..self.clone() }
    }

    /// Other elements in the same memory, from `first_byte` on: how a slot holds one block's
    /// weights after another's.
    ///
    /// # Panics
    /// If they do not lie within this tensor's bytes.
    pub fn recast(&self, first_byte: u64, dtype: DType, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let end = first_byte + shape.elements() as u64 * dtype.bytes();
        assert!(end <= self.bytes(), "{dtype}{shape:?} from byte {first_byte} on, in {self:?}");
        Tensor { first_byte: self.first_byte + first_byte, shape, dtype, ..self.clone() }
    }

    /// Whether both are handles on the same elements.
    pub fn is_same(&self, other: &Tensor) -> bool {
        let same_place = match (&self.place, &other.place) {
            (Place::Arena(a), Place::Arena(b)) => Arc::ptr_eq(a, b),
            (Place::Host(a), Place::Host(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same_place && self.first_byte == other.first_byte && self.shape == other.shape
    }

    /// Whether no other handle holds these elements, so that they may be overwritten.
    pub fn is_sole_handle(&self) -> bool {
        match &self.place {
            Place::Arena(life) => Arc::strong_count(life) == 1,
            _ => false,
        }
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)
    }
}
