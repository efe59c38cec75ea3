//! Linear layers against a plain sum in f64, and the same bits however the rows are divided.

mod ops_bed;
mod product_bed;
use ops_bed::*;
use product_bed::check_within;
use vidfit_cpu::CpuDevice;
use vidfit_tensor::*;

/// How far f32 sums of `depth` products of numbers up to 1 may be off: the partial sums wander,
/// so the error grows as their number.
fn slack(depth: usize) -> f64 {
    1e-6 + 6e-8 * depth as f64
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

fn linear(device: &CpuDevice, t: &[Tensor], bias: bool, activation: Activation) {
    let op = Linear { x: &t[0], weight: &t[1], bias: bias.then_some(&t[2]), activation };
    device.linear(op, &mut t[3].clone());
}

fn compare(random: &mut Random, rows: usize, depth: usize, columns: usize) {
    let x = random.tensor(&[rows, depth], 0.0, 1.0);
    let weight = random.tensor(&[columns, depth], 0.0, 1.0);
    let bias = random.tensor(&[columns], 0.0, 1.0);
    let dst = Operand::empty(random.dtype(), &[rows, columns]);
    let with_bias = random.between(0, 1) == 1;
    let activation =
        [Activation::None, Activation::Silu, Activation::GeluTanh][random.between(0, 2)];
    let operands = [x.clone(), weight.clone(), bias.clone(), dst.clone()];
    let result =
        run(&operands, &[3], |device, t| linear(device, t, with_bias, activation)).swap_remove(3);
    let mut expected = Vec::new();
    for i in 0..rows {
        for j in 0..columns {
            let products = (0..depth).map(|k| x.at(i * depth + k) * weight.at(j * depth + k));
            let sum = products.sum::<f64>() + if with_bias { bias.at(j) } else { 0.0 };
            expected.push(activate(activation, sum));
        }
    }
    let what = format!("{rows}x{depth}x{columns}, {activation:?}");
    check_within(&what, dst.dtype, &result, &expected, slack(depth));
}

#[test]
fn small_layers() {
    let mut random = Random::new(2);
    for _ in 0..60 {
        let rows = random.between(1, 40);
        let depth = random.between(1, 70);
        let columns = random.between(1, 80);
        compare(&mut random, rows, depth, columns);
    }
}

#[test]
fn layers_of_several_blocks() {
    let mut random = Random::new(3);
    compare(&mut random, 1000, 300, 70);
    compare(&mut random, 13, 1000, 1700);
    compare(&mut random, 1, 512, 100);
    compare(&mut random, 481, 257, 33);
}

#[test]
fn a_row_does_not_know_the_others() {
    let mut random = Random::new(4);
    let (rows, depth, columns) = (700, 530, 75);
    let x = random.typed(DType::F32, &[rows, depth], 0.0, 1.0);
    let weight = random.typed(DType::BF16, &[columns, depth], 0.0, 1.0);
    let bias = random.typed(DType::F32, &[columns], 0.0, 1.0);
    let product = |rows: std::ops::Range<usize>| {
        let x = Operand {
            shape: vec![rows.len(), depth],
            values: x.values[rows.start * depth..rows.end * depth].to_vec(),
            ..x.clone()
        };
        let dst = Operand::empty(DType::F32, &[rows.len(), columns]);
        run(&[x, weight.clone(), bias.clone(), dst], &[3], |device, t| {
            linear(device, t, true, Activation::GeluTanh);
        })
        .swap_remove(3)
    };
    let all = product(0..rows);
    for part in [0..1, 3..16, 480..700, 699..700] {
        assert!(product(part.clone()) == all[part.start * columns..part.end * columns]);
    }
}

#[test]
fn a_weight_in_host_memory() {
    let mut random = Random::new(5);
    let x = random.typed(DType::F32, &[5, 24], 0.0, 1.0);
    let weight = random.typed(DType::F32, &[7, 24], 0.0, 1.0);
    let dst = Operand::empty(DType::F32, &[5, 7]);
    // An element of padding first, as in a file with a header.
    let bytes: Vec<u8> =
        [&[0.0], &weight.values[..]].concat().iter().flat_map(|v| v.to_le_bytes()).collect();
    let bytes: std::sync::Arc<dyn HostBytes> = std::sync::Arc::new(bytes);
    let result = run(&[x.clone(), dst], &[1], |device, t| {
        let weight = Tensor::from_host(bytes.clone(), 4, DType::F32, [7, 24]);
        let op = Linear { x: &t[0], weight: &weight, bias: None, activation: Activation::None };
        device.linear(op, &mut t[1].clone());
    });
    let dot = |i: usize, j: usize| (0..24).map(|k| x.at(i * 24 + k) * weight.at(j * 24 + k)).sum();
    let expected: Vec<f64> = (0..35).map(|n| dot(n / 7, n % 7)).collect();
    check_within("host", DType::F32, &result[1], &expected, slack(24));
}
