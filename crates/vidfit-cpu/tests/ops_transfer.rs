//! Transfers round once and keep every bit otherwise.

mod ops_bed;
use ops_bed::*;
use vidfit_tensor::*;

/// Longer than two jobs, and not a multiple of anything.
const LENGTH: usize = 2 * 65536 + 4099;

#[test]
fn an_upload_rounds_to_nearest_even() {
    let mut random = Random::new(1);
    let mut values: Vec<f32> = (0..LENGTH).map(|_| 3.0 * random.unit()).collect();
    // Half way between two bf16 numbers: to the even one, down and up; the second also for f16.
    values[0] = f32::from_bits(0x3f80_8000);
    values[1] = f32::from_bits(0x3f81_8000);
    values[LENGTH - 1] = 1.0 + 3.0 / 2048.0;
    for dtype in DTYPES {
        let operand = Operand { dtype, shape: vec![LENGTH], values: values.clone() };
        let expected: Vec<f32> = values.iter().map(|&v| dtype.round(v)).collect();
        for threads in 1..=3 {
            let result = run_on(threads, std::slice::from_ref(&operand), |_, _| {});
            check_exact("upload", DType::F32, &result[0], &expected);
        }
    }
}
