//! Elementwise operations. Those that consist of additions and products are exact: each step is
//! rounded to f32, and the result once to its type.

mod ops_bed;
use ops_bed::*;
use vidfit_tensor::*;

/// Shorter than a chunk, a chunk, and longer than two jobs.
const LENGTHS: [usize; 4] = [1, 37, 4096, 2 * 65536 + 4099];

/// The f64 sigmoid.
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn casts_round_once() {
    let mut random = Random::new(10);
    for from in DTYPES {
        for to in DTYPES {
            let x = random.typed(from, &[5, 7001], 0.0, 3.0);
            let result = run(&[x.clone(), Operand::empty(to, &[7001, 5])], &[1], |device, t| {
                device.cast(&t[0], &mut t[1].clone());
            });
            check_exact("cast", to, &result[1], &x.values);
        }
    }
}

#[test]
fn sums_are_exact() {
    let mut random = Random::new(11);
    for length in LENGTHS {
        for _ in 0..3 {
            let (x, y) = (random.tensor(&[length], 0.0, 2.0), random.tensor(&[length], 0.5, 2.0));
            let expected: Vec<f32> = y.values.iter().zip(&x.values).map(|(y, x)| y + x).collect();
            let result = run(&[x, y.clone()], &[1], |device, t| {
                device.add(&t[0], &mut t[1].clone());
            });
            check_exact("add", y.dtype, &result[1], &expected);
        }
    }
}

#[test]
fn combinations_are_exact_in_their_order() {
    let mut random = Random::new(12);
    for length in LENGTHS {
        for count in 1..=4 {
            let mut operands: Vec<Operand> =
                (0..count).map(|_| random.tensor(&[length], 0.0, 2.0)).collect();
            operands.push(Operand::empty(random.dtype(), &[length]));
            let factors = [0.123456789012, -1.7, 1.0 / 3.0, 1e-3];
            let expected: Vec<f32> = (0..length)
                .map(|n| {
                    let products = (0..count).map(|t| factors[t] as f32 * operands[t].values[n]);
                    products.reduce(|sum, product| sum + product).unwrap()
                })
                .collect();
            let combine = |device: &vidfit_cpu::CpuDevice, t: &[Tensor], dst: usize| {
                let terms: Vec<_> = factors.iter().copied().zip(&t[..count]).collect();
                device.combine(&terms, &mut t[dst].clone());
            };
            let result = run(&operands, &[count], |device, t| combine(device, t, count));
            check_exact("combine", operands[count].dtype, &result[count], &expected);
            // The destination as the last term.
            let result = run(&operands, &[count - 1], |device, t| combine(device, t, count - 1));
            check_exact("in place", operands[count - 1].dtype, &result[count - 1], &expected);
        }
    }
}

#[test]
fn guidance_is_exact() {
    let mut random = Random::new(13);
    for length in LENGTHS {
        let (u, c) = (random.tensor(&[length], 0.0, 2.0), random.tensor(&[length], 0.0, 2.0));
        let dst = Operand::empty(random.dtype(), &[length]);
        let scale = 6.1_f64;
        let pairs = u.values.iter().zip(&c.values);
        let expected: Vec<f32> = pairs.map(|(u, c)| u + scale as f32 * (c - u)).collect();
        let result = run(&[u, c, dst.clone()], &[2], |device, t| {
            device.guide(&t[0], &t[1], scale, &mut t[2].clone());
        });
        check_exact("guide", dst.dtype, &result[2], &expected);
    }
}

#[test]
fn silu_is_close_also_in_place() {
    let mut random = Random::new(14);
    for length in LENGTHS {
        for dtype in DTYPES {
            let x = random.typed(dtype, &[length], 0.0, 9.0);
            let dst = Operand::empty(random.dtype(), &[length]);
            let expected: Vec<f64> =
                x.values.iter().map(|&x| x as f64 * sigmoid(x as f64)).collect();
            let result = run(&[x.clone(), dst.clone()], &[1], |device, t| {
                device.silu(&t[0], &mut t[1].clone());
            });
            check("silu", dst.dtype, &result[1], &expected);
            let result = run(std::slice::from_ref(&x), &[0], |device, t| {
                device.silu(&t[0], &mut t[0].clone());
            });
            check("silu in place", dtype, &result[0], &expected);
        }
    }
}

#[test]
fn gelu_gate_is_close() {
    let mut random = Random::new(15);
    for length in LENGTHS {
        for dtype in DTYPES {
            let (x, dst) =
                (random.tensor(&[length], 0.5, 1.0), random.typed(dtype, &[length], 0.0, 4.0));
            let expected: Vec<f64> = (0..length)
                .map(|n| {
                    let d = dst.at(n);
                    let u = (2.0 / std::f64::consts::PI).sqrt() * (d + 0.044715 * d.powi(3));
                    0.5 * d * (1.0 + u.tanh()) * x.at(n)
                })
                .collect();
            let result = run(&[x, dst], &[1], |device, t| {
                device.gelu_gate(&t[0], &mut t[1].clone());
            });
            check("gelu_gate", dtype, &result[1], &expected);
        }
    }
}

#[test]
fn gated_residuals_are_exact() {
    let mut random = Random::new(16);
    for [rows, columns] in [[1, 1], [3, 5], [1000, 17], [70, 3072], [3, 4096], [2, 80001]] {
        let (x, gate, dst) = (
            random.tensor(&[rows, columns], 0.0, 2.0),
            random.tensor(&[columns], 0.0, 2.0),
            random.tensor(&[rows, columns], 0.0, 2.0),
        );
        let expected: Vec<f32> = (0..rows * columns)
            .map(|n| dst.values[n] + gate.values[n % columns] * x.values[n])
            .collect();
        let dtype = dst.dtype;
        let result = run(&[x, gate, dst], &[2], |device, t| {
            device.gated_residual(&t[0], &t[1], &mut t[2].clone());
        });
        check_exact("gated_residual", dtype, &result[2], &expected);
    }
}
