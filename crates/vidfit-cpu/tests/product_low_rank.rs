//! Low-rank sums against plain sums in f64, and the one rounding that they have.

mod ops_bed;
mod product_bed;
use ops_bed::*;
use product_bed::check_within;
use vidfit_cpu::CpuDevice;
use vidfit_tensor::*;

/// Adds products with these factors to `t[0]`; the two matrices of each follow it.
fn add(device: &CpuDevice, t: &[Tensor], factors: &[f32]) {
    let terms = t[1..].chunks_exact(2).zip(factors);
    let terms: Vec<LowRank<'_>> =
        terms.map(|(ab, &factor)| LowRank { a: &ab[0], b: &ab[1], factor }).collect();
    device.low_rank_add(&terms, &mut t[0].clone());
}

fn compare(random: &mut Random, rows: usize, columns: usize, ranks: &[usize]) {
    let weight = random.tensor(&[rows, columns], 0.0, 1.0);
    let mut operands = vec![weight.clone()];
    let factors: Vec<f32> = ranks.iter().map(|_| 2.0 * random.unit()).collect();
    for &rank in ranks {
        operands.push(random.tensor(&[rank, columns], 0.0, 1.0));
        operands.push(random.tensor(&[rows, rank], 0.0, 1.0));
    }
    let result = run(&operands, &[0], |device, t| add(device, t, &factors)).swap_remove(0);
    let mut expected: Vec<f64> = weight.values.iter().map(|&value| f64::from(value)).collect();
    for ((ab, &factor), &rank) in operands[1..].chunks_exact(2).zip(&factors).zip(ranks) {
        for (index, sum) in expected.iter_mut().enumerate() {
            let (i, j) = (index / columns, index % columns);
            let product = |k: usize| ab[1].at(i * rank + k) * ab[0].at(k * columns + j);
            *sum += f64::from(factor) * (0..rank).map(product).sum::<f64>();
        }
    }
    let slack: f64 = ranks.iter().map(|&rank| 2e-6 + 2e-7 * rank as f64).sum();
    check_within(
        &format!("{rows}x{columns}, ranks {ranks:?}"),
        weight.dtype,
        &result,
        &expected,
        slack,
    );
}

#[test]
fn small_weights() {
    let mut random = Random::new(11);
    for _ in 0..60 {
        let (rows, columns) = (random.between(1, 50), random.between(1, 70));
        let ranks: Vec<usize> = (0..random.between(1, 3)).map(|_| random.between(1, 9)).collect();
        compare(&mut random, rows, columns, &ranks);
    }
}

/// More than a block of rows, and more than a slice of the rank.
#[test]
fn large_weights() {
    let mut random = Random::new(12);
    compare(&mut random, 300, 40, &[128]);
    compare(&mut random, 20, 33, &[300, 5]);
    compare(&mut random, 513, 65, &[257]);
}

/// Quarters of a step of bf16: each would vanish by itself, two and a little make a step.
#[test]
fn several_products_are_rounded_once() {
    let quarter = 1.0 / 512.0;
    let weight = Operand { dtype: DType::BF16, shape: vec![1, 1], values: vec![1.0] };
    let one = |value: f32| Operand { dtype: DType::F32, shape: vec![1, 1], values: vec![value] };
    let operands = [weight, one(quarter), one(1.0), one(1.0), one(quarter), one(1.0), one(1e-7)];
    let sum = run(&operands, &[0], |device, t| add(device, t, &[1.0, 1.0, 1.0])).swap_remove(0);
    assert_eq!(sum, [1.0 + 4.0 * quarter]);
    let alone = run(&operands[..3], &[0], |device, t| add(device, t, &[1.0])).swap_remove(0);
    assert_eq!(alone, [1.0]);
}

#[test]
fn a_factor_of_nothing_changes_nothing() {
    let mut random = Random::new(13);
    let weight = random.tensor(&[9, 40], 0.0, 1.0);
    let operands =
        [weight.clone(), random.tensor(&[3, 40], 0.0, 1.0), random.tensor(&[9, 3], 0.0, 1.0)];
    let same = run(&operands, &[0], |device, t| add(device, t, &[0.0])).swap_remove(0);
    check_exact("zero", weight.dtype, &same, &weight.values);
}
