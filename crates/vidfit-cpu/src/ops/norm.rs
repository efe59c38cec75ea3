//! Normalisation of rows.
//!
//! Sums have a fixed number of lanes that are combined in a fixed tree, so the order of additions
//! is the same for every instruction set.

use crate::device::Session;
use crate::element::Source;
use crate::ops::{CHUNK, for_blocks, for_rows, pieces};
use crate::simd::multiversion;
use vidfit_tensor::*;

/// Running sums within one sum: enough for two 512-bit registers to work in turn.
const LANES: usize = 32;

pub(crate) fn rms_norm(s: &Session<'_>, x: &Tensor, weight: &Tensor, eps: f32, dst: &mut Tensor) {
    let (rows, columns) = (x.rows(), x.columns());
    assert_eq!(x.shape().elements(), dst.shape().elements());
    assert_eq!(weight.shape().elements(), columns);
    let (x, weight, dst) = (s.source(x), s.source(weight), s.sink(dst));
    for_rows(s, rows, columns, |rows, scratch| {
        let (values, factors) = scratch.split_at_mut(CHUNK);
        let mut held = None;
        for row in rows {
            let row = Row { x: &x, start: row * columns, columns };
            let mean = row.sum(values, |values, sum| sum_of_squares(values, 0.0, sum));
            let factor = reciprocal_root(mean / columns as f64, eps);
            for piece in pieces(columns, CHUNK) {
                let values = &mut values[..piece.len()];
                let factors = &mut factors[..piece.len()];
                if columns > CHUNK {
                    x.load(row.start + piece.start, values);
                }
                if held.replace(piece.start) != Some(piece.start) {
                    weight.load(piece.start, factors);
                }
                scale_by(values, factor, factors);
                dst.store(row.start + piece.start, values);
            }
        }
    });
}

pub(crate) fn layer_norm(s: &Session<'_>, op: LayerNorm<'_>, dst: &mut Tensor) {
    let (rows, columns) = (op.x.rows(), op.x.columns());
    assert_eq!(op.x.shape().elements(), dst.shape().elements());
    assert_eq!(op.weight.shape().elements(), columns);
    assert_eq!(op.bias.shape().elements(), columns);
    let (x, dst) = (s.source(op.x), s.sink(dst));
    let affine = (s.source(op.weight), s.source(op.bias));
    let modulation = op.modulation.map(|(shift, scale)| {
        assert_eq!((shift.columns(), scale.columns()), (columns, columns));
        (s.source(shift), s.source(scale))
    });
    for_rows(s, rows, columns, |rows, scratch| {
        let (values, rest) = scratch.split_at_mut(CHUNK);
        let (weight, rest) = rest.split_at_mut(CHUNK);
        let (bias, rest) = rest.split_at_mut(CHUNK);
        let (shift, rest) = rest.split_at_mut(CHUNK);
        let scale = &mut rest[..CHUNK];
        let mut held = None;
        for row in rows {
            let row = Row { x: &x, start: row * columns, columns };
            let mean = row.sum(values, sum_of) / columns as f64;
            let deviation =
                row.sum_of_held(values, |values, sum| sum_of_squares(values, mean as f32, sum));
            let factor = reciprocal_root(deviation / columns as f64, op.eps);
            for piece in pieces(columns, CHUNK) {
                let n = piece.len();
                if columns > CHUNK {
                    x.load(row.start + piece.start, &mut values[..n]);
                }
                if held.replace(piece.start) != Some(piece.start) {
                    affine.0.load(piece.start, &mut weight[..n]);
                    affine.1.load(piece.start, &mut bias[..n]);
                    if let Some(modulation) = &modulation {
                        modulation.0.load(piece.start, &mut shift[..n]);
                        modulation.1.load(piece.start, &mut scale[..n]);
                    }
                }
                normalise(&mut values[..n], mean as f32, factor, &weight[..n], &bias[..n]);
                if modulation.is_some() {
                    modulate(&mut values[..n], &shift[..n], &scale[..n]);
                }
                dst.store(row.start + piece.start, &values[..n]);
            }
        }
    });
}

pub(crate) fn qk_norm(s: &Session<'_>, op: QkNorm<'_>, x: &mut Tensor) {
    let (rows, columns, head) = (x.rows(), x.columns(), op.weight.columns());
    assert!(head <= CHUNK && columns.is_multiple_of(head), "heads of {head} in {columns}");
    assert_eq!(op.bias.columns(), head);
    let (weight, bias, x) = (s.source(op.weight), s.source(op.bias), s.sink(x));
    let tables = op.rope.map(|rope| {
        assert_eq!((rope.cos.columns(), rope.sin.columns()), (head / 2, head / 2));
        (s.source(rope.cos), s.source(rope.sin), rope.first_row)
    });
    for_blocks(s, rows, columns, CHUNK / head * head, |block, piece, scratch| {
        let (values, rest) = scratch.split_at_mut(block.len());
        let (factors, rest) = rest.split_at_mut(head);
        let (summands, rest) = rest.split_at_mut(head);
        let (cos, rest) = rest.split_at_mut(head / 2);
        let sin = &mut rest[..head / 2];
        x.as_source().load(block.start, values);
        weight.load(0, factors);
        bias.load(0, summands);
        for (n, heads) in values.chunks_exact_mut(piece.len()).enumerate() {
            normalise_heads(heads, factors, summands, op.eps);
            let row = block.start / columns + n;
            if let Some((cosines, sines, first_row)) = &tables
                && row >= *first_row
            {
                cosines.load((row - first_row) * (head / 2), cos);
                sines.load((row - first_row) * (head / 2), sin);
                turn_heads(heads, cos, sin);
            }
        }
        x.store(block.start, values);
    });
}

/// One row, read in pieces of [`CHUNK`]. A row of one piece is read once, and then held.
struct Row<'a> {
    x: &'a Source,
    start: usize,
    columns: usize,
}

impl Row<'_> {
    /// The sum over pieces of what `kernel` makes of each.
    fn sum(&self, values: &mut [f32], kernel: impl Fn(&[f32], &mut f64)) -> f64 {
        let mut sum = 0.0;
        for piece in pieces(self.columns, CHUNK) {
            let values = &mut values[..piece.len()];
            self.x.load(self.start + piece.start, values);
            kernel(values, &mut sum);
        }
        sum
    }

    /// As `sum`, if the last use of `values` was the same.
    fn sum_of_held(&self, values: &mut [f32], kernel: impl Fn(&[f32], &mut f64)) -> f64 {
        if self.columns > CHUNK {
            return self.sum(values, kernel);
        }
        let mut sum = 0.0;
        kernel(&values[..self.columns], &mut sum);
        sum
    }
}

fn reciprocal_root(variance: f64, eps: f32) -> f32 {
    (1.0 / (variance + f64::from(eps)).sqrt()) as f32
}

/// `Σ term(x)` over lanes.
#[inline(always)]
fn sum_in_lanes(x: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let mut blocks = x.chunks_exact(LANES);
    for block in &mut blocks {
        for (sum, &x) in sums.iter_mut().zip(block) {
            *sum = term(x, *sum);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(blocks.remainder()) {
        *sum = term(x, *sum);
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for n in 0..width {
            sums[n] += sums[n + width];
        }
    }
    sums[0]
}

#[inline(always)]
fn squares(x: &[f32], mean: f32) -> f32 {
    sum_in_lanes(x, |x, sum| (x - mean).mul_add(x - mean, sum))
}

multiversion! {
    fn sum_of(x: &[f32], sum: &mut f64) {
        *sum += f64::from(sum_in_lanes(x, |x, sum| sum + x));
    }
}

multiversion! {
    fn sum_of_squares(x: &[f32], mean: f32, sum: &mut f64) {
        *sum += f64::from(squares(x, mean));
    }
}

multiversion! {
    fn scale_by(x: &mut [f32], factor: f32, weight: &[f32]) {
        x.iter_mut().zip(weight).for_each(|(x, weight)| *x = *x * factor * weight);
    }
}

multiversion! {
    fn normalise(x: &mut [f32], mean: f32, factor: f32, weight: &[f32], bias: &[f32]) {
        for ((x, weight), bias) in x.iter_mut().zip(weight).zip(bias) {
            *x = ((*x - mean) * factor).mul_add(*weight, *bias);
        }
    }
}

multiversion! {
    fn modulate(x: &mut [f32], shift: &[f32], scale: &[f32]) {
        for ((x, shift), scale) in x.iter_mut().zip(shift).zip(scale) {
            *x = x.mul_add(1.0 + scale, *shift);
        }
    }
}

multiversion! {
    fn normalise_heads(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
        // The length that all published models have, known to the compiler.
        match weight.len() {
            64 => normalise_each(x, &weight[..64], bias, eps),
            _ => normalise_each(x, weight, bias, eps),
        }
    }
}

#[inline(always)]
fn normalise_each(x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let count = weight.len() as f32;
    for head in x.chunks_exact_mut(weight.len()) {
        let mean = sum_in_lanes(head, |x, sum| sum + x) / count;
        let factor = 1.0 / (squares(head, mean) / count + eps).sqrt();
        for ((x, weight), bias) in head.iter_mut().zip(weight).zip(bias) {
            *x = ((*x - mean) * factor).mul_add(*weight, *bias);
        }
    }
}

multiversion! {
    /// Turns each adjacent pair of a head by the angle of its number.
    fn turn_heads(x: &mut [f32], cos: &[f32], sin: &[f32]) {
        match cos.len() {
            32 => turn_each(x, &cos[..32], &sin[..32]),
            _ => turn_each(x, cos, sin),
        }
    }
}

#[inline(always)]
fn turn_each(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(2 * cos.len()) {
        for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * cos - b * sin;
            pair[1] = b * cos + a * sin;
        }
    }
}
