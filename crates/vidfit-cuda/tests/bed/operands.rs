//! Random operands, the same in every run.

use vidfit_tensor::DType;

pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Random numbers that are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From -1 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() >> 33) as usize % (high - low + 1)
    }

    pub fn dtype(&mut self) -> DType {
        DTYPES[self.between(0, 2)]
    }

    /// A tensor of values around `centre`, up to `spread` away, as its type holds them.
    pub fn tensor(&mut self, shape: &[usize], centre: f32, spread: f32) -> Operand {
        let dtype = self.dtype();
        self.typed(dtype, shape, centre, spread)
    }

    pub fn typed(&mut self, dtype: DType, shape: &[usize], centre: f32, spread: f32) -> Operand {
        let values = (0..shape.iter().product())
            .map(|_| dtype.round(centre + spread * self.unit()))
            .collect();
        Operand { dtype, shape: shape.to_vec(), values }
    }
}

/// A tensor for an operation: without values, its memory stays poisoned.
#[derive(Clone)]
pub struct Operand {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Operand {
    pub fn empty(dtype: DType, shape: &[usize]) -> Operand {
        Operand { dtype, shape: shape.to_vec(), values: Vec::new() }
    }

    pub fn at(&self, index: usize) -> f64 {
        self.values[index] as f64
    }
}
