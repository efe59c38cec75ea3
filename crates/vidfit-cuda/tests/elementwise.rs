//! Operations on each element by itself: the CPU device's bits, wherever the elements begin.

mod bed;
use bed::*;
use vidfit_tensor::*;

/// Less than the eight elements of a thread, eight, and two blocks with a tail.
const LENGTHS: [usize; 3] = [1, 8, 2059];

type Binary = fn(&dyn Device, &Tensor, &mut Tensor);

fn casts_and_sums_are_the_cpus(bed: Bed) {
    let mut random = Random::new(1);
    for length in LENGTHS {
        for from in DTYPES {
            for to in DTYPES {
                let operands = [
                    random.typed(from, &[length], 0.0, 4.0),
                    random.typed(to, &[length], 0.0, 4.0),
                    Operand::empty(to, &[length]),
                ];
                bed.compare("add and cast", &operands, &[1, 2], 0.0, 0.0, |d, t| {
                    d.add(&t[0], &mut t[1].clone());
                    d.cast(&t[0], &mut t[2].clone());
                });
            }
        }
    }
}

fn what_is_not_a_number_stays_that(bed: Bed) {
    // Rounded like numbers, these would become infinite, or 0.
    let bits = [0x7f80_0001, 0xffff_ffff, 0xff80_0001, 0x7fff_8000, 0x7fc0_0000, 0xffbf_ffff];
    // Eight in one thread, and some more.
    let values: Vec<f32> = bits.into_iter().cycle().take(13).map(f32::from_bits).collect();
    for to in DTYPES {
        let from = Operand { dtype: DType::F32, shape: vec![13], values: values.clone() };
        let operands = [from, Operand { values: vec![1.0; 13], ..Operand::empty(to, &[13]) }];
        let cast = |d: &dyn Device, t: &[Tensor]| d.cast(&t[0], &mut t[1].clone());
        let results = bed.run(&operands, &[1], cast);
        assert!(results[1].iter().all(|value| value.is_nan()), "{to}: {:?}", results[1]);
    }
}

fn activations_are_the_cpus(bed: Bed) {
    let mut random = Random::new(2);
    for length in LENGTHS {
        for from in DTYPES {
            let to = random.dtype();
            let mut operands = [
                random.typed(from, &[length], 0.0, 12.0),
                random.typed(to, &[length], 0.0, 12.0),
                Operand::empty(to, &[length]),
            ];
            // What the exponential treats by itself.
            let special =
                [0.0, -0.0, 88.5, -88.5, -95.0, -104.0, 130.0, 1e30, -1e30, f32::INFINITY];
            for (value, special) in operands[0].values.iter_mut().skip(11).zip(special) {
                *value = from.round(special);
            }
            let special = special.into_iter().rev();
            for (value, special) in operands[1].values.iter_mut().skip(17).zip(special) {
                *value = to.round(special);
            }
            bed.compare("silu and gelu_gate", &operands, &[1, 2], 0.0, 0.0, |d, t| {
                d.silu(&t[0], &mut t[2].clone());
                d.gelu_gate(&t[0], &mut t[1].clone());
            });
        }
    }
}

fn f32_activations_are_the_cpus_over_their_whole_range(bed: Bed) {
    let mut random = Random::new(3);
    // Of all sizes, so that the exponent is small and large.
    let mut values = random.typed(DType::F32, &[20_000], 0.0, 1.0);
    for (n, value) in values.values.iter_mut().enumerate() {
        *value *= ((n % 40) as f32 - 30.0).exp2().min(110.0);
    }
    let ones = Operand { values: vec![1.0; 20_000], ..values.clone() };
    let operands = [values.clone(), ones, values, Operand::empty(DType::F32, &[20_000])];
    bed.compare("silu and gelu_gate", &operands, &[2, 3], 0.0, 0.0, |d, t| {
        d.silu(&t[0], &mut t[3].clone());
        d.gelu_gate(&t[1], &mut t[2].clone());
    });
}

fn combinations_are_the_cpus(bed: Bed) {
    let mut random = Random::new(4);
    let factors = [0.997_340_912_338_f64, -0.072_881_234, 1.0 / 3.0, 1.734_567_890_123];
    for length in LENGTHS {
        for count in 1..=4 {
            let mut operands: Vec<Operand> =
                (0..count).map(|_| random.tensor(&[length], 0.0, 3.0)).collect();
            operands.push(Operand::empty(random.dtype(), &[length]));
            bed.compare("combine", &operands, &[0, count], 0.0, 0.0, |d, t| {
                let terms: Vec<_> = factors.into_iter().zip(&t[..count]).collect();
                d.combine(&terms, &mut t[count].clone());
                d.combine(&terms, &mut t[0].clone());
            });
        }
    }
}

fn guidance_is_the_cpus(bed: Bed) {
    let mut random = Random::new(5);
    for length in LENGTHS {
        for (halves, to) in
            [(DType::F32, DType::F32), (DType::BF16, DType::F32), (DType::F16, DType::F16)]
        {
            let operands = [
                random.typed(halves, &[length], 0.0, 3.0),
                random.typed(halves, &[length], 0.0, 3.0),
                Operand::empty(to, &[length]),
            ];
            bed.compare("guide", &operands, &[1, 2], 0.0, 0.0, |d, t| {
                d.guide(&t[0], &t[1], 6.123_456_789, &mut t[2].clone());
                d.guide(&t[0], &t[1], 6.123_456_789, &mut t[1].clone());
            });
        }
    }
}

fn gated_residuals_are_the_cpus(bed: Bed) {
    let mut random = Random::new(6);
    for (rows, columns) in [(1, 1), (3, 7), (5, 8), (37, 64), (2, 1048), (3, 1001)] {
        for dtype in DTYPES {
            let gate = random.dtype();
            let operands = [
                random.typed(dtype, &[rows, columns], 0.0, 3.0),
                random.typed(gate, &[columns], 0.0, 1.0),
                random.typed(dtype, &[rows, columns], 0.0, 3.0),
            ];
            bed.compare("gated_residual", &operands, &[2], 0.0, 0.0, |d, t| {
                d.gated_residual(&t[0], &t[1], &mut t[2].clone());
            });
        }
    }
}

/// A part of a tensor begins anywhere, also where sixteen bytes cannot be read at once.
fn elements_may_begin_anywhere(bed: Bed) {
    let mut random = Random::new(7);
    let (rows, columns) = (6, 24);
    for dtype in DTYPES {
        for first in [1, 4, 8] {
            let length = first + rows * columns;
            let part = |t: &Tensor| t.slice(first..length).reshape([rows, columns]);
            let operands = [
                random.typed(dtype, &[length], 0.0, 3.0),
                random.typed(DType::BF16, &[length], 0.0, 3.0),
                random.typed(dtype, &[first + columns], 0.0, 3.0),
                random.typed(DType::F32, &[rows * columns], 0.0, 3.0),
            ];
            let all = [0, 1, 3];
            bed.compare("parts", &operands, &all, 0.0, 0.0, |d, t| {
                let (a, b) = (part(&t[0]), part(&t[1]));
                let (gate, whole) = (t[2].slice(first..first + columns), &t[3]);
                d.add(whole, &mut b.clone());
                d.gated_residual(&b, &gate, &mut a.clone());
                d.combine(&[(0.3, &a), (0.7, &b)], &mut whole.clone());
                d.silu(&a, &mut b.clone());
                d.gelu_gate(&b, &mut a.clone());
                d.cast(&b, &mut whole.clone());
                d.guide(&b, &a, 1.5, &mut a.clone());
            });
        }
    }
}

fn results_may_take_the_place_of_operands(bed: Bed) {
    let mut random = Random::new(8);
    for dtype in DTYPES {
        for length in [5, 40, 4100] {
            let ops: [Binary; 5] = [
                |d, x, y| d.cast(x, y),
                |d, x, y| d.add(x, y),
                |d, x, y| d.silu(x, y),
                |d, x, y| d.gelu_gate(x, y),
                |d, x, y| d.to_unit_range(x, y),
            ];
            let operands = ops.map(|_| random.typed(dtype, &[length], 0.0, 3.0));
            bed.compare("in place", &operands, &[0, 1, 2, 3, 4], 0.0, 0.0, |d, t| {
                for (op, x) in ops.iter().zip(t) {
                    op(d, x, &mut x.clone());
                }
            });
        }
    }
}

fn nothing_is_done_to_nothing(bed: Bed) {
    let none = [Operand::empty(DType::BF16, &[0, 8]), Operand::empty(DType::F32, &[8, 0])];
    bed.compare("nothing", &none, &[0, 1], 0.0, 0.0, |d, t| {
        d.cast(&t[0], &mut t[1].clone());
        d.add(&t[0], &mut t[1].clone());
        d.silu(&t[0], &mut t[1].clone());
    });
}

fn brightness_is_the_cpus(bed: Bed) {
    let mut random = Random::new(9);
    for length in LENGTHS {
        for from in DTYPES {
            for to in [from, DType::F32] {
                let mut values = random.typed(from, &[length], 0.0, 1.3);
                // Sums that lie between two numbers of the type, and what is not a number.
                for (n, value) in values.values.iter_mut().enumerate().skip(20) {
                    match n % 9 {
                        0 => *value = from.round(value.signum() * 1e-7),
                        1 if n == 28 => *value = f32::NAN,
                        _ => {}
                    }
                }
                let operands = [values, Operand::empty(to, &[length])];
                bed.compare("to_unit_range", &operands, &[1], 0.0, 0.0, |d, t| {
                    d.to_unit_range(&t[0], &mut t[1].clone());
                });
            }
        }
    }
}

fn draws_round_each_operation_as_the_cpus(bed: Bed) {
    let mut random = Random::new(10);
    for shape @ [f, c, h, w] in [[1, 1, 1, 1], [3, 2, 5, 3], [2, 4, 6, 9], [2, 3, 1, 901]] {
        for dtype in DTYPES {
            let operands = [
                random.typed(dtype, &[f, 2 * c, h, w], -3.0, 40.0),
                random.typed(dtype, &shape, 0.0, 3.0),
                Operand::empty(dtype, &shape),
            ];
            bed.compare("posterior_sample", &operands, &[1, 2], 0.0, 0.0, |d, t| {
                d.posterior_sample(&t[0], &t[1], 1.0 / 0.7, &mut t[2].clone());
                d.posterior_sample(&t[0], &t[1], 1.0 / 0.7, &mut t[1].clone());
            });
        }
    }
}

test_on_all_architectures!(
    casts_and_sums_are_the_cpus,
    what_is_not_a_number_stays_that,
    activations_are_the_cpus,
    f32_activations_are_the_cpus_over_their_whole_range,
    combinations_are_the_cpus,
    guidance_is_the_cpus,
    gated_residuals_are_the_cpus,
    elements_may_begin_anywhere,
    results_may_take_the_place_of_operands,
    nothing_is_done_to_nothing,
    brightness_is_the_cpus,
    draws_round_each_operation_as_the_cpus,
);
