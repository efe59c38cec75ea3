//! Draws from an encoder's posterior.

use crate::device::Session;
use crate::ops::frame::round_to;
use crate::ops::{CHUNK, pieces};
use crate::product::math;
use crate::simd::multiversion;
use vidfit_tensor::*;

/// Where the reference holds logarithms of variances.
const LOG_VARIANCES: (f32, f32) = (-30.0, 20.0);

pub(crate) fn sample(
    s: &Session<'_>,
    moments: &Tensor,
    noise: &Tensor,
    factor: f64,
    dst: &mut Tensor,
) {
    let &[frames, channels, height, width] = dst.dims() else { panic!("latents of {dst:?}") };
    assert_eq!(moments.dims(), [frames, 2 * channels, height, width]);
    assert_eq!(noise.shape(), dst.shape());
    let dtype = dst.dtype();
    assert_eq!((moments.dtype(), noise.dtype()), (dtype, dtype), "the reference has one type");
    let plane = height * width;
    let (moments, noise, dst) = (s.source(moments), s.source(noise), s.sink(dst));
    s.run(frames * channels, |job, scratch| {
        let (frame, channel) = (job / channels, job % channels);
        let mean_at = (frame * 2 * channels + channel) * plane;
        for piece in pieces(plane, CHUNK) {
            let (drawn, rest) = scratch.split_at_mut(CHUNK);
            let (drawn, mean) = (&mut drawn[..piece.len()], &mut rest[..piece.len()]);
            moments.load(mean_at + channels * plane + piece.start, drawn);
            deviations(drawn, LOG_VARIANCES.0, LOG_VARIANCES.1);
            round_to(dtype, drawn);
            noise.load(job * plane + piece.start, mean);
            multiply(drawn, mean);
            round_to(dtype, drawn);
            moments.load(mean_at + piece.start, mean);
            add(drawn, mean);
            round_to(dtype, drawn);
            scale(drawn, factor as f32);
            dst.store(job * plane + piece.start, drawn);
        }
    });
}

multiversion! {
    /// Half of a half-type number is exact, but for some that are so small that `e^x` is 1.
    fn deviations(x: &mut [f32], low: f32, high: f32) {
        x.iter_mut().for_each(|x| *x = math::exp(0.5 * x.clamp(low, high)));
    }
}

multiversion! {
    fn multiply(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x *= y);
    }
}

multiversion! {
    fn add(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
}

multiversion! {
    fn scale(x: &mut [f32], factor: f32) {
        x.iter_mut().for_each(|x| *x *= factor);
    }
}
