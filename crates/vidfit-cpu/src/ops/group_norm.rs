//! Group normalisation: statistics over frames, and their application to one.
//!
//! A frame's rows are worked through in pieces of whole pixels. Sums run over the pixels of a
//! piece for each channel by itself, which vectorises over channels, and everything beyond
//! (channels to groups, pieces to rows, rows to frames) is combined in f64 in a fixed order.

use crate::device::Session;
use crate::element::Source;
use crate::ops::frame::{clear_border, frame_dims};
use crate::ops::{CHUNK, pieces};
use crate::product::math;
use crate::simd::multiversion;
use vidfit_tensor::*;

/// Groups whose sums are kept at a time; more groups take more passes.
const GROUPS: usize = 64;

/// Channels whose sums stay in registers.
const LANES: usize = 64;

/// Number, mean and sum of squared deviations of some values.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    deviation: f64,
}

impl Moments {
    /// Takes in other values (Chan et al. 1979).
    fn merge(&mut self, other: Moments) {
        let count = self.count + other.count;
        let delta = other.mean - self.mean;
        self.mean += delta * other.count / count;
        self.deviation += other.deviation + delta * delta * self.count * other.count / count;
        self.count = count;
    }
}

pub(crate) fn group_norm_statistics(
    s: &Session<'_>,
    frames: &[&Tensor],
    eps: f32,
    partials: &mut Tensor,
    statistics: &mut Tensor,
) {
    let dims @ [height, width, channels] = frame_dims(frames[0]);
    let groups = statistics.dims()[0];
    assert!(frames.iter().all(|frame| frame_dims(frame) == dims), "frames of different sizes");
    assert_eq!(statistics.shape().elements(), 2 * groups);
    assert_eq!(partials.shape().elements(), frames.len() * height * groups * 2);
    assert_eq!((partials.dtype(), statistics.dtype()), (DType::F32, DType::F32));
    let (partials, statistics) = (s.sink(partials), s.sink(statistics));

    let row = RowStatistics { width, channels, groups };
    s.run(frames.len() * height, |job, scratch| {
        let frame = s.source(frames[job / height]);
        for first_group in (0..groups).step_by(GROUPS) {
            let mut found = [Moments::default(); GROUPS];
            let found = &mut found[..GROUPS.min(groups - first_group)];
            row.of(&frame, job % height, first_group, found, scratch);
            let mut pairs = [0.0; 2 * GROUPS];
            for (pair, found) in pairs.chunks_exact_mut(2).zip(&*found) {
                pair[0] = (found.mean * found.count) as f32;
                pair[1] = found.deviation as f32;
            }
            partials.store((job * groups + first_group) * 2, &pairs[..2 * found.len()]);
        }
    });

    // All rows have the same number of values, so Chan's formula for all of them at once is the
    // mean of their means, and the sum of their deviations and of those of their means.
    let rows = frames.len() * height;
    let row_count = (width * channels / groups) as f64;
    let at_once = 8;
    s.run(groups.div_ceil(at_once), |job, _| {
        let first_group = job * at_once;
        let group_count = at_once.min(groups - first_group);
        let mut pairs = [0.0; 16];
        let pairs = &mut pairs[..2 * group_count];
        let (mut means, mut deviations) = ([0.0; 8], [0.0; 8]);
        for row in 0..rows {
            partials.as_source().load((row * groups + first_group) * 2, pairs);
            for (mean, pair) in means.iter_mut().zip(pairs.chunks_exact(2)) {
                *mean += f64::from(pair[0]);
            }
        }
        means.iter_mut().for_each(|mean| *mean /= rows as f64 * row_count);
        for row in 0..rows {
            partials.as_source().load((row * groups + first_group) * 2, pairs);
            let found = deviations.iter_mut().zip(&means);
            for ((deviation, mean), pair) in found.zip(pairs.chunks_exact(2)) {
                let delta = f64::from(pair[0]) / row_count - mean;
                *deviation += f64::from(pair[1]) + row_count * delta * delta;
            }
        }
        for ((pair, mean), deviation) in pairs.chunks_exact_mut(2).zip(means).zip(deviations) {
            let variance = deviation / (rows as f64 * row_count);
            pair[0] = mean as f32;
            pair[1] = (1.0 / (variance + f64::from(eps)).sqrt()) as f32;
        }
        statistics.store(first_group * 2, pairs);
    });
}

/// The statistics of single rows.
struct RowStatistics {
    width: usize,
    channels: usize,
    groups: usize,
}

impl RowStatistics {
    /// Of row `y` of `frame`, for the groups from `first_group` on.
    fn of(
        &self,
        frame: &Source,
        y: usize,
        first_group: usize,
        found: &mut [Moments],
        scratch: &mut [f32],
    ) {
        let RowStatistics { width, channels, groups } = *self;
        let size = channels / groups;
        let (values, rest) = scratch.split_at_mut(pixels_at_once(channels) * channels);
        let (sums, rest) = rest.split_at_mut(channels);
        let means = &mut rest[..channels];
        for pixels in pieces(width, pixels_at_once(channels)) {
            let values = &mut values[..pixels.len() * channels];
            let count = (pixels.len() * size) as f64;
            frame.load((y * width + pixels.start) * channels, values);
            sum_channels(values, sums);
            let total = |sums: &[f32], group: usize| -> f64 {
                let sums = &sums[(first_group + group) * size..][..size];
                sums.iter().map(|&sum| f64::from(sum)).sum()
            };
            let mut piece = [Moments::default(); GROUPS];
            for (group, piece) in piece[..found.len()].iter_mut().enumerate() {
                piece.mean = total(sums, group) / count;
                means[(first_group + group) * size..][..size].fill(piece.mean as f32);
            }
            square_channels(values, means, sums);
            for (group, (found, mut piece)) in found.iter_mut().zip(piece).enumerate() {
                // The deviations are from the mean as f32 has it.
                let off = piece.mean - f64::from(piece.mean as f32);
                piece.deviation = (total(sums, group) - count * off * off).max(0.0);
                piece.count = count;
                found.merge(piece);
            }
        }
    }
}

/// Pixels of a piece.
fn pixels_at_once(channels: usize) -> usize {
    assert!(channels <= CHUNK, "{channels} channels");
    CHUNK / channels
}

/// `sums[c] = Σ term(x, c)` over the pixels of `x`, in their order.
#[inline(always)]
fn over_pixels(x: &[f32], sums: &mut [f32], term: impl Fn(f32, usize, f32) -> f32) {
    let channels = sums.len();
    for (block, sums) in sums.chunks_mut(LANES).enumerate() {
        let first = block * LANES;
        let mut lanes = [0.0_f32; LANES];
        if sums.len() == LANES {
            for pixel in x.chunks_exact(channels) {
                for (n, (lane, x)) in lanes.iter_mut().zip(&pixel[first..][..LANES]).enumerate() {
                    *lane = term(*x, first + n, *lane);
                }
            }
        } else {
            for pixel in x.chunks_exact(channels) {
                for (n, (lane, x)) in lanes.iter_mut().zip(&pixel[first..]).enumerate() {
                    *lane = term(*x, first + n, *lane);
                }
            }
        }
        sums.copy_from_slice(&lanes[..sums.len()]);
    }
}

multiversion! {
    fn sum_channels(x: &[f32], sums: &mut [f32]) {
        over_pixels(x, sums, |x, _, sum| sum + x);
    }
}

multiversion! {
    fn square_channels(x: &[f32], means: &[f32], sums: &mut [f32]) {
        let means = &means[..sums.len()];
        over_pixels(x, sums, |x, c, sum| (x - means[c]).mul_add(x - means[c], sum));
    }
}

pub(crate) fn group_norm(s: &Session<'_>, op: GroupNorm<'_>, frame: &Tensor, dst: &mut Tensor) {
    let [height, width, channels] = frame_dims(frame);
    let dims = frame_dims(dst);
    let groups = op.statistics.dims()[0];
    assert_eq!(dims, [height + 2, width + 2, channels]);
    assert_eq!((op.weight.columns(), op.bias.columns()), (channels, channels));
    let (frame, dst, statistics) = (s.source(frame), s.sink(dst), s.source(op.statistics));
    let (weight, bias) = (s.source(op.weight), s.source(op.bias));
    let modulation = op.modulation.map(|(factor, summand)| {
        let [h, w, c] = frame_dims(factor);
        assert_eq!((frame_dims(summand), c), ([h, w, c], channels));
        assert!(h <= height && w <= width, "modulation larger than its frame");
        (s.source(factor), s.source(summand), h, w)
    });
    s.run(dims[0], |row, scratch| {
        if clear_border(&dst, row, dims) {
            return;
        }
        let (y, room) = (row - 1, pixels_at_once(channels) * channels);
        let (values, rest) = scratch.split_at_mut(room);
        let (factors, rest) = rest.split_at_mut(room);
        let (summands, rest) = rest.split_at_mut(room);
        let (mean, rest) = rest.split_at_mut(channels);
        let (slope, rest) = rest.split_at_mut(channels);
        let offset = &mut rest[..channels];
        weight.load(0, slope);
        bias.load(0, offset);
        let size = channels / groups;
        for (group, slope) in slope.chunks_exact_mut(size).enumerate() {
            mean[group * size..][..size].fill(statistics.get(2 * group));
            let deviation = statistics.get(2 * group + 1);
            slope.iter_mut().for_each(|slope| *slope *= deviation);
        }
        for pixels in pieces(width, pixels_at_once(channels)) {
            let values = &mut values[..pixels.len() * channels];
            frame.load((y * width + pixels.start) * channels, values);
            let affine = Affine { mean, slope, offset };
            match &modulation {
                Some((factor, summand, h, w)) => {
                    let first = pixels.start * w / width;
                    let count = ((pixels.end - 1) * w / width + 1 - first) * channels;
                    let from = (y * h / height * w + first) * channels;
                    factor.load(from, &mut factors[..count]);
                    summand.load(from, &mut summands[..count]);
                    let map = Map { factors, summands, first, start: pixels.start, w: *w, width };
                    apply_modulated(values, affine, map, op.silu);
                }
                None => apply(values, affine, op.silu),
            }
            dst.store((row * dims[1] + 1 + pixels.start) * channels, values);
        }
    });
}

/// `(x - mean) · slope + offset`, by channel.
#[derive(Clone, Copy)]
struct Affine<'a> {
    mean: &'a [f32],
    slope: &'a [f32],
    offset: &'a [f32],
}

/// Pixels of a row of modulation, `first` being the first, for the pixels of a frame from `start`.
#[derive(Clone, Copy)]
struct Map<'a> {
    factors: &'a [f32],
    summands: &'a [f32],
    first: usize,
    start: usize,
    w: usize,
    width: usize,
}

#[inline(always)]
fn affine_of(x: &mut [f32], by: Affine<'_>, then: impl Fn(f32, usize) -> f32) {
    let channels = x.len();
    let (mean, slope, offset) =
        (&by.mean[..channels], &by.slope[..channels], &by.offset[..channels]);
    for c in 0..channels {
        x[c] = then((x[c] - mean[c]).mul_add(slope[c], offset[c]), c);
    }
}

multiversion! {
    fn apply(x: &mut [f32], by: Affine<'_>, silu: bool) {
        for x in x.chunks_exact_mut(by.mean.len()) {
            match silu {
                true => affine_of(x, by, |x, _| math::silu(x)),
                false => affine_of(x, by, |x, _| x),
            }
        }
    }
}

multiversion! {
    fn apply_modulated(x: &mut [f32], by: Affine<'_>, map: Map<'_>, silu: bool) {
        let channels = by.mean.len();
        for (n, x) in x.chunks_exact_mut(channels).enumerate() {
            let column = (map.start + n) * map.w / map.width - map.first;
            let factor = &map.factors[column * channels..][..channels];
            let summand = &map.summands[column * channels..][..channels];
            match silu {
                true => affine_of(x, by, |x, c| math::silu(x.mul_add(factor[c], summand[c]))),
                false => affine_of(x, by, |x, c| x.mul_add(factor[c], summand[c])),
            }
        }
    }
}
