//! Small products by a warp, and how their operands come to it: `kernels/matrix.cuh`.

mod bed;
use bed::*;
use vidfit_cuda::{Driver, Launch};
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

/// Small whole numbers: every sum is exact.
#[test]
fn a_warp_multiplies() {
    let mut random = Random::new(1);
    for architecture in ARCHITECTURES {
        let card = Emulated::of(architecture, 3);
        let [a, b, target] = [1024, 1024, 1024].map(|bytes| card.allocate(bytes).unwrap());
        for (tag, dtype) in [(1, DType::F16), (2, DType::BF16)] {
            // Tensor cores multiply bf16 from sm_80 on.
            if dtype == DType::BF16 && architecture < 800 {
                continue;
            }
            for (transposed, depth) in
                [(0, 32), (0, 16), (0, 13), (0, 1), (1, 32), (1, 16), (1, 21)]
            {
                let mut whole = |n: usize| -> Vec<f32> {
                    (0..n).map(|_| random.between(0, 16) as f32 - 8.0).collect()
                };
                let (left, right) = (whole(16 * 32), whole(16 * 32));
                card.write(a, &bytes(dtype, &left)).unwrap();
                card.write(b, &bytes(dtype, &right)).unwrap();
                card.write(target, &[0xff; 1024]).unwrap();
                let arguments =
                    Arguments { a, b, target, depth, dtype: tag, transposed, unused: 0 };
                let depth = depth as usize;
                card.launch(Launch {
                    kernel: "matrix_check",
                    grid: [1; 3],
                    block: [32, 1, 1],
                    shared_bytes: (16 * 4 + 32 * 8) * 16,
                    arguments: bytemuck::bytes_of(&arguments),
                    touched: &[a..a + 1024, b..b + 1024, target..target + 1024],
                })
                .unwrap();
                let mut result = [0; 1024];
                card.read(target, &mut result).unwrap();
                for (n, four) in result.chunks_exact(4).enumerate() {
                    let (i, j) = (n / 16, n % 16);
                    let right = |k: usize| match transposed {
                        0 => right[j * 32 + k],
                        _ => right[k * 16 + j],
                    };
                    let expected: f32 = (0..depth).map(|k| left[i * 32 + k] * right(k)).sum();
                    let result = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                    assert_eq!(
                        result, expected,
                        "row {i}, column {j}, {dtype}, depth {depth}, transposed {transposed}, \
                         on {architecture}"
                    );
                }
            }
        }
    }
}
