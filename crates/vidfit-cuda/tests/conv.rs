//! Convolutions on the card against the CPU's.
//!
//! In f32 both make the same chains, so any values must agree to the bit. Tensor cores sum in another
//! order: there, values are eighths, whose sums are exact in any, and must agree to the bit as well.

mod bed;
use bed::*;
use vidfit_tensor::*;

#[derive(Clone, Copy, Debug)]
struct Case {
    frames: usize,
    stride: usize,
    size: (usize, usize),
    channels: (usize, usize),
    accumulate: bool,
    /// Of frames, weight, bias and target.
    types: [DType; 4],
}

/// What operands are made of.
#[derive(Clone, Copy, PartialEq)]
enum Values {
    Any,
    Eighths,
}

impl Case {
    /// Frames, weight, bias, target. Borders need not be zero for the operation, so here they
    /// count.
    fn shapes(&self) -> Vec<Vec<usize>> {
        let &Case { frames, stride, size: (height, width), channels: (from, to), .. } = self;
        let mut shapes = vec![vec![stride * height + 2, stride * width + 2, from]; frames];
        shapes.extend([vec![frames * 9, from, to], vec![to], vec![height, width, to]]);
        shapes
    }

    fn operands(&self, random: &mut Random, values: Values) -> Vec<Operand> {
        let shapes = self.shapes();
        let of = |n: usize| self.types[(n + 1).saturating_sub(self.frames)];
        let mut operands: Vec<Operand> =
            (0..shapes.len()).map(|n| random.typed(of(n), &shapes[n], 0.0, 1.0)).collect();
        if values == Values::Eighths {
            for value in operands.iter_mut().flat_map(|operand| &mut operand.values) {
                *value = (*value * 8.0).round() / 8.0;
            }
        }
        if !self.accumulate {
            operands[self.frames + 2].values.clear();
        }
        operands
    }

    fn run(&self, device: &dyn Device, t: &[Tensor]) {
        let frames: Vec<&Tensor> = t[..self.frames].iter().collect();
        let [weight, bias, dst] = &t[self.frames..] else { unreachable!() };
        let &Case { stride, accumulate, .. } = self;
        let op = Conv { frames: &frames, stride, weight, bias, accumulate };
        device.conv(op, &mut [dst.clone()]);
    }

    fn agrees(&self, bed: Bed, random: &mut Random, values: Values) {
        let operands = self.operands(random, values);
        let what = format!("{self:?}");
        bed.compare(&what, &operands, &[self.frames + 2], 0.0, 0.0, |d, t| self.run(d, t));
    }
}

const F32: DType = DType::F32;
const F16: DType = DType::F16;
const BF16: DType = DType::BF16;

fn case(frames: usize, size: (usize, usize), channels: (usize, usize), types: [DType; 4]) -> Case {
    Case { frames, stride: 1, size, channels, accumulate: false, types }
}

fn wide_ones_have_the_cpus_sums(bed: Bed) {
    let random = &mut Random::new(20);
    // Several rectangles, the last of few pixels.
    case(1, (17, 18), (8, 12), [F16; 4]).agrees(bed, random, Values::Eighths);
    // Two ranges of channels out.
    let case_of_two = case(1, (2, 3), (3, 137), [BF16, BF16, F32, F32]);
    Case { accumulate: true, ..case_of_two }.agrees(bed, random, Values::Eighths);
    // Three ranges of channels in.
    case(1, (3, 16), (72, 16), [BF16; 4]).agrees(bed, random, Values::Eighths);
    let case_of_three = case(3, (5, 4), (16, 9), [F16, F16, F16, BF16]);
    Case { accumulate: true, ..case_of_three }.agrees(bed, random, Values::Eighths);
}

fn narrow_ones_have_the_cpus_sums(bed: Bed) {
    let random = &mut Random::new(21);
    case(3, (17, 18), (40, 3), [F16; 4]).agrees(bed, random, Values::Eighths);
    case(3, (1, 1), (33, 1), [BF16, BF16, F32, F16]).agrees(bed, random, Values::Eighths);
    let whole = case(1, (6, 16), (64, 8), [BF16; 4]);
    Case { accumulate: true, ..whole }.agrees(bed, random, Values::Eighths);
    let odd = case(1, (3, 5), (20, 5), [F16, F16, BF16, F32]);
    Case { accumulate: true, ..odd }.agrees(bed, random, Values::Eighths);
}

fn halving_ones_have_the_cpus_sums(bed: Bed) {
    let random = &mut Random::new(22);
    let halving =
        |frames, size, channels, types| Case { stride: 2, ..case(frames, size, channels, types) };
    halving(1, (9, 10), (40, 20), [F16; 4]).agrees(bed, random, Values::Eighths);
    halving(1, (1, 8), (8, 130), [BF16; 4]).agrees(bed, random, Values::Eighths);
    let odd = halving(3, (3, 2), (5, 3), [BF16, BF16, F32, F32]);
    Case { accumulate: true, ..odd }.agrees(bed, random, Values::Eighths);
}

fn chains_are_the_cpus_to_the_bit(bed: Bed) {
    let random = &mut Random::new(23);
    let cases = [
        case(3, (9, 15), (6, 9), [F32; 4]),
        case(1, (2, 3), (20, 130), [F32, BF16, F16, F32]),
        case(1, (11, 12), (1, 40), [BF16, F32, F32, BF16]),
        case(3, (4, 5), (17, 11), [F16, BF16, BF16, F32]),
        case(3, (16, 17), (11, 3), [F32, F16, F32, F16]),
        case(1, (1, 1), (3, 8), [F32; 4]),
    ];
    for case in cases {
        case.agrees(bed, random, Values::Any);
        let accumulating = Case { accumulate: true, ..case };
        Case { stride: 2, ..accumulating }.agrees(bed, random, Values::Any);
    }
}

/// The largest partial sum of a result, in the order of `kernels/conv_matrix.cuh`: frame, 32 channels in, tap,
/// channel.
fn largest_partial_sum(case: &Case, operands: &[Operand], [y, x, out]: [usize; 3]) -> f64 {
    let &Case { frames, size: (_, width), channels: (from, to), .. } = case;
    let weight = &operands[frames];
    let (mut sum, mut largest) = (0.0f64, 0.0f64);
    for (frame, values) in operands[..frames].iter().enumerate() {
        for first in (0..from).step_by(32) {
            for tap in 0..9 {
                let pixel = (y + tap / 3) * (width + 2) + x + tap % 3;
                for channel in first..from.min(first + 32) {
                    let factor = weight.at(((frame * 9 + tap) * from + channel) * to + out);
                    sum += values.at(pixel * from + channel) * factor;
                    largest = largest.max(sum.abs());
                }
            }
        }
    }
    largest
}

/// Tensor cores may lose what lies below a step of f32 at every four products, and always toward zero, so that
/// errors add up as their number: half a step of the largest partial sum each, and as much again for chance and
/// for the CPU's own roundings. Where a result is rounded to half the bits, it may be rounded to either side.
fn long_sums_stay_near(bed: Bed) {
    let random = &mut Random::new(24);
    for (types, channels_out) in [([F16, F16, F32, F32], 3), ([BF16; 4], 3), ([F16; 4], 9)] {
        let case = case(3, (3, 5), (70, channels_out), types);
        let operands = case.operands(random, Values::Any);
        let op = |d: &dyn Device, t: &[Tensor]| case.run(d, t);
        let card = bed.run(&operands, &[5], op).swap_remove(5);
        let cpu = run_on_cpu(&operands, op).swap_remove(5);
        // Channels are made up to a multiple of 16.
        let fours = 27.0 * 80.0 / 4.0;
        for (i, (&a, &b)) in card.iter().zip(&cpu).enumerate() {
            let place = [i / channels_out / 5, i / channels_out % 5, i % channels_out];
            let largest = largest_partial_sum(&case, &operands, place);
            let step = (largest.log2().floor() - 23.0).exp2();
            let rounding = match types[3] {
                F32 => 0.0,
                F16 => 2.0f64.powi(-10),
                BF16 => 2.0f64.powi(-7),
            };
            let tolerance = fours * step + rounding * f64::from(b.abs());
            let distance = f64::from((a - b).abs());
            assert!(
                distance <= tolerance,
                "element {i} is {a} on the card, {b} on the CPU, {distance:.1e} away of \
                 {tolerance:.1e}: {types:?}"
            );
        }
    }
}

fn a_frame_may_be_given_thrice(bed: Bed) {
    let random = &mut Random::new(25);
    for dtype in DTYPES {
        let case = case(3, (4, 5), (8, 3), [dtype; 4]);
        let operands = case.operands(random, Values::Eighths);
        bed.compare("thrice", &operands, &[5], 0.0, 0.0, |device, t| {
            let frames = &[&t[0], &t[0], &t[0]];
            let op = Conv { frames, stride: 1, weight: &t[3], bias: &t[4], accumulate: false };
            device.conv(op, &mut [t[5].clone()]);
        });
    }
}

/// The frames of a table, and its results, by tensors of all frames and of all results.
fn convolve_table(device: &dyn Device, t: &[Tensor], stride: usize, accumulate: bool) {
    let entries = |tensor: &Tensor| (0..tensor.dims()[0]).map(|n| tensor.at(n)).collect::<Vec<_>>();
    let (frames, mut results) = (entries(&t[0]), entries(&t[3]));
    let frames: Vec<&Tensor> = frames.iter().collect();
    let op = Conv { frames: &frames, stride, weight: &t[1], bias: &t[2], accumulate };
    device.conv(op, &mut results);
}

/// More results than one launch is for, and launches that are as small as can be: the sums of the CPU, which
/// makes each frame by itself.
fn results_of_a_table_are_made_together(bed: Bed) {
    let random = &mut Random::new(28);
    for (depth, stride, dtype, [results, height, width, from, to]) in [
        (3, 1, F16, [5, 1, 3, 16, 12]),
        (3, 1, BF16, [2, 2, 4, 16, 5]),
        (1, 2, BF16, [2, 1, 3, 8, 12]),
        (3, 1, F32, [2, 2, 5, 6, 9]),
    ] {
        let accumulate = height == 2;
        let frames = [results + depth - 1, stride * height + 2, stride * width + 2, from];
        let mut operands = [
            random.typed(dtype, &frames, 0.0, 1.0),
            random.typed(dtype, &[depth * 9, from, to], 0.0, 1.0),
            random.typed(dtype, &[to], 0.0, 1.0),
            random.typed(dtype, &[results, height, width, to], 0.0, 1.0),
        ];
        for value in operands.iter_mut().flat_map(|operand| &mut operand.values) {
            *value = (*value * 8.0).round() / 8.0;
        }
        if !accumulate {
            operands[3].values.clear();
        }
        let op = |d: &dyn Device, t: &[Tensor]| convolve_table(d, t, stride, accumulate);
        let expected = run_on_cpu(&operands, op).swap_remove(3);
        for launch_work in [u64::MAX, 0] {
            let made = bed.with_launches_of(Some(launch_work), |card| run_on(card, &operands, &op));
            assert!(made[3] == expected, "{dtype}, {results} results, launches of {launch_work}");
        }
    }
}

/// Chunks that are read as such, and elements one by one, must make the same bits.
fn where_tensors_begin_changes_no_bit(bed: Bed) {
    let random = &mut Random::new(26);
    let narrow = case(3, (3, 5), (24, 8), [BF16; 4]);
    let wide = case(1, (3, 5), (24, 16), [F16, F16, F16, F32]);
    let halving = Case { stride: 2, ..wide };
    let chain = case(1, (3, 5), (5, 16), [F32; 4]);
    for case in [narrow, wide, halving, chain] {
        let case = Case { accumulate: true, ..case };
        let operands = case.operands(random, Values::Any);
        let last = case.frames + 2;
        let expected = bed.run(&operands, &[last], |d, t| case.run(d, t)).swap_remove(last);
        // Each behind one element, as a slice of what is longer.
        let longer: Vec<Operand> = operands
            .iter()
            .map(|operand| {
                let mut longer = operand.clone();
                longer.values.insert(0, 0.0);
                longer.shape = vec![longer.values.len()];
                longer
            })
            .collect();
        let result = bed.run(&longer, &[last], |device, t| {
            let slices: Vec<Tensor> = (0..t.len())
                .map(|n| t[n].slice(1..t[n].columns()).reshape(&operands[n].shape[..]))
                .collect();
            case.run(device, &slices);
        });
        assert!(result[last][1..] == expected, "{case:?}");
    }
}

test_with_tensor_cores!(
    wide_ones_have_the_cpus_sums,
    narrow_ones_have_the_cpus_sums,
    halving_ones_have_the_cpus_sums,
    chains_are_the_cpus_to_the_bit,
    long_sums_stay_near,
    a_frame_may_be_given_thrice,
    results_of_a_table_are_made_together,
    where_tensors_begin_changes_no_bit,
);
