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
        device.conv(op, &mut dst.clone());
    }

    fn agrees(&self, random: &mut Random, values: Values) {
        let operands = self.operands(random, values);
        let what = format!("{self:?}");
        compare(&what, &operands, &[self.frames + 2], 0.0, 0.0, |d, t| self.run(d, t));
    }
}

const F32: DType = DType::F32;
const F16: DType = DType::F16;
const BF16: DType = DType::BF16;

fn case(frames: usize, size: (usize, usize), channels: (usize, usize), types: [DType; 4]) -> Case {
    Case { frames, stride: 1, size, channels, accumulate: false, types }
}

#[test]
fn wide_ones_have_the_cpus_sums() {
    let random = &mut Random::new(20);
    // Several rectangles, the last of few pixels.
    case(1, (17, 18), (8, 12), [F16; 4]).agrees(random, Values::Eighths);
    // Two ranges of channels out.
    let case_of_two = case(1, (2, 3), (3, 137), [BF16, BF16, F32, F32]);
    Case { accumulate: true, ..case_of_two }.agrees(random, Values::Eighths);
    // Three ranges of channels in.
    case(1, (3, 16), (72, 16), [BF16; 4]).agrees(random, Values::Eighths);
    let case_of_three = case(3, (5, 4), (16, 9), [F16, F16, F16, BF16]);
    Case { accumulate: true, ..case_of_three }.agrees(random, Values::Eighths);
}

#[test]
fn narrow_ones_have_the_cpus_sums() {
    let random = &mut Random::new(21);
    case(3, (17, 18), (40, 3), [F16; 4]).agrees(random, Values::Eighths);
    case(3, (1, 1), (33, 1), [BF16, BF16, F32, F16]).agrees(random, Values::Eighths);
    let whole = case(1, (6, 16), (64, 8), [BF16; 4]);
    Case { accumulate: true, ..whole }.agrees(random, Values::Eighths);
    let odd = case(1, (3, 5), (20, 5), [F16, F16, BF16, F32]);
    Case { accumulate: true, ..odd }.agrees(random, Values::Eighths);
}

#[test]
fn halving_ones_have_the_cpus_sums() {
    let random = &mut Random::new(22);
    let halving =
        |frames, size, channels, types| Case { stride: 2, ..case(frames, size, channels, types) };
    halving(1, (9, 10), (40, 20), [F16; 4]).agrees(random, Values::Eighths);
    halving(1, (1, 8), (8, 130), [BF16; 4]).agrees(random, Values::Eighths);
    let odd = halving(3, (3, 2), (5, 3), [BF16, BF16, F32, F32]);
    Case { accumulate: true, ..odd }.agrees(random, Values::Eighths);
}

#[test]
fn chains_are_the_cpus_to_the_bit() {
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
        case.agrees(random, Values::Any);
        let accumulating = Case { accumulate: true, ..case };
        Case { stride: 2, ..accumulating }.agrees(random, Values::Any);
    }
}

#[test]
fn long_sums_stay_near() {
    let random = &mut Random::new(24);
    for types in [[F16, F16, F32, F32], [BF16; 4]] {
        let case = case(3, (3, 5), (70, 3), types);
        let operands = case.operands(random, Values::Any);
        // Partial sums wander, so the error grows as their number.
        let slack = 1e-6 + 6e-8 * (27 * 70) as f32;
        let step = if types[3] == F32 { 2.0f32.powi(-23) } else { 2.0f32.powi(-7) };
        // Beside that, sums that lie near the middle of two values may be rounded to either.
        compare("long sums", &operands, &[5], 1.0, slack / step, |d, t| case.run(d, t));
    }
}

#[test]
fn a_frame_may_be_given_thrice() {
    let random = &mut Random::new(25);
    for dtype in DTYPES {
        let case = case(3, (4, 5), (8, 3), [dtype; 4]);
        let operands = case.operands(random, Values::Eighths);
        compare("thrice", &operands, &[5], 0.0, 0.0, |device, t| {
            let frames = &[&t[0], &t[0], &t[0]];
            let op = Conv { frames, stride: 1, weight: &t[3], bias: &t[4], accumulate: false };
            device.conv(op, &mut t[5].clone());
        });
    }
}

/// There copies are made at once, tensor cores take half as many channels, and have no bf16.
#[test]
fn the_oldest_cards_have_the_same_sums() {
    let random = &mut Random::new(27);
    let wide = case(1, (3, 5), (16, 12), [F16; 4]);
    let narrow = case(3, (3, 5), (40, 3), [BF16; 4]);
    let halving = Case { stride: 2, ..case(1, (3, 5), (8, 16), [F16; 4]) };
    for case in [wide, narrow, halving] {
        let operands = case.operands(random, Values::Eighths);
        let (what, last) = (format!("{case:?}"), case.frames + 2);
        let sm_75 = ARCHITECTURES[1];
        compare_for(sm_75, &what, &operands, &[last], 0.0, 0.0, |d, t| case.run(d, t));
    }
}

/// Chunks that are read as such, and elements one by one, must make the same bits.
#[test]
fn where_tensors_begin_changes_no_bit() {
    let random = &mut Random::new(26);
    let narrow = case(3, (3, 5), (24, 8), [BF16; 4]);
    let wide = case(1, (3, 5), (24, 16), [F16, F16, F16, F32]);
    let halving = Case { stride: 2, ..wide };
    let chain = case(1, (3, 5), (5, 16), [F32; 4]);
    for case in [narrow, wide, halving, chain] {
        let case = Case { accumulate: true, ..case };
        let operands = case.operands(random, Values::Any);
        let last = case.frames + 2;
        let expected = run(&operands, &[last], |d, t| case.run(d, t)).swap_remove(last);
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
        let result = run(&longer, &[last], |device, t| {
            let slices: Vec<Tensor> = (0..t.len())
                .map(|n| t[n].slice(1..t[n].columns()).reshape(&operands[n].shape[..]))
                .collect();
            case.run(device, &slices);
        });
        assert!(result[last][1..] == expected, "{case:?}");
    }
}
