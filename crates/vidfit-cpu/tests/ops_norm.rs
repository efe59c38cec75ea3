//! Normalisation of rows and heads against f64.

mod ops_bed;
use ops_bed::*;
use vidfit_tensor::*;

/// Large enough that a result without it would be seen.
const EPS: f32 = 0.01;

/// The last two are one piece and more than one.
const SHAPES: [[usize; 2]; 8] =
    [[1, 1], [3, 2], [7, 31], [50, 64], [5, 100], [70, 3072], [40, 4096], [3, 9001]];

/// Mean and biased variance.
fn moments(values: &[f32]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().map(|&v| v as f64).sum::<f64>() / count;
    (mean, values.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / count)
}

#[test]
fn rms_norm() {
    let mut random = Random::new(20);
    for [rows, columns] in SHAPES {
        for _ in 0..3 {
            let (x, weight) =
                (random.tensor(&[rows, columns], 0.5, 1.0), random.tensor(&[columns], 0.0, 1.0));
            let dst = Operand::empty(random.dtype(), &[rows, columns]);
            let expected: Vec<f64> = x
                .values
                .chunks(columns)
                .flat_map(|row| {
                    let square = row.iter().map(|&v| (v as f64).powi(2)).sum::<f64>();
                    let factor = 1.0 / (square / columns as f64 + EPS as f64).sqrt();
                    row.iter().zip(&weight.values).map(move |(&x, &w)| x as f64 * factor * w as f64)
                })
                .collect();
            let result = run(&[x, weight.clone(), dst.clone()], &[2], |device, t| {
                device.rms_norm(&t[0], &t[1], EPS, &mut t[2].clone());
            });
            check("rms_norm", dst.dtype, &result[2], &expected);
        }
    }
}

#[test]
fn layer_norm_with_and_without_modulation_and_in_place() {
    let mut random = Random::new(21);
    for [rows, columns] in SHAPES {
        for modulated in [false, true] {
            let x = random.tensor(&[rows, columns], 0.5, 1.0);
            let mut operands = vec![x.clone()];
            operands.extend((0..4).map(|_| random.tensor(&[columns], 0.2, 1.0)));
            operands.push(Operand::empty(random.dtype(), &[rows, columns]));
            let [weight, bias, shift, scale] = [1, 2, 3, 4].map(|n: usize| operands[n].clone());
            let expected: Vec<f64> = x
                .values
                .chunks(columns)
                .flat_map(|row| {
                    let (mean, variance) = moments(row);
                    let of = |c: usize| {
                        let y = (row[c] as f64 - mean) / (variance + EPS as f64).sqrt();
                        let y = y * weight.at(c) + bias.at(c);
                        if modulated { y * (1.0 + scale.at(c)) + shift.at(c) } else { y }
                    };
                    (0..columns).map(of).collect::<Vec<_>>()
                })
                .collect();
            let norm = |device: &vidfit_cpu::CpuDevice, t: &[Tensor], dst: usize| {
                let modulation = modulated.then_some((&t[3], &t[4]));
                let op = LayerNorm { x: &t[0], weight: &t[1], bias: &t[2], eps: EPS, modulation };
                device.layer_norm(op, &mut t[dst].clone());
            };
            let result = run(&operands, &[5], |device, t| norm(device, t, 5));
            check("layer_norm", operands[5].dtype, &result[5], &expected);
            let result = run(&operands, &[0], |device, t| norm(device, t, 0));
            check("layer_norm in place", x.dtype, &result[0], &expected);
        }
    }
}

/// A row far from zero: its variance must be taken around its mean.
#[test]
fn layer_norm_keeps_small_deviations() {
    let mut random = Random::new(22);
    let x = random.typed(DType::F32, &[4, 3072], 4096.0, 1.0);
    let ones = Operand { dtype: DType::F32, shape: vec![3072], values: vec![1.0; 3072] };
    let zeros = Operand { values: vec![0.0; 3072], ..ones.clone() };
    let result = run(&[x.clone(), ones, zeros], &[0], |device, t| {
        let op = LayerNorm { x: &t[0], weight: &t[1], bias: &t[2], eps: 1e-5, modulation: None };
        device.layer_norm(op, &mut t[0].clone());
    });
    for (row, result) in x.values.chunks(3072).zip(result[0].chunks(3072)) {
        let (mean, variance) = moments(row);
        for (&x, &y) in row.iter().zip(result) {
            let expected = (x as f64 - mean) / (variance + 1e-5).sqrt();
            assert!((y as f64 - expected).abs() < 1e-3, "{y} instead of {expected}");
        }
    }
}

fn check_qk_norm(
    random: &mut Random,
    rows: usize,
    heads: usize,
    head: usize,
    first: Option<usize>,
) {
    let columns = heads * head;
    let x = random.tensor(&[rows, columns], 0.5, 1.0);
    let (weight, bias) = (random.tensor(&[head], 0.0, 1.0), random.tensor(&[head], 0.0, 1.0));
    // Not a cosine and a sine: what is one and what is the other must show.
    let positions = rows - first.unwrap_or(0);
    let [cos, sin] =
        [0.7, -0.2].map(|at| random.typed(DType::F32, &[positions, head / 2], at, 0.3));
    let mut expected = Vec::new();
    for (n, values) in x.values.chunks(head).enumerate() {
        let (mean, variance) = moments(values);
        let start = expected.len();
        for (c, &value) in values.iter().enumerate() {
            let y = (value as f64 - mean) / (variance + EPS as f64).sqrt();
            expected.push(y * weight.at(c) + bias.at(c));
        }
        let row = n / heads;
        let Some(position) = first.and_then(|first| row.checked_sub(first)) else { continue };
        for pair in 0..head / 2 {
            let (c, s) = (cos.at(position * head / 2 + pair), sin.at(position * head / 2 + pair));
            let (a, b) = (expected[start + 2 * pair], expected[start + 2 * pair + 1]);
            expected[start + 2 * pair] = a * c - b * s;
            expected[start + 2 * pair + 1] = b * c + a * s;
        }
    }
    let result = run(&[x.clone(), weight, bias, cos, sin], &[0], |device, t| {
        let rope = first.map(|first_row| Rope { cos: &t[3], sin: &t[4], first_row });
        let op = QkNorm { weight: &t[1], bias: &t[2], eps: EPS, rope };
        device.qk_norm(op, &mut t[0].clone());
    });
    check("qk_norm", x.dtype, &result[0], &expected);
}

#[test]
fn qk_norm() {
    let mut random = Random::new(23);
    for [rows, heads, head] in [[1, 1, 2], [9, 3, 10], [60, 48, 64], [40, 30, 64], [3, 150, 64]] {
        for first in [None, Some(0), Some(rows / 3), Some(rows - 1)] {
            check_qk_norm(&mut random, rows, heads, head, first);
        }
    }
}
