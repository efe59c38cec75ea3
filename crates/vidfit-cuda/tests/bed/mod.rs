//! What the tests of the operations share: the kernels' own sources, compiled by g++ and run on the
//! CPU, as a card; and the comparison with the CPU device.
//!
//! Every operation runs several times, with threads and blocks in different orders: a result that
//! depends on them is a race. Memory that an operation did not name is poisoned while it runs.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests only")]

mod emulated;
mod late;
pub mod machine;
mod operands;

pub use emulated::{Emulated, Kind};
pub use late::Late;
pub use machine::{compiled, driver};
pub use operands::{DTYPES, Operand, Random};

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use vidfit_cpu::CpuDevice;
use vidfit_cuda::{Cuda, CudaDevice};
use vidfit_tensor::*;

/// A card that operations are tested on.
#[derive(Clone, Copy, Debug)]
pub enum Bed {
    /// The kernels' sources on the CPU.
    Emulated(Kind),
    /// This machine's card, which has the kernels of its own architecture.
    Card,
}

/// Makes tests of these functions, each for all cards: those that sum on the tensor cores of every kind, those
/// that do not, and this machine's own (`bench/cuda_check.sh` runs these).
macro_rules! test_with_tensor_cores {
    ($($test:ident),+ $(,)?) => {
        $crate::bed::test_on_all_architectures!($($test),+);
        $crate::bed::test_on!(truncating_4, Bed::truncating(800, "truncate4"), $($test),+);
        $crate::bed::test_on!(truncating_8, Bed::truncating(800, "truncate8"), $($test),+);
        $crate::bed::test_on!(truncating_16, Bed::truncating(800, "truncate16"), $($test),+);
        $crate::bed::test_on!(sm_75_truncating_4, Bed::truncating(750, "truncate4"), $($test),+);
        $crate::bed::test_on!(sm_75_truncating_8, Bed::truncating(750, "truncate8"), $($test),+);
    };
}
pub(crate) use test_with_tensor_cores;

/// The same for operations without sums on tensor cores.
macro_rules! test_on_all_architectures {
    ($($test:ident),+ $(,)?) => {
        $crate::bed::test_on!(sm_80, Bed::Emulated(Kind::SM_80), $($test),+);
        $crate::bed::test_on!(
            sm_75, Bed::Emulated(Kind { architecture: 750, ..Kind::SM_80 }), $($test),+
        );
        mod card {
            use super::*;
            $(
                #[test]
                #[ignore = "needs an NVIDIA card"]
                fn $test() {
                    super::$test(Bed::Card);
                }
            )+
        }
    };
}
pub(crate) use test_on_all_architectures;

macro_rules! test_on {
    ($name:ident, $bed:expr, $($test:ident),+) => {
        mod $name {
            use super::*;
            $(
                #[test]
                fn $test() {
                    super::$test($bed);
                }
            )+
        }
    };
}
pub(crate) use test_on;

impl Bed {
    /// An emulated card whose tensor cores truncate.
    pub fn truncating(architecture: u32, rounding: &'static str) -> Bed {
        Bed::Emulated(Kind { architecture, rounding, orders: 1 })
    }

    /// Calls `op` on tensors with these values, and returns the values of all of them. Only those in
    /// `written` may change; those without values stay poisoned until written.
    pub fn run(
        self,
        operands: &[Operand],
        written: &[usize],
        op: impl Fn(&dyn Device, &[Tensor]),
    ) -> Vec<Vec<f32>> {
        let results = self.with_card(|device| run_on(device, operands, &op));
        for (n, operand) in operands.iter().enumerate() {
            if !written.contains(&n) && !operand.values.is_empty() {
                assert!(same_bits(&results[n], &operand.values), "operand {n} was written");
            }
        }
        results
    }

    /// Calls `on` with the card.
    pub fn with_card<T>(self, on: impl Fn(Arc<dyn Device>) -> T) -> T {
        self.with_launches_of(None, on)
    }

    /// The same with launches of at most so many multiply-adds, if they can be parted.
    pub fn with_launches_of<T>(
        self,
        multiply_adds: Option<u64>,
        on: impl Fn(Arc<dyn Device>) -> T,
    ) -> T {
        static CARD: OnceLock<Mutex<Arc<CudaDevice<Cuda>>>> = OnceLock::new();
        match self {
            Bed::Emulated(kind) => {
                let card = CudaDevice::new(Emulated::new(kind)).unwrap();
                card.part_launches(multiply_adds);
                on(Arc::new(card))
            }
            Bed::Card => {
                let open =
                    || Mutex::new(Arc::new(CudaDevice::new(Cuda::open(0).unwrap()).unwrap()));
                // One test at a time: a device has one arena.
                let card = CARD.get_or_init(open).lock().unwrap_or_else(PoisonError::into_inner);
                card.part_launches(multiply_adds);
                on(card.clone())
            }
        }
    }

    /// Runs an operation here and on the CPU, and holds the tensors in `written` to the CPU's: each value at
    /// most `ulps` steps of its type away, or, near zero, `ulps` steps of what 1 has times `scale`.
    pub fn compare(
        self,
        what: &str,
        operands: &[Operand],
        written: &[usize],
        ulps: f32,
        scale: f32,
        op: impl Fn(&dyn Device, &[Tensor]),
    ) {
        let card = self.run(operands, written, &op);
        let cpu = run_on_cpu(operands, &op);
        for &n in written {
            let step = match operands[n].dtype {
                DType::F32 => 2.0f32.powi(-23),
                DType::F16 => 2.0f32.powi(-10),
                DType::BF16 => 2.0f32.powi(-7),
            };
            for (i, (&a, &b)) in card[n].iter().zip(&cpu[n]).enumerate() {
                // What neither has written is poisoned in both; infinities are the same.
                let agree = (a.is_nan() && b.is_nan())
                    || a == b
                    || (a - b).abs() <= ulps * step * b.abs().max(scale);
                assert!(
                    agree,
                    "{what}: element {i} of tensor {n} is {a} on the card, {b} on the CPU ({:?})",
                    operands[n].shape
                );
            }
        }
    }
}

/// What the CPU device makes of the same.
pub fn run_on_cpu(operands: &[Operand], op: impl Fn(&dyn Device, &[Tensor])) -> Vec<Vec<f32>> {
    run_on(Arc::new(CpuDevice::new(1).unwrap()), operands, &op)
}

/// As [`Bed::run`], on any device, without a look at what was written.
pub fn run_on(
    device: Arc<dyn Device>,
    operands: &[Operand],
    op: &dyn Fn(&dyn Device, &[Tensor]),
) -> Vec<Vec<f32>> {
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
    op(&*device, &tensors);
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
