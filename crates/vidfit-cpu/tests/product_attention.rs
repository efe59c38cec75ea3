//! Attention against the formula in f64, and the same bits for every number of threads.

mod ops_bed;
mod product_bed;
use ops_bed::*;
use product_bed::check_within;
use vidfit_cpu::CpuDevice;
use vidfit_tensor::*;

struct Case {
    rows: usize,
    heads: usize,
    head_dim: usize,
    scale: f32,
    bias: bool,
    spread: f32,
}

fn attention(device: &CpuDevice, case: &Case, t: &[Tensor], dst: usize, first_column: usize) {
    let op = Attention {
        q: &t[0],
        k: &t[1],
        v: &t[2],
        heads: case.heads,
        scale: case.scale,
        bias: case.bias.then_some(&t[3]),
        first_column,
    };
    device.attention(op, &mut t[dst].clone());
}

fn expected(case: &Case, operands: &[Operand]) -> Vec<f64> {
    let &Case { rows, heads, head_dim, .. } = case;
    let [q, k, v, bias] = &operands[..4] else { unreachable!() };
    let columns = heads * head_dim;
    let mut out = vec![0.0; rows * columns];
    for head in 0..heads {
        let at = |row: usize, i: usize| row * columns + head * head_dim + i;
        for query in 0..rows {
            let scores: Vec<f64> = (0..rows)
                .map(|key| {
                    let dot = (0..head_dim).map(|i| q.at(at(query, i)) * k.at(at(key, i)));
                    let score = f64::from(case.scale) * dot.sum::<f64>();
                    let bias_at = head * (2 * rows - 1) + key + rows - 1 - query;
                    score + if case.bias { bias.at(bias_at) } else { 0.0 }
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..head_dim {
                let sum: f64 = (0..rows).map(|key| weights[key] * v.at(at(key, i))).sum();
                out[at(query, i)] = sum / total;
            }
        }
    }
    out
}

fn operands(random: &mut Random, case: &Case) -> Vec<Operand> {
    let shape = [case.rows, case.heads * case.head_dim];
    vec![
        random.tensor(&shape, 0.0, case.spread),
        random.tensor(&shape, 0.0, case.spread),
        random.tensor(&shape, 0.0, 1.0),
        random.tensor(&[case.heads, 2 * case.rows - 1], 0.0, 2.0),
        Operand::empty(random.dtype(), &shape),
    ]
}

fn compare(random: &mut Random, case: &Case) {
    let operands = operands(random, case);
    let expected = expected(case, &operands);
    let what = format!("{} rows, {} x {}", case.rows, case.heads, case.head_dim);
    // Errors of the scores are multiplied by the size of what they are the exponents of.
    let largest = f64::from(case.scale * case.spread * case.spread) * case.head_dim as f64;
    let slack = 2e-6 + 2e-7 * largest;
    let apart = run(&operands, &[4], |device, t| attention(device, case, t, 4, 0)).swap_remove(4);
    check_within(&what, operands[4].dtype, &apart, &expected, slack);
    let over = run(&operands, &[0], |device, t| attention(device, case, t, 0, 0)).swap_remove(0);
    check_within(&what, operands[0].dtype, &over, &expected, slack);
    if operands[0].dtype == operands[4].dtype {
        assert!(over == apart);
    }
    among_others(random, case, operands, &apart);
}

/// The result stands between other columns, which stay as they are.
fn among_others(random: &mut Random, case: &Case, mut operands: Vec<Operand>, apart: &[f32]) {
    let columns = case.heads * case.head_dim;
    let (first, behind) = (random.between(0, 40), random.between(0, 40));
    let width = first + columns + behind;
    operands[4] = random.typed(operands[4].dtype, &[case.rows, width], 0.0, 1.0);
    let before = operands[4].values.clone();
    let all = run(&operands, &[4], |device, t| attention(device, case, t, 4, first));
    let rows = all[4].chunks_exact(width).zip(before.chunks_exact(width));
    for ((row, before), apart) in rows.zip(apart.chunks_exact(columns)) {
        assert!(row[first..first + columns] == *apart);
        assert!(row[..first] == before[..first]);
        assert!(row[first + columns..] == before[first + columns..]);
    }
}

#[test]
fn few_rows() {
    let mut random = Random::new(6);
    for _ in 0..25 {
        let case = Case {
            rows: random.between(1, 60),
            heads: random.between(1, 3),
            head_dim: 8 * random.between(1, 9),
            scale: 0.125 + random.between(0, 1) as f32,
            bias: random.between(0, 1) == 1,
            spread: 1.0,
        };
        compare(&mut random, &case);
    }
}

#[test]
fn several_tiles() {
    let mut random = Random::new(7);
    let long = Case { rows: 1000, heads: 2, head_dim: 64, scale: 0.125, bias: false, spread: 1.0 };
    compare(&mut random, &long);
    compare(&mut random, &Case { rows: 226, heads: 1, scale: 1.0, bias: true, ..long });
    compare(&mut random, &Case { rows: 300, heads: 1, head_dim: 256, ..long });
    compare(&mut random, &Case { rows: 512, heads: 1, head_dim: 40, bias: true, ..long });
}

#[test]
fn large_scores() {
    let mut random = Random::new(8);
    let case = Case { rows: 530, heads: 1, head_dim: 64, scale: 1.0, bias: true, spread: 20.0 };
    compare(&mut random, &case);
}
