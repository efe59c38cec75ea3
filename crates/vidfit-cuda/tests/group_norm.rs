//! Group normalisation of frames.

mod bed;
use bed::*;
use vidfit_tensor::*;

/// Large enough that a result without it would be seen.
const EPS: f32 = 0.01;

/// Height, width, channels, groups: groups within a piece of eight channels, as large, larger, and
/// across; channels that are whole pieces and that are not; rows of fewer pixels than a block works on
/// at once, and of several rounds; as many channels as there may be.
const SHAPES: [[usize; 4]; 10] = [
    [1, 1, 1, 1],
    [2, 3, 4, 2],
    [3, 7, 96, 32],
    [2, 75, 128, 32],
    [1, 41, 256, 32],
    [2, 9, 512, 32],
    [1, 19, 210, 70],
    [1, 5, 300, 100],
    [1, 1300, 3, 1],
    [1, 3, 2048, 32],
];

/// Frames in this order; the operands behind them are the partials and the statistics.
fn statistics(d: &dyn Device, t: &[Tensor], order: &[usize]) {
    let frames: Vec<&Tensor> = order.iter().map(|&n| &t[n]).collect();
    let [partials, statistics] = [t.len() - 2, t.len() - 1];
    let (partials, statistics) = (&mut t[partials].clone(), &mut t[statistics].clone());
    d.group_norm_statistics(&frames, EPS, partials, statistics);
}

fn with_results(mut frames: Vec<Operand>, order: &[usize], groups: usize) -> Vec<Operand> {
    let height = frames[0].shape[0];
    frames.push(Operand::empty(DType::F32, &[order.len(), height, groups * 2]));
    frames.push(Operand::empty(DType::F32, &[groups, 2]));
    frames
}

/// The CPU device sums each channel over a piece of a row in f32, in the order of pixels, and
/// merges in f64; the card merges four pixels at a time, in f32. That makes some steps of f32.
fn statistics_over_frames(bed: Bed) {
    let mut random = Random::new(50);
    for (n, [h, w, c, groups]) in SHAPES.into_iter().enumerate() {
        // One frame, two of other types, and three of which the first counts twice.
        let orders = [vec![0], vec![0, 1], vec![0, 1, 0]];
        for order in orders.into_iter().cycle().skip(n).take(if c < 100 { 3 } else { 1 }) {
            let frames = (0..=order[order.len() / 2])
                .map(|n| random.tensor(&[h, w, c], 0.3 + n as f32, 1.0))
                .collect();
            let operands = with_results(frames, &order, groups);
            let results = [operands.len() - 2, operands.len() - 1];
            bed.compare("statistics", &operands, &results, 8.0, 1.0, |d, t| {
                statistics(d, t, &order)
            });
        }
    }
}

/// More frames than one launch takes.
fn statistics_over_many_frames(bed: Bed) {
    let mut random = Random::new(51);
    let frames = (0..3).map(|n| random.tensor(&[2, 5, 12], n as f32, 1.0)).collect();
    let order: Vec<usize> = (0..37).map(|n| n * n % 3).collect();
    let operands = with_results(frames, &order, 3);
    bed.compare("statistics", &operands, &[3, 4], 8.0, 1.0, |d, t| statistics(d, t, &order));
}

/// Means are rounded at their own size, which is hundreds of deviations here.
fn statistics_of_values_far_from_zero(bed: Bed) {
    let mut random = Random::new(52);
    let operands =
        with_results(vec![random.typed(DType::F32, &[3, 90, 256], 100.0, 1.0)], &[0], 32);
    bed.compare("statistics", &operands, &[2], 8.0, 1.0, |d, t| statistics(d, t, &[0]));
}

fn statistics_do_not_depend_on_where_frames_begin(bed: Bed) {
    let mut random = Random::new(53);
    for dtype in DTYPES {
        let [h, w, c] = [2, 33, 64];
        let frame = random.typed(dtype, &[h, w, c], 0.3, 1.0);
        let expected = bed.run(&with_results(vec![frame.clone()], &[0], 8), &[1, 2], |d, t| {
            statistics(d, t, &[0]);
        });
        let mut shifted = with_results(vec![frame], &[0], 8);
        shifted[0].shape = vec![h * w * c + 1];
        shifted[0].values.insert(0, 0.0);
        let found = bed.run(&shifted, &[1, 2], |d, t| {
            let mut t = t.to_vec();
            t[0] = t[0].slice(1..h * w * c + 1).reshape([h, w, c]);
            statistics(d, &t, &[0]);
        });
        assert_eq!(found[1..], expected[1..], "{dtype:?}");
    }
}

/// Every step is the CPU device's own, and so is every bit.
fn application(bed: Bed) {
    let mut random = Random::new(54);
    for [h, w, c, groups] in SHAPES {
        for (modulated, silu) in [(false, false), (false, true), (true, false), (true, true)] {
            // At the size of the frame, or any smaller one.
            let (map_h, map_w) = match random.between(0, 2) {
                0 => (h, w),
                1 => (h.div_ceil(4), w.div_ceil(4)),
                _ => (random.between(1, h), random.between(1, w)),
            };
            let operands = [
                random.tensor(&[h, w, c], 0.3, 1.0),
                random.typed(DType::F32, &[groups, 2], 0.7, 0.3),
                random.tensor(&[c], 0.8, 0.5),
                random.tensor(&[c], 0.0, 0.5),
                random.tensor(&[map_h, map_w, c], 0.5, 0.5),
                random.tensor(&[map_h, map_w, c], 0.0, 0.5),
                Operand::empty(random.dtype(), &[h + 2, w + 2, c]),
            ];
            bed.compare("group_norm", &operands, &[6], 0.0, 0.0, |d, t| {
                let op = GroupNorm {
                    statistics: &t[1],
                    weight: &t[2],
                    bias: &t[3],
                    modulation: modulated.then_some((&t[4], &t[5])),
                    silu,
                };
                d.group_norm(op, &t[0], &mut t[6].clone());
            });
        }
    }
}

/// Neither frames, maps nor results that begin anywhere.
fn application_where_nothing_is_aligned(bed: Bed) {
    let mut random = Random::new(55);
    for dtype in DTYPES {
        let [h, w, c] = [2, 5, 16];
        let place = |shape: [usize; 3]| shape.iter().product::<usize>() + 1;
        let [frame, map, dst] = [[h, w, c], [1, 3, c], [h + 2, w + 2, c]];
        let operands = [
            random.typed(dtype, &[place(frame)], 0.3, 1.0),
            random.typed(DType::F32, &[4, 2], 0.7, 0.3),
            random.typed(dtype, &[c], 0.8, 0.5),
            random.typed(dtype, &[c], 0.0, 0.5),
            random.typed(dtype, &[place(map)], 0.5, 0.5),
            random.typed(dtype, &[place(map)], 0.0, 0.5),
            Operand::empty(dtype, &[place(dst)]),
        ];
        let at = |t: &Tensor, shape: [usize; 3]| t.slice(1..place(shape)).reshape(shape);
        bed.compare("group_norm", &operands, &[6], 0.0, 0.0, |d, t| {
            let (factor, summand) = (at(&t[4], map), at(&t[5], map));
            let op = GroupNorm {
                statistics: &t[1],
                weight: &t[2],
                bias: &t[3],
                modulation: Some((&factor, &summand)),
                silu: true,
            };
            d.group_norm(op, &at(&t[0], frame), &mut at(&t[6], dst));
        });
    }
}

test_on_all_architectures!(
    statistics_over_frames,
    statistics_over_many_frames,
    statistics_of_values_far_from_zero,
    statistics_do_not_depend_on_where_frames_begin,
    application,
    application_where_nothing_is_aligned,
);
