//! Normalisation of rows and heads.
//!
//! The CPU device sums in 32 lanes, the card by pieces, warps and blocks, so that sums differ in
//! their last bits, and with them everything that is made of them.

mod bed;
use bed::*;
use vidfit_tensor::*;

/// Large enough that a result without it would be seen.
const EPS: f32 = 0.01;

/// Steps of f32, at the scale of a result's largest summand, that the order of sums may make.
const STEPS: f32 = 4.0;

/// Rows of one element, of less than a piece, of some pieces, of all that a block holds, and of more;
/// whole pieces and not.
const SHAPES: [[usize; 2]; 10] = [
    [1, 1],
    [3, 2],
    [2, 31],
    [5, 64],
    [2, 1032],
    [2, 1920],
    [1, 3072],
    [2, 4096],
    [1, 4099],
    [2, 9001],
];

/// Types of the values, of the tables, and of the result.
const MIXES: [[DType; 3]; 6] = [
    [DType::F32, DType::F32, DType::F32],
    [DType::BF16, DType::BF16, DType::BF16],
    [DType::F16, DType::F16, DType::F16],
    [DType::BF16, DType::F32, DType::BF16],
    [DType::F32, DType::BF16, DType::F16],
    [DType::F16, DType::F32, DType::F32],
];

/// [`compare`] with [`STEPS`] of f32 at `scale`; where that rounds to another value of a 16-bit
/// type, it is the next one.
fn hold(
    bed: Bed,
    what: &str,
    operands: &[Operand],
    written: usize,
    scale: f32,
    op: impl Fn(&dyn Device, &[Tensor]),
) {
    let (ulps, scale) = match operands[written].dtype {
        DType::F32 => (STEPS, scale),
        DType::F16 => (1.0, STEPS * 2.0f32.powi(-12) * scale),
        DType::BF16 => (1.0, STEPS * 2.0f32.powi(-15) * scale),
    };
    bed.compare(what, operands, &[written], ulps, scale, op);
}

fn rows_by_their_root_mean_square(bed: Bed) {
    let mut random = Random::new(20);
    for [rows, columns] in SHAPES {
        for [of_x, of_weight, of_result] in MIXES {
            let operands = [
                random.typed(of_x, &[rows, columns], 0.5, 1.0),
                random.typed(of_weight, &[columns], 0.0, 1.0),
                Operand::empty(of_result, &[rows, columns]),
            ];
            // Nothing is added to the product.
            hold(bed, "rms_norm", &operands, 2, 0.0, |d, t| {
                d.rms_norm(&t[0], &t[1], EPS, &mut t[2].clone());
            });
        }
    }
}

fn layer_operands(
    random: &mut Random,
    [rows, columns]: [usize; 2],
    mix: [DType; 3],
) -> Vec<Operand> {
    let mut operands = vec![random.typed(mix[0], &[rows, columns], 0.5, 1.0)];
    operands.extend((0..4).map(|_| random.typed(mix[1], &[columns], 0.2, 1.0)));
    operands.push(Operand::empty(mix[2], &[rows, columns]));
    operands
}

fn layer_norm(d: &dyn Device, t: &[Tensor], is_modulated: bool, mut dst: Tensor) {
    let modulation = is_modulated.then(|| (&t[3], &t[4]));
    let op = LayerNorm { x: &t[0], weight: &t[1], bias: &t[2], eps: EPS, modulation };
    d.layer_norm(op, &mut dst);
}

fn rows_by_mean_and_deviation_with_and_without_modulation_and_in_place(bed: Bed) {
    let mut random = Random::new(21);
    for shape in SHAPES {
        for (n, mix) in MIXES.into_iter().enumerate() {
            let is_modulated = n != 1;
            let operands = layer_operands(&mut random, shape, mix);
            hold(bed, "layer_norm", &operands, 5, 4.0, |d, t| {
                layer_norm(d, t, is_modulated, t[5].clone());
            });
            if n < 3 {
                hold(bed, "layer_norm in place", &operands, 0, 4.0, |d, t| {
                    layer_norm(d, t, n != 0, t[0].clone());
                });
            }
        }
    }
}

/// The mean is rounded at its own size, which is thousands of deviations here.
fn rows_far_from_zero_keep_their_deviations(bed: Bed) {
    let mut random = Random::new(22);
    for columns in [3072, 5000] {
        let operands = [
            random.typed(DType::F32, &[2, columns], 4096.0, 1.0),
            random.typed(DType::F32, &[columns], 1.0, 0.5),
            random.typed(DType::F32, &[columns], 0.0, 0.5),
        ];
        hold(bed, "layer_norm", &operands, 0, 4096.0, |d, t| layer_norm(d, t, false, t[0].clone()));
    }
}

fn rows_depend_neither_on_their_number_nor_on_where_they_begin(bed: Bed) {
    let mut random = Random::new(23);
    for columns in [40, 1920, 4104] {
        for dtype in DTYPES {
            let operands = layer_operands(&mut random, [3, columns], [dtype; 3]);
            let all = bed.run(&operands, &[5], |d, t| layer_norm(d, t, true, t[5].clone()));

            // The same, each tensor one element further on in its memory.
            let shifted: Vec<_> = operands.iter().map(after_one_element).collect();
            let found = bed.run(&shifted, &[5], |d, t| {
                let t: Vec<_> = t.iter().zip(&operands).map(|(t, o)| without_first(t, o)).collect();
                layer_norm(d, &t, true, t[5].clone());
            });
            assert_eq!(found[5][1..], all[5], "{columns} columns of {dtype:?}, shifted");

            let alone = bed.run(&operands, &[5], |d, t| {
                let mut one = t.to_vec();
                one[0] = t[0].slice(1..2);
                layer_norm(d, &one, true, t[5].slice(1..2));
            });
            assert_eq!(alone[5][columns..2 * columns], all[5][columns..2 * columns], "alone");
        }
    }
}

fn no_rows_are_nothing(bed: Bed) {
    let mut random = Random::new(24);
    let mut operands = layer_operands(&mut random, [2, 16], [DType::F32; 3]);
    operands[5] = random.typed(DType::F32, &[2, 16], 0.0, 1.0);
    let result = bed.run(&operands, &[], |d, t| {
        let none = [t[0].slice(1..1), t[1].clone(), t[2].clone()];
        layer_norm(d, &none, false, t[5].slice(0..0));
        d.rms_norm(&none[0], &t[1], EPS, &mut t[5].slice(2..2));
        let op = QkNorm { weight: &t[1], bias: &t[2], eps: EPS, rope: None };
        d.qk_norm(op, &mut t[5].slice(0..0));
    });
    assert_eq!(result[5], operands[5].values);
}

fn after_one_element(operand: &Operand) -> Operand {
    let mut shifted = operand.clone();
    shifted.shape = vec![operand.shape.iter().product::<usize>() + 1];
    if !operand.values.is_empty() {
        shifted.values.insert(0, 0.0);
    }
    shifted
}

fn without_first(tensor: &Tensor, like: &Operand) -> Tensor {
    tensor.slice(1..tensor.dims()[0]).reshape(&like.shape[..])
}

/// Values, weight, bias, cosines, sines: not a cosine and a sine of one angle, so that it shows what
/// is one and what is the other.
fn qk_operands(
    random: &mut Random,
    [rows, heads, head]: [usize; 3],
    [of_x, of_tables, _]: [DType; 3],
    positions: usize,
) -> Vec<Operand> {
    let mut operands = vec![random.typed(of_x, &[rows, heads * head], 0.5, 1.0)];
    operands.extend((0..2).map(|_| random.typed(of_tables, &[head], 0.0, 1.0)));
    let angles = [positions, head / 2];
    operands.extend([0.7, -0.2].map(|at| random.typed(DType::F32, &angles, at, 0.3)));
    operands
}

fn qk_norm(d: &dyn Device, t: &[Tensor], first_row: Option<usize>) {
    let rope = first_row.map(|first_row| Rope { cos: &t[3], sin: &t[4], first_row });
    let op = QkNorm { weight: &t[1], bias: &t[2], eps: EPS, rope };
    d.qk_norm(op, &mut t[0].clone());
}

/// Heads of less than a piece, of some, of the published models; of all that a warp holds, and of more.
const HEADS: [[usize; 3]; 9] = [
    [1, 1, 2],
    [5, 3, 10],
    [3, 2, 20],
    [7, 5, 64],
    [40, 2, 64],
    [3, 2, 130],
    [2, 1, 256],
    [2, 3, 258],
    [2, 1, 528],
];

fn heads_are_normalised_and_turned(bed: Bed) {
    let mut random = Random::new(25);
    for shape @ [rows, ..] in HEADS {
        for (n, mix) in MIXES.into_iter().take(4).enumerate() {
            let first_row = [Some(0), None, Some(rows / 3), Some(rows - 1)][n];
            let positions = rows - first_row.unwrap_or(0);
            let operands = qk_operands(&mut random, shape, mix, positions);
            hold(bed, "qk_norm", &operands, 0, 3.0, |d, t| qk_norm(d, t, first_row));
        }
        // All rows are before the first.
        let operands = qk_operands(&mut random, shape, MIXES[3], 1);
        hold(bed, "qk_norm", &operands, 0, 3.0, |d, t| qk_norm(d, t, Some(rows)));
    }
}

fn heads_do_not_depend_on_where_they_begin(bed: Bed) {
    let mut random = Random::new(26);
    for head in [64, 264] {
        for mix in MIXES {
            let operands = qk_operands(&mut random, [4, 3, head], mix, 3);
            let expected = bed.run(&operands, &[0], |d, t| qk_norm(d, t, Some(1)));
            let shifted: Vec<_> = operands.iter().map(after_one_element).collect();
            let found = bed.run(&shifted, &[0], |d, t| {
                let t: Vec<_> = t.iter().zip(&operands).map(|(t, o)| without_first(t, o)).collect();
                qk_norm(d, &t, Some(1));
            });
            assert_eq!(found[0][1..], expected[0], "heads of {head}, {mix:?}");
        }
    }
}

test_on_all_architectures!(
    rows_by_their_root_mean_square,
    rows_by_mean_and_deviation_with_and_without_modulation_and_in_place,
    rows_far_from_zero_keep_their_deviations,
    rows_depend_neither_on_their_number_nor_on_where_they_begin,
    no_rows_are_nothing,
    heads_are_normalised_and_turned,
    heads_do_not_depend_on_where_they_begin,
);
