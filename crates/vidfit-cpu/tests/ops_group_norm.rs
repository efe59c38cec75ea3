//! Group normalisation against f64.

mod ops_bed;
use ops_bed::*;
use vidfit_tensor::*;

/// Large enough that a result without it would be seen.
const EPS: f32 = 0.01;

/// Height, width, channels, groups: rows of one piece and of several, channels that are and are
/// not a multiple of a register, few and many groups.
const SHAPES: [[usize; 4]; 8] = [
    [1, 1, 1, 1],
    [2, 3, 4, 2],
    [5, 7, 96, 32],
    [3, 150, 128, 32],
    [3, 70, 512, 32],
    [2, 90, 210, 70],
    [4, 33, 300, 100],
    [1, 16390, 3, 3],
];

/// Mean and reciprocal standard deviation of each group over all frames.
fn statistics_of(frames: &[&Operand], channels: usize, groups: usize) -> Vec<f64> {
    let size = channels / groups;
    let mut found = Vec::new();
    for group in 0..groups {
        let values: Vec<f64> = frames
            .iter()
            .flat_map(|frame| frame.values.chunks(channels))
            .flat_map(|pixel| &pixel[group * size..(group + 1) * size])
            .map(|&value| value as f64)
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        found.extend([mean, 1.0 / (variance + EPS as f64).sqrt()]);
    }
    found
}

fn statistics(frames: &[Operand], order: &[usize], groups: usize) -> Vec<f32> {
    let mut operands = frames.to_vec();
    operands.push(Operand::empty(DType::F32, &[order.len(), frames[0].shape[0], groups * 2]));
    operands.push(Operand::empty(DType::F32, &[groups, 2]));
    let [partials, statistics] = [frames.len(), frames.len() + 1];
    let mut result = run(&operands, &[partials, statistics], |device, t| {
        let frames: Vec<&Tensor> = order.iter().map(|&n| &t[n]).collect();
        let (partials, statistics) = (&mut t[partials].clone(), &mut t[statistics].clone());
        device.group_norm_statistics(&frames, EPS, partials, statistics);
    });
    result.swap_remove(statistics)
}

#[test]
fn statistics_over_frames() {
    let mut random = Random::new(50);
    for [h, w, c, groups] in SHAPES {
        // One frame, two, and three of which the first counts twice.
        for order in [vec![0], vec![0, 1], vec![0, 1, 0]] {
            let frames: Vec<Operand> = (0..=order[order.len() / 2])
                .map(|n| random.tensor(&[h, w, c], 0.3 + n as f32, 1.0))
                .collect();
            let in_order: Vec<&Operand> = order.iter().map(|&n| &frames[n]).collect();
            let expected = statistics_of(&in_order, c, groups);
            check("statistics", DType::F32, &statistics(&frames, &order, groups), &expected);
        }
    }
}

#[test]
fn statistics_of_values_far_from_zero() {
    let mut random = Random::new(51);
    let frame = random.typed(DType::F32, &[6, 100, 256], 100.0, 1.0);
    let expected = statistics_of(&[&frame], 256, 32);
    for (found, expected) in statistics(&[frame], &[0], 32).iter().zip(expected) {
        assert!((*found as f64 / expected - 1.0).abs() < 1e-6, "{found}, not {expected}");
    }
}

#[test]
fn application() {
    let mut random = Random::new(52);
    for [h, w, c, groups] in SHAPES {
        for (modulated, silu) in [(false, false), (false, true), (true, false), (true, true)] {
            // At the size of the frame, or any smaller one.
            let (mh, mw) = match random.between(0, 2) {
                0 => (h, w),
                1 => (h.div_ceil(4), w.div_ceil(4)),
                _ => (random.between(1, h), random.between(1, w)),
            };
            let frame = random.tensor(&[h, w, c], 0.3, 1.0);
            let operands = [
                frame.clone(),
                random.typed(DType::F32, &[groups, 2], 0.7, 0.3),
                random.tensor(&[c], 0.8, 0.5),
                random.tensor(&[c], 0.0, 0.5),
                random.tensor(&[mh, mw, c], 0.5, 0.5),
                random.tensor(&[mh, mw, c], 0.0, 0.5),
                Operand::empty(random.dtype(), &[h + 2, w + 2, c]),
            ];
            let [_, statistics, weight, bias, factor, summand, dst] = &operands;
            let mut expected = Vec::new();
            for y in 0..h + 2 {
                for x in 0..w + 2 {
                    if y == 0 || y == h + 1 || x == 0 || x == w + 1 {
                        expected.extend(std::iter::repeat_n(0.0, c));
                        continue;
                    }
                    let (y, x) = (y - 1, x - 1);
                    for channel in 0..c {
                        let group = channel / (c / groups);
                        let value = frame.at((y * w + x) * c + channel);
                        let normal =
                            (value - statistics.at(2 * group)) * statistics.at(2 * group + 1);
                        let mut value = normal * weight.at(channel) + bias.at(channel);
                        if modulated {
                            let from = (y * mh / h * mw + x * mw / w) * c + channel;
                            value = value * factor.at(from) + summand.at(from);
                        }
                        expected.push(if silu { value / (1.0 + (-value).exp()) } else { value });
                    }
                }
            }
            let result = run(&operands, &[6], |device, t| {
                let op = GroupNorm {
                    statistics: &t[1],
                    weight: &t[2],
                    bias: &t[3],
                    modulation: modulated.then_some((&t[4], &t[5])),
                    silu,
                };
                device.group_norm(op, &t[0], &mut t[6].clone());
            });
            check("group_norm", dst.dtype, &result[6], &expected);
        }
    }
}
