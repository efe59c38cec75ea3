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

type Op<'a> = dyn Fn(&dyn Device, &[Tensor]) + 'a;

fn without_bias(device: &dyn Device, t: &[Tensor]) {
    let op = Linear { x: &t[0], weight: &t[1], bias: None, activation: Activation::None };
    device.linear(op, &mut t[3].clone());
}

fn exact(bed: Bed, case: Case, random: &mut Random, activation: Activation) {
    let operands = case.operands(|dtype, shape| eighths(random, dtype, shape));
    let what = format!("{case:?}, {activation:?}");
    bed.compare(&what, &operands, &[3], 0.0, 0.0, |d, t| product(d, t, activation));
}

/// Rows, columns, depth: tails in every dimension, and whole tiles.
const SHAPES: [[usize; 3]; 5] = [[1, 1, 1], [3, 5, 7], [16, 64, 64], [17, 66, 33], [70, 65, 100]];

fn all_types(bed: Bed) {
    let mut random = Random::new(1);
    for x in DTYPES {
        for weight in DTYPES {
            for (n, target) in DTYPES.into_iter().enumerate() {
                let [rows, columns, depth] = if x == weight { [17, 66, 33] } else { [5, 67, 22] };
                let case = Case { rows, columns, depth, x, weight, target };
                exact(bed, case, &mut random, ACTIVATIONS[n]);
            }
        }
    }
}

fn all_shapes(bed: Bed) {
    let mut random = Random::new(2);
    for dtype in DTYPES {
        for [rows, columns, depth] in SHAPES {
            let case = Case { rows, columns, depth, x: dtype, weight: dtype, target: dtype };
            exact(bed, case, &mut random, Activation::None);
        }
    }
}

/// The tiles of many rows; the last of them are not whole in either direction.
fn many_rows(bed: Bed) {
    let mut random = Random::new(3);
    for dtype in DTYPES {
        for [rows, columns, depth] in [[513, 65, 40], [513, 131, 6]] {
            let case = Case { rows, columns, depth, x: dtype, weight: dtype, target: dtype };
            exact(bed, case, &mut random, Activation::None);
        }
    }
}

/// More steps than are ever under way at once, with fewer, as many and more than the stages there are.
fn many_steps(bed: Bed) {
    let mut random = Random::new(4);
    for dtype in [DType::BF16, DType::F16] {
        for depth in [160, 192, 224, 320] {
            let case = Case { rows: 9, columns: 10, depth, x: dtype, weight: dtype, target: dtype };
            exact(bed, case, &mut random, Activation::None);
        }
    }
    let (x, weight, target) = (DType::F16, DType::F16, DType::F32);
    let case = Case { rows: 513, columns: 65, depth: 168, x, weight, target };
    exact(bed, case, &mut random, Activation::None);
}

/// The CPU's sums are the same chains.
fn chains_have_the_cpus_bits(bed: Bed) {
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
            bed.compare(&what, &operands, &[3], 0.0, 0.0, |d, t| product(d, t, activation));
        }
    }
    let (x, weight, target) = (DType::F32, DType::F32, DType::F32);
    let case = Case { rows: 513, columns: 131, depth: 37, x, weight, target };
    let operands = case.operands(|dtype, shape| random.typed(dtype, shape, 0.0, 1.0));
    bed.compare("many rows", &operands, &[3], 0.0, 0.0, |d, t| product(d, t, Activation::GeluTanh));
}

/// Tensor cores add sixteen products at once, the CPU one: each of the CPU's sums is wrong by half a step
/// at most, and no partial sum passes 4. Rounded to half the bits, a result is the CPU's or beside it.
fn tensor_cores_are_close(bed: Bed) {
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
                bed.compare(&what, &operands, &[3], ulps, scale, op);
            }
        }
    }
}

/// A row has the same bits alone, among a few, and among many, where another kernel makes it.
fn rows_do_not_depend_on_their_number(bed: Bed) {
    let mut random = Random::new(8);
    for (x, weight) in
        [(DType::F16, DType::F16), (DType::BF16, DType::BF16), (DType::BF16, DType::F32)]
    {
        let case = Case { rows: 513, columns: 66, depth: 72, x, weight, target: DType::F32 };
        let operands = case.operands(|dtype, shape| random.typed(dtype, shape, 0.0, 1.0));
        let parts = |parts: &'static [usize]| {
            let results = bed.run(&operands, &[3], |device, t| {
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

/// Many launches, each for a tile's rows, make the bits of one.
fn products_are_the_same_in_many_launches(bed: Bed) {
    let mut random = Random::new(12);
    let in_launches_of = |multiply_adds, operands: &[Operand], op: &Op<'_>| {
        bed.with_launches_of(Some(multiply_adds), |card| run_on(card, operands, op))
    };
    for (x, weight) in
        [(DType::F16, DType::F16), (DType::BF16, DType::BF16), (DType::F32, DType::F16)]
    {
        let case = Case { rows: 300, columns: 20, depth: 72, x, weight, target: weight };
        let mut operands = case.operands(|dtype, shape| random.typed(dtype, shape, 0.0, 1.0));
        // A frame's pixels are rows, too.
        operands[0].shape = vec![3, 100, 72];
        operands[3].shape = vec![3, 100, 20];
        let op: &Op<'_> = &|d, t| product(d, t, Activation::GeluTanh);
        let whole = in_launches_of(u64::MAX, &operands, op).swap_remove(3);
        assert!(whole.iter().all(|value| !value.is_nan()), "{x} times {weight}");
        let parts = in_launches_of(0, &operands, op).swap_remove(3);
        assert!(whole == parts, "{x} times {weight}");
    }
    let operands = [
        random.typed(DType::BF16, &[300, 20], 0.0, 1.0),
        random.tensor(&[4, 20], 0.0, 1.0),
        random.tensor(&[300, 4], 0.0, 1.0),
    ];
    let op: &Op<'_> = &|d, t| add(d, t, &[0.3]);
    let whole = in_launches_of(u64::MAX, &operands, op).swap_remove(0);
    assert!(whole != operands[0].values, "nothing was added");
    assert!(whole == in_launches_of(0, &operands, op).swap_remove(0), "a low-rank sum");
}

fn without_a_bias(bed: Bed) {
    let mut random = Random::new(9);
    for dtype in DTYPES {
        let case = Case { rows: 18, columns: 9, depth: 24, x: dtype, weight: dtype, target: dtype };
        let operands = case.operands(|dtype, shape| eighths(&mut random, dtype, shape));
        bed.compare("no bias", &operands, &[3], 0.0, 0.0, without_bias);
    }
}

/// Parts of tensors that begin where no wide load may. They are the bits of aligned ones.
fn parts_of_tensors(bed: Bed) {
    let mut random = Random::new(10);
    const DEPTH: usize = 40;
    {
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
                bed.compare(&what, &operands, &[3], 0.0, 0.0, op);
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

fn low_rank_sums_have_the_cpus_bits(bed: Bed) {
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
            bed.compare(&what, &operands, &[0], 0.0, 0.0, |d, t| add(d, t, &factors));
        }
    }
}

/// Quarters of a step of bf16: each would vanish by itself, two and a little make a step.
fn several_products_are_rounded_once(bed: Bed) {
    let quarter = 1.0 / 512.0;
    let weight = Operand { dtype: DType::BF16, shape: vec![1, 1], values: vec![1.0] };
    let one = |value: f32| Operand { dtype: DType::F32, shape: vec![1, 1], values: vec![value] };
    let operands = [weight, one(quarter), one(1.0), one(1.0), one(quarter), one(1.0), one(1e-7)];
    let sum = bed.run(&operands, &[0], |device, t| add(device, t, &[1.0, 1.0, 1.0])).swap_remove(0);
    assert_eq!(sum, [1.0 + 4.0 * quarter]);
    let alone = bed.run(&operands[..3], &[0], |device, t| add(device, t, &[1.0])).swap_remove(0);
    assert_eq!(alone, [1.0]);
}

test_with_tensor_cores!(
    all_types,
    all_shapes,
    many_rows,
    many_steps,
    chains_have_the_cpus_bits,
    tensor_cores_are_close,
    rows_do_not_depend_on_their_number,
    products_are_the_same_in_many_launches,
    without_a_bias,
    parts_of_tensors,
    low_rank_sums_have_the_cpus_bits,
    several_products_are_rounded_once,
);
