//! Lanczos resampling of 8-bit RGB, to the bit what Pillow's `Resample.c` computes: one pass along
//! the rows and one along the columns, each with weights in fixed point and a result rounded to 8
//! bits.

use std::f64::consts::PI;
use std::ops::Range;

/// Rows of RGB to resample.
pub(super) struct Source<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) rgb: &'a [u8],
}

/// Lobes of the filter on each side.
const SUPPORT: f64 = 3.0;
/// 32 bits, less 8 of the result and 2 for sums that overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// `source` within `window` (left, top, right, bottom in its pixels) as `width` x `height` pixels.
pub(super) fn resample(
    source: &Source<'_>,
    width: usize,
    height: usize,
    window: [f32; 4],
) -> Vec<u8> {
    let [left, top, right, bottom] = window;
    let is_whole_width = width == source.width && left == 0.0 && right == source.width as f32;
    let is_whole_height = height == source.height && top == 0.0 && bottom == source.height as f32;
    let columns = (!is_whole_width).then(|| Weights::new(source.width, left, right, width));
    let rows = (!is_whole_height).then(|| Weights::new(source.height, top, bottom, height));
    let source_stride = 3 * source.width;
    match (columns, rows) {
        (None, None) => source.rgb.to_vec(),
        (Some(columns), None) => along_rows(source.rgb, source_stride, &columns),
        (None, Some(rows)) => along_columns(source.rgb, source_stride, &rows, 0),
        (Some(columns), Some(rows)) if columns_come_first(source, width, height) => {
            let low = along_columns(source.rgb, source_stride, &rows, 0);
            along_rows(&low, source_stride, &columns)
        }
        (Some(columns), Some(rows)) => {
            // Only the rows that the second pass reads.
            let used = rows.used();
            let read = &source.rgb[used.start * source_stride..used.end * source_stride];
            let narrow = along_rows(read, source_stride, &columns);
            along_columns(&narrow, 3 * width, &rows, used.start)
        }
    }
}

/// Which pass comes first shows in the rounding between them. Since version 13, Pillow begins with
/// the columns when that saves it work.
fn columns_come_first(source: &Source<'_>, width: usize, height: usize) -> bool {
    let fewer_rows = source.height as i64 - height as i64;
    let fewer_columns = source.width as i64 - width as i64;
    fewer_rows > 0 && fewer_rows > 2 * fewer_columns
}

fn along_rows(rgb: &[u8], stride: usize, weights: &Weights) -> Vec<u8> {
    let mut out = Vec::with_capacity(rgb.len() / stride * weights.taps.len() * 3);
    for line in rgb.chunks_exact(stride) {
        for tap in &weights.taps {
            let pixels = &line[3 * tap.pixels.start..3 * tap.pixels.end];
            let mut sum = [HALF; 3];
            for (pixel, &weight) in pixels.chunks_exact(3).zip(weights.of(tap)) {
                sum[0] += i32::from(pixel[0]) * weight;
                sum[1] += i32::from(pixel[1]) * weight;
                sum[2] += i32::from(pixel[2]) * weight;
            }
            out.extend(sum.map(to_8_bits));
        }
    }
    out
}

/// `first_row` is the row of the source that `rgb` begins with.
fn along_columns(rgb: &[u8], stride: usize, weights: &Weights, first_row: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(weights.taps.len() * stride);
    let mut sums = vec![0i32; stride];
    for tap in &weights.taps {
        sums.fill(HALF);
        let rows = (tap.pixels.start - first_row) * stride..(tap.pixels.end - first_row) * stride;
        for (line, &weight) in rgb[rows].chunks_exact(stride).zip(weights.of(tap)) {
            for (sum, &level) in sums.iter_mut().zip(line) {
                *sum += i32::from(level) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| to_8_bits(sum)));
    }
    out
}

fn to_8_bits(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Which pixels make up each pixel of the result, and by how much.
struct Weights {
    taps: Vec<Tap>,
    /// Of all taps, one after the other, times 2^22.
    fixed: Vec<i32>,
}

struct Tap {
    pixels: Range<usize>,
    /// Where its weights begin.
    weights_at: usize,
}

impl Weights {
    /// For `out_pixels` pixels from `from..to` of `in_pixels`: `precompute_coeffs` and
    /// `normalize_coeffs_8bpc`, with their order of operations.
    fn new(in_pixels: usize, from: f32, to: f32, out_pixels: usize) -> Self {
        let scale = f64::from(to - from) / out_pixels as f64;
        let filter_scale = scale.max(1.0);
        let support = SUPPORT * filter_scale;
        let inverse = 1.0 / filter_scale;
        let mut taps = Vec::with_capacity(out_pixels);
        let mut fixed = Vec::new();
        let mut exact = Vec::new();
        for out in 0..out_pixels {
            let centre = f64::from(from) + (out as f64 + 0.5) * scale;
            // C's conversion to int cuts off towards zero, and so does this one.
            let first = ((centre - support + 0.5) as i64).clamp(0, in_pixels as i64) as usize;
            let end = ((centre + support + 0.5) as i64).clamp(0, in_pixels as i64) as usize;
            let end = end.max(first);
            exact.clear();
            exact.extend((first..end).map(|pixel| {
                // In Pillow's order: the pixel's place within the tap, then the tap's.
                let place = (pixel - first) as f64 + first as f64 - centre + 0.5;
                lanczos(place * inverse)
            }));
            let total: f64 = exact.iter().sum();
            let normal = |weight: &f64| if total == 0.0 { *weight } else { weight / total };
            taps.push(Tap { pixels: first..end, weights_at: fixed.len() });
            fixed.extend(exact.iter().map(normal).map(to_fixed));
        }
        Self { taps, fixed }
    }

    fn of(&self, tap: &Tap) -> &[i32] {
        &self.fixed[tap.weights_at..tap.weights_at + tap.pixels.len()]
    }

    /// From the first pixel that is read to the last.
    fn used(&self) -> Range<usize> {
        let first = self.taps.first().map_or(0, |tap| tap.pixels.start);
        first..self.taps.last().map_or(first, |tap| tap.pixels.end)
    }
}

fn to_fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

fn lanczos(x: f64) -> f64 {
    if (-SUPPORT..SUPPORT).contains(&x) { sinc(x) * sinc(x / SUPPORT) } else { 0.0 }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}
