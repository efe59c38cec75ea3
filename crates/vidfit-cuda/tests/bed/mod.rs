//! What the tests of the operations share: the kernels' own sources, compiled by g++ and run on the
//! CPU, as a card; and the comparison with the CPU device.
//!
//! Every operation runs several times, with threads and blocks in different orders: a result that
//! depends on them is a race. Memory that an operation did not name is poisoned while it runs.

#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "tests only")]

mod emulated;
mod late;
pub mod machine;
mod operands;

pub use emulated::{ARCHITECTURES, Emulated};
pub use late::Late;
pub use machine::{compiled, driver};
#[allow(unused_imports, reason = "each test uses a part of it")]
pub use operands::{DTYPES, Operand, Random};

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use vidfit_cpu::CpuDevice;
use vidfit_cuda::{Cuda, CudaDevice};
use vidfit_tensor::*;

/// Orders of threads and blocks that every operation is run in.
const ORDERS: u64 = 3;

/// Calls `op` on tensors with these values, on the emulated card, and returns the values of all of
/// them. Only those in `written` may change; those without values stay poisoned until written.
pub fn run(
    operands: &[Operand],
    written: &[usize],
    op: impl Fn(&dyn Device, &[Tensor]),
) -> Vec<Vec<f32>> {
    run_for(ARCHITECTURES[0], operands, written, op)
}

/// As [`run`], with the source of another architecture.
pub fn run_for(
    architecture: u32,
    operands: &[Operand],
    written: &[usize],
    op: impl Fn(&dyn Device, &[Tensor]),
) -> Vec<Vec<f32>> {
    let results = with_card(architecture, |device| run_on(device, operands, &op));
    for (n, operand) in operands.iter().enumerate() {
        if !written.contains(&n) && !operand.values.is_empty() {
            assert!(same_bits(&results[n], &operand.values), "operand {n} was written");
        }
    }
    results
}

/// Set where the operations are to run on this machine's card instead of in the emulation. A card has the
/// kernels of its own architecture, whichever a test asks for.
const ON_CARD: &str = "VIDFIT_TEST_CARD";

/// Calls `on` with a card: the emulated one of an architecture, or this machine's.
fn with_card<T>(architecture: u32, on: impl Fn(Arc<dyn Device>) -> T) -> T {
    static CARD: OnceLock<Mutex<Arc<CudaDevice<Cuda>>>> = OnceLock::new();
    if std::env::var_os(ON_CARD).is_none() {
        return on(Arc::new(CudaDevice::new(Emulated::of(architecture, ORDERS)).unwrap()));
    }
    let open = || Mutex::new(Arc::new(CudaDevice::new(Cuda::open(0).unwrap()).unwrap()));
    // One test at a time: a device has one arena.
    let card = CARD.get_or_init(open).lock().unwrap_or_else(PoisonError::into_inner);
    on(card.clone())
}

/// What the CPU device makes of the same.
pub fn run_on_cpu(operands: &[Operand], op: impl Fn(&dyn Device, &[Tensor])) -> Vec<Vec<f32>> {
    run_on(Arc::new(CpuDevice::new(1).unwrap()), operands, &op)
}

/// Runs an operation on both, and holds tensor `n` of the emulated card to the CPU's: each value at most
/// `ulps` steps of its type away, or, near zero, `ulps` steps of what 1 has times `scale`.
pub fn compare(
    what: &str,
    operands: &[Operand],
    written: &[usize],
    ulps: f32,
    scale: f32,
    op: impl Fn(&dyn Device, &[Tensor]),
) {
    compare_for(ARCHITECTURES[0], what, operands, written, ulps, scale, op);
}

/// As [`compare`], with the source of another architecture.
pub fn compare_for(
    architecture: u32,
    what: &str,
    operands: &[Operand],
    written: &[usize],
    ulps: f32,
    scale: f32,
    op: impl Fn(&dyn Device, &[Tensor]),
) {
    let card = run_for(architecture, operands, written, &op);
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

/// As [`run`], on any device.
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
