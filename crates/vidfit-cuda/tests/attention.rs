//! Attention: on tensor cores for heads of 64 in half precision, in f32 for everything else.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

mod bed;
use bed::*;
use vidfit_tensor::*;

const HALVES: [DType; 2] = [DType::F16, DType::BF16];

#[derive(Clone, Copy)]
struct Case {
    rows: usize,
    heads: usize,
    head_dim: usize,
    scale: f32,
    /// Of queries, keys, values, result.
    types: [DType; 4],
    bias: Option<DType>,
    /// Of queries and keys.
    spread: f32,
}

impl Case {
    fn half(dtype: DType, rows: usize, heads: usize) -> Case {
        let types = [dtype; 4];
        Case { rows, heads, head_dim: 64, scale: 0.125, types, bias: None, spread: 2.0 }
    }

    fn shape(&self) -> [usize; 2] {
        [self.rows, self.heads * self.head_dim]
    }

    /// Queries, keys, values, bias, and a result that is not there yet.
    fn operands(&self, random: &mut Random) -> Vec<Operand> {
        let [q, k, v, dst] = self.types;
        let bias = self.bias.unwrap_or(DType::F32);
        vec![
            random.typed(q, &self.shape(), 0.0, self.spread),
            random.typed(k, &self.shape(), 0.0, self.spread),
            random.typed(v, &self.shape(), 0.0, 1.0),
            random.typed(bias, &[self.heads, 2 * self.rows - 1], 0.0, 2.0),
            Operand::empty(dst, &self.shape()),
        ]
    }

    fn run(&self, device: &dyn Device, t: &[Tensor], dst: &Tensor, first_column: usize) {
        let op = Attention {
            q: &t[0],
            k: &t[1],
            v: &t[2],
            heads: self.heads,
            scale: self.scale,
            bias: self.bias.map(|_| &t[3]),
            first_column,
        };
        device.attention(op, &mut dst.clone());
    }

    /// Whether weights are rounded before the product with the values, and to what.
    fn weight_rounding(&self) -> f64 {
        let [q, k, v, _] = self.types;
        match q == k && q == v && self.head_dim == 64 && self.scale > 0.0 {
            true => rounding(q),
            false => 0.0,
        }
    }

    /// How far the card may be from the CPU, for every element of the result `cpu`.
    ///
    /// - Both round the result: half a step each.
    /// - Tensor cores take weights in the type of the values. Each is rounded by itself, so errors
    ///   add up as their squares do: five times the root of these, but no more than their sum. Below
    ///   the least normal number of f16 the error is absolute, 2^-25 of the largest weight.
    /// - Scores are sums in another order, their powers are approximate (2^-22), and an error of a
    ///   score is multiplied by the size of what it is the exponent of.
    fn tolerances(&self, operands: &[Operand], cpu: &[f32]) -> Vec<f64> {
        let &Case { rows, heads, head_dim, .. } = self;
        let [q, k, v, bias] = &operands[..4] else { unreachable!() };
        let [_, columns] = self.shape();
        let largest = f64::from(self.scale.abs() * self.spread * self.spread) * head_dim as f64;
        let mut slack = 4e-6 + 4e-7 * largest;
        let rounded = self.weight_rounding();
        if rounded > 0.0 {
            slack += rows as f64 * 2.0f64.powi(-25);
        }
        let mut tolerances = vec![0.0; rows * columns];
        for head in 0..heads {
            let at = |row: usize, i: usize| row * columns + head * head_dim + i;
            for query in 0..rows {
                let score = |key: usize| {
                    let dot = (0..head_dim).map(|i| q.at(at(query, i)) * k.at(at(key, i)));
                    let bias_at = head * (2 * rows - 1) + key + rows - 1 - query;
                    let bias = self.bias.map_or(0.0, |_| bias.at(bias_at));
                    f64::from(self.scale) * dot.sum::<f64>() + bias
                };
                let scores: Vec<f64> = (0..rows).map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                for i in 0..head_dim {
                    let parts = (0..rows).map(|key| (weights[key] * v.at(at(key, i))).abs());
                    let (sum, squares) =
                        parts.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
                    let result = f64::from(cpu[at(query, i)]).abs();
                    tolerances[at(query, i)] = slack
                        + 2.0 * rounding(self.types[3]) * result
                        + rounded * sum.min(5.0 * f64::sqrt(squares)) / total;
                }
            }
        }
        tolerances
    }

    /// The same with a launch for every block of queries, every head, and every two.
    fn parts_have_the_bits_of_the_whole(&self, bed: Bed, random: &mut Random) {
        let operands = self.operands(random);
        let op = |d: &dyn Device, t: &[Tensor]| self.run(d, t, &t[4], 0);
        let of_head = 2 * (self.rows * self.rows * self.head_dim) as u64;
        let on = |launch_work: u64| {
            bed.with_launches_of(Some(launch_work), |card| run_on(card, &operands, &op))
                .swap_remove(4)
        };
        let whole = on(u64::MAX);
        for launch_work in [0, of_head, 2 * of_head] {
            assert!(whole == on(launch_work), "{:?}, launches of {launch_work}", self.types);
        }
    }

    fn compare(&self, bed: Bed, random: &mut Random) {
        let operands = self.operands(random);
        let op = |d: &dyn Device, t: &[Tensor]| self.run(d, t, &t[4], 0);
        let card = bed.run(&operands, &[4], op).swap_remove(4);
        let cpu = run_on_cpu(&operands, op).swap_remove(4);
        let tolerances = self.tolerances(&operands, &cpu);
        for (i, ((a, b), tolerance)) in card.iter().zip(&cpu).zip(tolerances).enumerate() {
            let distance = f64::from((a - b).abs());
            assert!(
                distance <= tolerance,
                "element {i} is {a} on the card, {b} on the CPU, more than {tolerance:.2e} away: \
                 {} rows, {} x {}, {:?}, bias {:?}",
                self.rows,
                self.heads,
                self.head_dim,
                self.types,
                self.bias
            );
        }
    }
}

/// How far the nearest number of a type is at most, relatively.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2.0f64.powi(-24),
        DType::F16 => 2.0f64.powi(-11),
        DType::BF16 => 2.0f64.powi(-8),
    }
}

/// The bits of a result that is written to t[4], of any shape.
fn bits(bed: Bed, operands: &[Operand], op: impl Fn(&dyn Device, &[Tensor])) -> Vec<u32> {
    bed.run(operands, &[4], op).swap_remove(4).iter().map(|x| x.to_bits()).collect()
}

fn halves_are_the_cpus(bed: Bed) {
    let mut random = Random::new(11);
    for dtype in HALVES {
        for rows in [1, 63, 64, 65, 130] {
            Case::half(dtype, rows, 1).compare(bed, &mut random);
        }
        let other = [dtype, dtype, dtype, DType::F32];
        Case { types: other, ..Case::half(dtype, 9, 3) }.compare(bed, &mut random);
    }
}

fn biases_are_added(bed: Bed) {
    let mut random = Random::new(12);
    for (dtype, bias, rows) in [
        (DType::F16, DType::F32, 1),
        (DType::F16, DType::BF16, 77),
        (DType::BF16, DType::F32, 140),
        (DType::BF16, DType::F16, 64),
    ] {
        let case = Case { bias: Some(bias), scale: 1.0, spread: 0.5, ..Case::half(dtype, rows, 2) };
        case.compare(bed, &mut random);
    }
}

fn large_scores_lose_no_row(bed: Bed) {
    let mut random = Random::new(13);
    for dtype in HALVES {
        let case = Case { spread: 20.0, scale: 1.0, ..Case::half(dtype, 260, 1) };
        case.compare(bed, &mut random);
    }
}

fn everything_else_is_exact(bed: Bed) {
    let mut random = Random::new(14);
    for head_dim in [1, 5, 40, 64, 65, 128] {
        let types = [random.dtype(), random.dtype(), random.dtype(), random.dtype()];
        let bias = (head_dim % 2 == 1).then(|| random.dtype());
        let (rows, heads) = (random.between(30, 140), random.between(1, 3));
        let scale = 2.0 / (head_dim as f32).sqrt();
        Case { rows, heads, head_dim, scale, types, bias, spread: 1.5 }.compare(bed, &mut random);
    }
    let f32s = Case { types: [DType::F32; 4], ..Case::half(DType::F32, 150, 2) };
    f32s.compare(bed, &mut random);
    Case { spread: 20.0, scale: 1.0, bias: Some(DType::F32), ..f32s }.compare(bed, &mut random);
    // The same order of keys as with a scale above zero would be the wrong one.
    Case { scale: -0.5, rows: 33, ..Case::half(DType::BF16, 33, 1) }.compare(bed, &mut random);
    Case { scale: 0.0, rows: 33, ..Case::half(DType::F16, 33, 1) }.compare(bed, &mut random);
}

/// The bits of a result with some of the operands one element behind a multiple of 256 bytes.
fn unaligned_bits(bed: Bed, case: &Case, operands: &[Operand], shifted: &[usize]) -> Vec<u32> {
    let mut operands = operands.to_vec();
    for &n in shifted {
        let Operand { dtype, values, .. } = &operands[n];
        let values: Vec<f32> = [0.0].into_iter().chain(values.iter().copied()).collect();
        operands[n] = Operand { dtype: *dtype, shape: vec![values.len()], values };
    }
    bits(bed, &operands, |d, t| {
        let mut views = t.to_vec();
        for &n in shifted {
            let elements = t[n].shape().elements();
            views[n] = t[n].slice(1..elements).reshape(case.shape());
        }
        case.run(d, &views, &t[4], 0);
    })
}

fn one_operand_that_is_not_aligned_is_enough(bed: Bed) {
    let mut random = Random::new(21);
    for dtype in DTYPES {
        let case = Case { types: [dtype; 4], ..Case::half(dtype, 9, 1) };
        let operands = case.operands(&mut random);
        let aligned = unaligned_bits(bed, &case, &operands, &[]);
        for n in 0..3 {
            let unaligned = unaligned_bits(bed, &case, &operands, &[n]);
            assert!(unaligned == aligned, "{dtype}: operand {n}");
        }
    }
}

/// The bits of a head are the same over the queries, among other columns, from memory that is not
/// aligned, and whichever heads are computed with it.
fn bits_depend_on_nothing_else(bed: Bed) {
    let mut random = Random::new(16);
    for dtype in DTYPES {
        let case = Case { types: [dtype; 4], ..Case::half(dtype, 70, 2) };
        let operands = case.operands(&mut random);
        let apart = bits(bed, &operands, |d, t| case.run(d, t, &t[4], 0));

        let over = bed.run(&operands, &[0], |d, t| case.run(d, t, &t[0], 0)).swap_remove(0);
        assert!(over.iter().map(|x| x.to_bits()).eq(apart.iter().copied()), "over the queries");

        // Between other columns, which stay as they are.
        let (first, width) = (3, 3 + 128 + 6);
        let mut wide = operands.clone();
        wide[4] = random.typed(dtype, &[case.rows, width], 0.0, 1.0);
        let among = bits(bed, &wide, |d, t| case.run(d, t, &t[4], first));
        for (row, apart) in apart.chunks_exact(128).enumerate() {
            let among = &among[row * width..][..width];
            let before = &wide[4].values[row * width..][..width];
            assert_eq!(among[first..first + 128], *apart, "among others");
            for column in (0..first).chain(first + 128..width) {
                assert_eq!(among[column], before[column].to_bits(), "column {column}");
            }
        }

        let unaligned = unaligned_bits(bed, &case, &operands, &[0, 1, 2]);
        assert!(unaligned == apart, "from memory that is not aligned");

        // The second head alone.
        let second = |operand: &Operand| {
            let rows = operand.values.chunks_exact(128);
            let values = rows.flat_map(|row| row[64..].iter().copied()).collect();
            Operand { dtype, shape: vec![case.rows, 64], values }
        };
        let mut alone: Vec<Operand> = operands[..3].iter().map(second).collect();
        alone.extend([operands[3].clone(), Operand::empty(dtype, &[case.rows, 64])]);
        let one = Case { heads: 1, ..case };
        let alone = bits(bed, &alone, |d, t| one.run(d, t, &t[4], 0));
        let both = apart.chunks_exact(128).flat_map(|row| row[64..].iter().copied());
        assert!(both.eq(alone), "the second head alone");
    }
}

fn heads_are_the_same_in_many_launches_as_in_one(bed: Bed) {
    let mut random = Random::new(20);
    for dtype in HALVES {
        let bias = Some(dtype);
        Case::half(dtype, 67, 3).parts_have_the_bits_of_the_whole(bed, &mut random);
        // Two blocks of queries.
        Case { bias, ..Case::half(dtype, 131, 2) }
            .parts_have_the_bits_of_the_whole(bed, &mut random);
    }
    let types = [DType::F32; 4];
    let exact = Case { types, head_dim: 20, ..Case::half(DType::F32, 35, 5) };
    exact.parts_have_the_bits_of_the_whole(bed, &mut random);
    Case { bias: Some(DType::F32), rows: 135, heads: 2, ..exact }
        .parts_have_the_bits_of_the_whole(bed, &mut random);
}

test_with_tensor_cores!(
    halves_are_the_cpus,
    biases_are_added,
    large_scores_lose_no_row,
    everything_else_is_exact,
    one_operand_that_is_not_aligned_is_enough,
    bits_depend_on_nothing_else,
    heads_are_the_same_in_many_launches_as_in_one,
);
