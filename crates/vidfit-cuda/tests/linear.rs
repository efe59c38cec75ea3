//! Matrix products.
//!
//! Most operands are eighths: every sum is then exact, in any order, and the card must have the CPU's
//! bits. With other values only chains in f32 have them.

mod bed;
use bed::*;
use vidfit_tensor::*;

const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Silu, Activation::GeluTanh];

/// From -1 to 1 in steps of an eighth.
fn eighths(random: &mut Random, dtype: DType, shape: &[usize]) -> Operand {
    let elements = shape.iter().product();
    let values = (0..elements).map(|_| random.between(0, 16) as f32 / 8.0 - 1.0).collect();
    Operand { dtype, shape: shape.to_vec(), values }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    columns: usize,
    depth: usize,
    x: DType,
    weight: DType,
    target: DType,
}

impl Case {
    /// x, weight, bias and target, made by `make`.
    fn operands(self, mut make: impl FnMut(DType, &[usize]) -> Operand) -> Vec<Operand> {
        let Case { rows, columns, depth, x, weight, target } = self;
        vec![
            make(x, &[rows, depth]),
            make(weight, &[columns, depth]),
            make(weight, &[columns]),
            Operand::empty(target, &[rows, columns]),
        ]
    }
}

fn product(device: &dyn Device, t: &[Tensor], activation: Activation) {
    let op = Linear { x: &t[0], weight: &t[1], bias: Some(&t[2]), activation };
    device.linear(op, &mut t[3].clone());
}

fn without_bias(device: &dyn Device, t: &[Tensor]) {
    let op = Linear { x: &t[0], weight: &t[1], bias: None, activation: Activation::None };
    device.linear(op, &mut t[3].clone());
}

fn exact(architecture: u32, case: Case, random: &mut Random, activation: Activation) {
    let operands = case.operands(|dtype, shape| eighths(random, dtype, shape));
    let what = format!("{case:?}, {activation:?}, on {architecture}");
    compare_for(architecture, &what, &operands, &[3], 0.0, 0.0, |d, t| product(d, t, activation));
}

/// Rows, columns, depth: tails in every dimension, and whole tiles.
const SHAPES: [[usize; 3]; 5] = [[1, 1, 1], [3, 5, 7], [16, 64, 64], [17, 66, 33], [70, 65, 100]];

#[test]
fn all_types() {
    let mut random = Random::new(1);
    for x in DTYPES {
        for weight in DTYPES {
            for (n, target) in DTYPES.into_iter().enumerate() {
                let [rows, columns, depth] = if x == weight { [17, 66, 33] } else { [5, 67, 22] };
                let case = Case { rows, columns, depth, x, weight, target };
                exact(ARCHITECTURES[0], case, &mut random, ACTIVATIONS[n]);
            }
        }
    }
}

#[test]
fn all_shapes() {
    let mut random = Random::new(2);
    for dtype in DTYPES {
        for [rows, columns, depth] in SHAPES {
            let case = Case { rows, columns, depth, x: dtype, weight: dtype, target: dtype };
            exact(ARCHITECTURES[0], case, &mut random, Activation::None);
        }
    }
}

/// The tiles of many rows; the last of them are not whole in either direction.
#[test]
fn many_rows() {
    let mut random = Random::new(3);
    for dtype in DTYPES {
        for [rows, columns, depth] in [[513, 65, 40], [513, 131, 6]] {
            let case = Case { rows, columns, depth, x: dtype, weight: dtype, target: dtype };
            exact(ARCHITECTURES[0], case, &mut random, Activation::None);
        }
    }
}

/// More steps than are ever under way at once, with fewer, as many and more than the stages there are.
#[test]
fn many_steps() {
    let mut random = Random::new(4);
    for depth in [160, 192, 224, 320] {
        let (x, weight, target) = (DType::BF16, DType::BF16, DType::BF16);
        let case = Case { rows: 9, columns: 10, depth, x, weight, target };
        exact(ARCHITECTURES[0], case, &mut random, Activation::None);
    }
    let (x, weight, target) = (DType::F16, DType::F16, DType::F32);
    let case = Case { rows: 513, columns: 65, depth: 168, x, weight, target };
    exact(ARCHITECTURES[0], case, &mut random, Activation::None);
}

#[test]
fn the_oldest_architecture() {
    let mut random = Random::new(5);
    let mut check = |dtype: DType, [rows, columns, depth]: [usize; 3]| {
        let case = Case { rows, columns, depth, x: dtype, weight: dtype, target: dtype };
        exact(ARCHITECTURES[1], case, &mut random, Activation::Silu);
    };
    for shape in [[1, 1, 1], [17, 66, 33], [9, 10, 100], [513, 66, 40]] {
        check(DType::F16, shape);
    }
    for shape in [[3, 5, 7], [17, 20, 33]] {
        check(DType::BF16, shape);
    }
}

/// The CPU's sums are the same chains.
#[test]
fn chains_have_the_cpus_bits() {
    let mut random = Random::new(6);
    let mixes = [
        (DType::F32, DType::F32),
        (DType::F32, DType::BF16),
        (DType::BF16, DType::F32),
        (DType::F16, DType::F32),
        (DType::F16, DType::BF16),
    ];
    for (n, (x, weight)) in mixes.into_iter().enumerate() {
        for [rows, columns, depth] in [[3, 5, 7], [16, 64, 64], [70, 65, 100]] {
            let case = Case { rows, columns, depth, x, weight, target: DType::F32 };
            let operands = case.operands(|dtype, shape| random.typed(dtype, shape, 0.0, 1.0));
            let activation = ACTIVATIONS[n % 3];
            let what = format!("{case:?}, {activation:?}");
            compare(&what, &operands, &[3], 0.0, 0.0, |d, t| product(d, t, activation));
        }
    }
    let (x, weight, target) = (DType::F32, DType::F32, DType::F32);
    let case = Case { rows: 513, columns: 131, depth: 37, x, weight, target };
    let operands = case.operands(|dtype, shape| random.typed(dtype, shape, 0.0, 1.0));
    compare("many rows", &operands, &[3], 0.0, 0.0, |d, t| product(d, t, Activation::GeluTanh));
}

/// Tensor cores add sixteen products at once, the CPU one: each of the CPU's sums is wrong by half a step
/// at most, and no partial sum passes 4. Rounded to half the bits, a result is the CPU's or beside it.
#[test]
fn tensor_cores_are_close() {
    let mut random = Random::new(7);
    for dtype in [DType::F16, DType::BF16] {
        for target in [DType::F32, dtype] {
            for (activation, depth) in ACTIVATIONS.into_iter().zip([16, 40, 100]) {
                let case = Case { rows: 20, columns: 70, depth, x: dtype, weight: dtype, target };
                let operands = case.operands(|dtype, shape| random.typed(dtype, shape, 0.0, 0.4));
                let (ulps, scale) =
                    if target == DType::F32 { (depth as f32 / 2.0, 4.0) } else { (1.0, 0.25) };
                let what = format!("{case:?}, {activation:?}");
                let op = |d: &dyn Device, t: &[Tensor]| product(d, t, activation);
                compare(&what, &operands, &[3], ulps, scale, op);
            }
        }
    }
}

/// A row has the same bits alone, among a few, and among many, where another kernel makes it.
#[test]
fn rows_do_not_depend_on_their_number() {
    let mut random = Random::new(8);
    for (x, weight) in
        [(DType::F16, DType::F16), (DType::BF16, DType::BF16), (DType::BF16, DType::F32)]
    {
        let case = Case { rows: 513, columns: 66, depth: 72, x, weight, target: DType::F32 };
        let operands = case.operands(|dtype, shape| random.typed(dtype, shape, 0.0, 1.0));
        let parts = |parts: &'static [usize]| {
            let results = run(&operands, &[3], |device, t| {
                let mut first = 0;
                for &rows in parts {
                    let part = first..first + rows;
                    let t =
                        [t[0].slice(part.clone()), t[1].clone(), t[2].clone(), t[3].slice(part)];
                    product(device, &t, Activation::GeluTanh);
                    first += rows;
                }
            });
            results[3].clone()
        };
        let (whole, split) = (parts(&[513]), parts(&[1, 2, 16, 17, 64]));
        let made = 100 * 66;
        for (i, (a, b)) in whole.iter().zip(&split).take(made).enumerate() {
            assert_eq!(a.to_bits(), b.to_bits(), "element {i} of {x} times {weight}");
        }
        assert!(split[made..].iter().all(|value| value.is_nan()), "rows that nobody asked for");
    }
}

#[test]
fn without_a_bias() {
    let mut random = Random::new(9);
    for dtype in DTYPES {
        let case = Case { rows: 18, columns: 9, depth: 24, x: dtype, weight: dtype, target: dtype };
        let operands = case.operands(|dtype, shape| eighths(&mut random, dtype, shape));
        compare("no bias", &operands, &[3], 0.0, 0.0, without_bias);
    }
}

/// Parts of tensors that begin where no wide load may. They are the bits of aligned ones.
#[test]
fn parts_of_tensors() {
    let mut random = Random::new(10);
    const DEPTH: usize = 40;
    for architecture in ARCHITECTURES {
        for dtype in [DType::F32, DType::F16] {
            for (x_first, weight_first, target_first) in [(1, 0, 0), (0, 3, 0), (2, 4, 1)] {
                let operands = [
                    eighths(&mut random, dtype, &[20 * DEPTH + 5]),
                    eighths(&mut random, dtype, &[12 * DEPTH + 5]),
                    eighths(&mut random, dtype, &[15]),
                    Operand::empty(dtype, &[20 * 12 + 5]),
                ];
                let bytes = dtype.bytes();
                let op = |device: &dyn Device, t: &[Tensor]| {
                    let parts = [
                        t[0].recast(x_first * bytes, dtype, [20, DEPTH]),
                        t[1].recast(weight_first * bytes, dtype, [12, DEPTH]),
                        t[2].slice(3..15),
                        t[3].recast(target_first * bytes, dtype, [20, 12]),
                    ];
                    product(device, &parts, Activation::None);
                };
                let what = format!("{dtype} from {x_first}, {weight_first}, {target_first}");
                compare_for(architecture, &what, &operands, &[3], 0.0, 0.0, op);
            }
        }
    }
}

/// Adds products with these factors to `t[0]`; the two matrices of each follow it.
fn add(device: &dyn Device, t: &[Tensor], factors: &[f32]) {
    let terms = t[1..].chunks_exact(2).zip(factors);
    let terms: Vec<LowRank<'_>> =
        terms.map(|(ab, &factor)| LowRank { a: &ab[0], b: &ab[1], factor }).collect();
    device.low_rank_add(&terms, &mut t[0].clone());
}

#[test]
fn low_rank_sums_have_the_cpus_bits() {
    let mut random = Random::new(11);
    for (rows, columns, ranks) in [
        (1, 1, &[1][..]),
        (9, 40, &[4, 16]),
        (64, 64, &[32]),
        (65, 67, &[5, 1, 33]),
        (130, 30, &[16, 17]),
    ] {
        for dtype in DTYPES {
            let mut operands = vec![random.typed(dtype, &[rows, columns], 0.0, 1.0)];
            let factors: Vec<f32> = ranks.iter().map(|_| 2.0 * random.unit()).collect();
            for &rank in ranks {
                operands.push(random.tensor(&[rank, columns], 0.0, 1.0));
                operands.push(random.tensor(&[rows, rank], 0.0, 1.0));
            }
            let what = format!("{rows}x{columns}, ranks {ranks:?}, {dtype}");
            compare(&what, &operands, &[0], 0.0, 0.0, |d, t| add(d, t, &factors));
        }
    }
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
