//! What the tests of the operations share: a device with poisoned memory, and a comparison that
//! allows for f32 arithmetic before the one rounding, and nothing else.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::sync::Arc;
use vidfit_cpu::CpuDevice;
use vidfit_tensor::*;

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

/// Calls `op` on tensors with these values and returns the values of all of them, the same for
/// every number of threads. Only those in `written` may change.
pub fn run(
    operands: &[Operand],
    written: &[usize],
    op: impl Fn(&CpuDevice, &[Tensor]),
) -> Vec<Vec<f32>> {
    let mut results = (1..=3).map(|threads| run_on(threads, operands, &op));
    let first = results.next().unwrap();
    for (n, operand) in operands.iter().enumerate() {
        if !written.contains(&n) && !operand.values.is_empty() {
            assert!(same_bits(&first[n], &operand.values), "operand {n} was written");
        }
    }
    for (threads, result) in results.enumerate() {
        for (n, (a, b)) in first.iter().zip(&result).enumerate() {
            assert!(same_bits(a, b), "tensor {n} differs on {} threads", threads + 2);
        }
    }
    first
}

pub fn run_on(
    threads: usize,
    operands: &[Operand],
    op: impl Fn(&CpuDevice, &[Tensor]),
) -> Vec<Vec<f32>> {
    let device = Arc::new(CpuDevice::new(threads).unwrap());
    let alloc = |arena: &Arena| -> Vec<Tensor> {
        let tensor = |o: &Operand| arena.alloc("t", o.dtype, &o.shape[..]).unwrap();
        operands.iter().map(tensor).collect()
    };
    let dry = Arena::record(device.profile().alignment);
    drop(alloc(&dry));
    let layout = solve(&dry.into_trace().unwrap());
    device.reserve(layout.peak_bytes).unwrap();
    let poisoner = device.clone();
    let arena =
        Arena::replay(layout).poison_with(move |offset, bytes| poisoner.poison(offset, bytes));
    let mut tensors = alloc(&arena);
    for (tensor, operand) in tensors.iter_mut().zip(operands) {
        if !operand.values.is_empty() {
            device.upload(&operand.values, tensor);
        }
    }
    op(&device, &tensors);
    device.finish().unwrap();
    let download = |tensor: &Tensor| {
        let mut values = vec![0.0; tensor.shape().elements()];
        device.download(tensor, &mut values).unwrap();
        values
    };
    tensors.iter().map(download).collect()
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Each value must be what some number near the expected one rounds to. Near is a millionth of it,
/// or of 1 for smaller ones: operands are around 1, and sums of them lose what is small beside 1.
pub fn check(what: &str, dtype: DType, actual: &[f32], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    for (n, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let slack = 1e-6 * e.abs().max(1.0);
        let (low, high) = (dtype.round((e - slack) as f32), dtype.round((e + slack) as f32));
        assert!(low <= a && a <= high, "{what}: element {n} is {a}, not {e} as {dtype}");
    }
}

/// As `check`, for values that must be exact in f32 before the one rounding.
pub fn check_exact(what: &str, dtype: DType, actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    for (n, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let e = dtype.round(e);
        assert!(a.to_bits() == e.to_bits(), "{what}: element {n} is {a}, not {e} as {dtype}");
    }
}
