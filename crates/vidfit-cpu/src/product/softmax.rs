//! The softmax of attention, a tile of scores at a time, with powers of two.

use super::kernel::PANEL;
use crate::simd::multiversion;

const LANES: usize = 16;

/// What is known of a query's scores so far.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// The sum of the weights, in parts: score `j` belongs to part `j % LANES`.
    sums: [f32; LANES],
    /// The largest score.
    max: f32,
    /// What the last tile multiplied all earlier weights by.
    factor: f32,
}

impl Row {
    pub const EMPTY: Row = Row { sums: [0.0; LANES], max: f32::NEG_INFINITY, factor: 1.0 };

    /// The first `count` rows that lie in `scratch`.
    pub fn slice(scratch: &mut [f32], count: usize) -> &mut [Row] {
        // SAFETY: a row is f32 alone, without gaps, so any bits are one.
        let (_, rows, _) = unsafe { scratch.align_to_mut::<Row>() };
        &mut rows[..count]
    }

    /// The sum of the weights.
    pub fn total(&self) -> f32 {
        let mut sums = self.sums;
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                sums[i] += sums[i + width];
            }
        }
        sums[0]
    }
}

/// `2^x` for `x ≤ 0` and not too far above, relative error 2e-7; 0 below -125.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    // Adding and subtracting this rounds to an integer, which is then in the low bits.
    const TO_INTEGER: f32 = 12_582_912.0;
    let shifted = x + TO_INTEGER;
    let r = x - (shifted - TO_INTEGER);
    // The minimax polynomial that is 1 at 0; relative error 9.2e-8 on ±1/2.
    let p = 0.001_326_47_f32;
    let p = p.mul_add(r, 0.009_671_51);
    let p = p.mul_add(r, 0.055_507_34);
    let p = p.mul_add(r, 0.240_222_42);
    #[expect(clippy::approx_constant, reason = "near ln 2, but not it")]
    let p = p.mul_add(r, 0.693_147);
    let p = p.mul_add(r, 1.0);
    let scaled = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    if x < -125.0 { 0.0 } else { scaled }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

multiversion! {
    /// Turns each row's scores, in units of `log2 e`, into weights relative to the largest score
    /// so far. Row `i` starts at `i · stride`, has `keys` scores, and room for a multiple of
    /// sixteen.
    pub(super) fn soften(scores: &mut [f32], stride: usize, keys: usize, rows: &mut [Row]) {
        for (scores, row) in scores.chunks_exact_mut(stride).zip(rows) {
            let scores = &mut scores[..keys.next_multiple_of(LANES)];
            scores[keys..].fill(f32::NEG_INFINITY);
            let (scores, _) = scores.as_chunks_mut::<LANES>();
            let mut largest = [row.max; LANES];
            for scores in scores.iter() {
                for (largest, &score) in largest.iter_mut().zip(scores) {
                    *largest = larger(score, *largest);
                }
            }
            let max = largest.into_iter().fold(row.max, larger);
            row.factor = exp2(row.max - max);
            row.max = max;
            let mut sums = row.sums;
            for sum in &mut sums {
                *sum *= row.factor;
            }
            for scores in scores {
                for (sum, score) in sums.iter_mut().zip(scores) {
                    *score = exp2(*score - max);
                    *sum += *score;
                }
            }
            row.sums = sums;
        }
    }
}

multiversion! {
    /// Multiplies what each query has summed up so far, one panel wide, by its factor.
    pub(super) fn rescale(sums: &mut [f32], rows: &[Row]) {
        for (sums, row) in sums.chunks_exact_mut(PANEL).zip(rows) {
            if row.factor != 1.0 {
                for sum in sums {
                    *sum *= row.factor;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_close() {
        for i in -1_250_000..=0 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp2();
            assert!((f64::from(exp2(x)) - exact).abs() <= 2.5e-7 * exact, "{x}");
        }
        assert_eq!(exp2(0.0), 1.0);
        assert_eq!(exp2(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp2(-1e30), 0.0);
        assert!(exp2(f32::NAN).is_nan());
    }
}
