//! Convolutions against a plain sum in f64, and the same bits for every number of threads.

mod ops_bed;
mod product_bed;
use ops_bed::*;
use product_bed::check_within;
use vidfit_cpu::CpuDevice;
use vidfit_tensor::*;

#[derive(Clone, Copy, Debug)]
struct Case {
    frames: usize,
    stride: usize,
    height: usize,
    width: usize,
    channels_in: usize,
    channels_out: usize,
    accumulate: bool,
}

impl Case {
    fn padded(&self) -> [usize; 3] {
        [self.stride * self.height + 2, self.stride * self.width + 2, self.channels_in]
    }
}

fn conv(device: &CpuDevice, case: &Case, t: &[Tensor]) {
    let frames: Vec<&Tensor> = t[..case.frames].iter().collect();
    let [weight, bias, dst] = &t[case.frames..] else { unreachable!() };
    let Case { stride, accumulate, .. } = *case;
    let op = Conv { frames: &frames, stride, weight, bias, accumulate };
    device.conv(op, &mut [dst.clone()]);
}

fn expected(case: &Case, operands: &[Operand]) -> Vec<f64> {
    let &Case { frames, stride, height, width, channels_in, channels_out, .. } = case;
    let [weight, bias, dst] = &operands[frames..] else { unreachable!() };
    let mut out = Vec::new();
    for n in 0..height * width {
        let (y, x) = (n / width, n % width);
        let mut sums: Vec<f64> = (0..channels_out).map(|c| bias.at(c)).collect();
        for tap in 0..frames * 9 {
            // With stride 2 only the border below and to the right is read.
            let (row, column) = (stride * y + tap % 9 / 3, stride * x + tap % 3);
            let pixel = (row + stride - 1) * (stride * width + 2) + column + stride - 1;
            for i in 0..channels_in {
                let value = operands[tap / 9].at(pixel * channels_in + i);
                for (o, sum) in sums.iter_mut().enumerate() {
                    *sum += value * weight.at((tap * channels_in + i) * channels_out + o);
                }
            }
        }
        if case.accumulate {
            for (o, sum) in sums.iter_mut().enumerate() {
                *sum += dst.at(n * channels_out + o);
            }
        }
        out.extend(sums);
    }
    out
}

fn operands(random: &mut Random, case: &Case) -> Vec<Operand> {
    let &Case { frames, height, width, channels_in, channels_out, .. } = case;
    // Borders need not be zero for the operation, so the test has them count.
    let dtype = random.dtype();
    let mut all: Vec<Operand> =
        (0..frames).map(|_| random.typed(dtype, &case.padded(), 0.0, 1.0)).collect();
    all.push(random.tensor(&[frames * 9, channels_in, channels_out], 0.0, 1.0));
    all.push(random.tensor(&[channels_out], 0.0, 1.0));
    let shape = [height, width, channels_out];
    let dtype = random.dtype();
    all.push(if case.accumulate {
        random.typed(dtype, &shape, 0.0, 1.0)
    } else {
        Operand::empty(dtype, &shape)
    });
    all
}

fn compare(random: &mut Random, case: &Case) {
    let operands = operands(random, case);
    let last = case.frames + 2;
    let result = run(&operands, &[last], |device, t| conv(device, case, t)).swap_remove(last);
    // The partial sums wander, so the error grows as their number.
    let slack = 1e-6 + 6e-8 * (case.frames * 9 * case.channels_in) as f64;
    let expected = expected(case, &operands);
    check_within(&format!("{case:?}"), operands[last].dtype, &result, &expected, slack);
}

#[test]
fn small_frames() {
    let mut random = Random::new(9);
    for _ in 0..40 {
        let case = Case {
            frames: [1, 3][random.between(0, 1)],
            stride: random.between(1, 2),
            height: random.between(1, 9),
            width: random.between(1, 30),
            channels_in: random.between(1, 40),
            channels_out: random.between(1, 40),
            accumulate: random.between(0, 1) == 1,
        };
        compare(&mut random, &case);
    }
}

#[test]
fn frames_of_several_blocks() {
    let mut random = Random::new(10);
    let case = Case {
        frames: 3,
        stride: 1,
        height: 30,
        width: 45,
        channels_in: 16,
        channels_out: 70,
        accumulate: false,
    };
    compare(&mut random, &case);
    compare(&mut random, &Case { channels_in: 100, channels_out: 3, accumulate: true, ..case });
    compare(&mut random, &Case { frames: 1, height: 2, width: 1000, channels_out: 5, ..case });
    compare(&mut random, &Case { frames: 1, height: 5, width: 7, channels_in: 600, ..case });
    compare(&mut random, &Case { frames: 1, height: 3, width: 3, channels_out: 600, ..case });
    let halving = Case { frames: 1, stride: 2, ..case };
    compare(&mut random, &halving);
    compare(&mut random, &Case { height: 2, width: 1000, channels_out: 5, ..halving });
    compare(&mut random, &Case { height: 5, width: 7, channels_in: 600, ..halving });
    compare(
        &mut random,
        &Case { height: 3, width: 200, channels_in: 1500, channels_out: 9, ..halving },
    );
}

#[test]
fn a_frame_given_thrice() {
    let mut random = Random::new(11);
    let case = Case {
        frames: 3,
        stride: 1,
        height: 6,
        width: 11,
        channels_in: 9,
        channels_out: 4,
        accumulate: false,
    };
    let mut operands = operands(&mut random, &case);
    operands[1] = operands[0].clone();
    operands[2] = operands[0].clone();
    let result = run(&operands, &[5], |device, t| {
        let (frames, weight, bias) = (&[&t[0], &t[0], &t[0]], &t[3], &t[4]);
        let op = Conv { frames, stride: 1, weight, bias, accumulate: false };
        device.conv(op, &mut [t[5].clone()]);
    });
    let thrice = run(&operands, &[5], |device, t| conv(device, &case, t));
    assert!(result[5] == thrice[5]);
}
