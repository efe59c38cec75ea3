//! Small products by a warp, and how their operands come to it: `kernels/matrix.cuh`.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod bed;
use bed::*;
use vidfit_cuda::{Driver, Launch, Unit};
use vidfit_tensor::DType;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Arguments {
    a: u64,
    b: u64,
    target: u64,
    depth: u32,
    dtype: u32,
    transposed: u32,
    unused: u32,
}

fn bytes(dtype: DType, values: &[f32]) -> Vec<u8> {
    let bits = |&value: &f32| match dtype {
        DType::F16 => half::f16::from_f32(value).to_bits(),
        _ => half::bf16::from_f32(value).to_bits(),
    };
    values.iter().map(bits).flat_map(u16::to_le_bytes).collect()
}

/// Every kind of tensor cores that operations are tested on.
const KINDS: [Kind; 7] = {
    const fn kind(architecture: u32, rounding: &'static str) -> Kind {
        Kind { architecture, rounding, orders: 3 }
    }
    [
        kind(800, "exact"),
        kind(800, "truncate4"),
        kind(800, "truncate8"),
        kind(800, "truncate16"),
        kind(750, "exact"),
        kind(750, "truncate4"),
        kind(750, "truncate8"),
    ]
};

/// A card, with room for a product's operands and its result.
struct Warp {
    card: Emulated,
    kind: Kind,
    places: [u64; 3],
}

impl Warp {
    fn new(kind: Kind) -> Warp {
        let card = Emulated::new(kind);
        let places = [1024, 1024, 1024].map(|bytes| card.allocate(bytes).unwrap());
        Warp { card, kind, places }
    }

    /// Tensor cores multiply bf16 from sm_80 on.
    fn dtypes(&self) -> &'static [DType] {
        if self.kind.architecture < 800 { &[DType::F16] } else { &[DType::F16, DType::BF16] }
    }

    /// `a bᵀ`, `[16, 16]`, of the first `depth` columns of a, `[16, 32]`, and of b, `[16, 32]`; or `a b`, of
    /// the first rows of b, `[32, 16]`.
    fn product(
        &self,
        dtype: DType,
        [left, right]: [&[f32]; 2],
        depth: u32,
        transposed: bool,
    ) -> Vec<f32> {
        let Warp { card, places: [a, b, target], .. } = self;
        let (&a, &b, &target) = (a, b, target);
        card.write(a, &bytes(dtype, left)).unwrap();
        card.write(b, &bytes(dtype, right)).unwrap();
        card.write(target, &[0xff; 1024]).unwrap();
        let (transposed, dtype) = (u32::from(transposed), u32::from(dtype == DType::BF16) + 1);
        let arguments = Arguments { a, b, target, depth, dtype, transposed, unused: 0 };
        card.launch(Launch {
            kernel: "matrix_check",
            grid: [1; 3],
            block: [32, 1, 1],
            shared_bytes: (16 * 4 + 32 * 8) * 16,
            arguments: bytemuck::bytes_of(&arguments),
            work: (16 * 16 * 32, Unit::Tensor),
            touched: &[a..a + 1024, b..b + 1024, target..target + 1024],
        })
        .unwrap();
        let mut result = [0; 1024];
        card.read(target, &mut result).unwrap();
        let values = result.chunks_exact(4);
        values.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
    }
}

/// Small whole numbers: every sum is exact, however it is rounded.
#[test]
fn a_warp_multiplies() {
    let mut random = Random::new(1);
    for kind in KINDS {
        let warp = Warp::new(kind);
        for &dtype in warp.dtypes() {
            for (transposed, depth) in [
                (false, 32),
                (false, 16),
                (false, 13),
                (false, 1),
                (true, 32),
                (true, 16),
                (true, 21),
            ] {
                let mut whole = |n: usize| -> Vec<f32> {
                    (0..n).map(|_| random.between(0, 16) as f32 - 8.0).collect()
                };
                let (left, right) = (whole(16 * 32), whole(16 * 32));
                let result = warp.product(dtype, [&left, &right], depth, transposed);
                for (n, result) in result.into_iter().enumerate() {
                    let (i, j) = (n / 16, n % 16);
                    let right = |k| right[if transposed { k * 16 + j } else { j * 32 + k }];
                    let terms = (0..depth as usize).map(|k| left[i * 32 + k] * right(k));
                    assert_eq!(
                        result,
                        terms.sum::<f32>(),
                        "row {i}, column {j}, {dtype}, depth {depth}, transposed {transposed}, \
                         on {kind:?}"
                    );
                }
            }
        }
    }
}

/// What is less than a half of f32's last bit beside a 1 is lost, unless it was added up before, or the sum is
/// rounded only once.
#[test]
fn sums_are_truncated_as_asked() {
    for kind in KINDS {
        let warp = Warp::new(kind);
        let at_once = if kind.architecture < 800 { 8 } else { 16 };
        for &dtype in warp.dtypes() {
            // Of row i, the product at i is 1 and those before it are 2⁻²⁵.
            let row = |i: usize| {
                (0..32).map(move |k| {
                    [2.0f32.powi(-12), 1.0, 0.0][(k >= i) as usize + (k > i) as usize]
                })
            };
            let left: Vec<f32> = (0..16).flat_map(row).collect();
            let row = |j: usize| (0..32).map(move |k| if k >= j { 1.0 } else { 2.0f32.powi(-13) });
            let right: Vec<f32> = (0..16).flat_map(row).collect();
            let result = warp.product(dtype, [&left, &right], 16, false);
            for i in 0..16 {
                let counted = match kind.rounding.strip_prefix("truncate") {
                    Some(block) => {
                        let block = block.parse::<usize>().unwrap().min(at_once);
                        // Four of them are a bit.
                        i / block * block / 4 * 4
                    }
                    // Rounded after each instruction.
                    None => i / at_once * at_once + rounded_to_fours(i % at_once),
                };
                let expected = 1.0 + counted as f32 * 2.0f32.powi(-25);
                assert_eq!(result[i * 16 + i], expected, "{i} small products, {dtype}, {kind:?}");
            }
        }
    }
}

/// The nearest multiple of four; of two that are as near, that of eight.
fn rounded_to_fours(count: usize) -> usize {
    4 * match count % 8 {
        2 => count / 4,
        6 => count / 4 + 1,
        _ => (count + 2) / 4,
    }
}
