//! Operations on each element by itself.

use crate::device::Session;
use crate::element::{Sink, Source};
use crate::ops::{CHUNK, for_blocks, for_chunks, transfer};
use crate::product::math;
use crate::simd::multiversion;
use vidfit_tensor::*;

pub(crate) fn cast(s: &Session<'_>, src: &Tensor, dst: &mut Tensor) {
    let count = same_elements(src, dst);
    transfer::copy(s, &s.source(src), &s.sink(dst), count);
}

pub(crate) fn add(s: &Session<'_>, src: &Tensor, dst: &mut Tensor) {
    let count = same_elements(src, dst);
    let dst = s.sink(dst);
    binary(s, count, &dst.as_source(), &s.source(src), &dst, add_to);
}

/// The factors are rounded to f32 before the products, as the reference library does with f64
/// scalars that meet f32 tensors.
pub(crate) fn combine(s: &Session<'_>, terms: &[(f64, &Tensor)], dst: &mut Tensor) {
    assert!(!terms.is_empty(), "a combination without terms");
    let count = dst.shape().elements();
    terms.iter().for_each(|(_, term)| _ = same_elements(term, dst));
    let dst = s.sink(dst);
    for_chunks(s, count, |chunk, scratch| {
        let (sum, term) = pair(scratch, chunk.len());
        // All terms are read before the store, so the destination may be one of them.
        for (n, &(factor, tensor)) in terms.iter().enumerate() {
            let into = if n == 0 { &mut *sum } else { &mut *term };
            s.source(tensor).load(chunk.start, into);
            match n {
                0 => scale(sum, factor as f32),
                _ => add_scaled(sum, term, factor as f32),
            }
        }
        dst.store(chunk.start, sum);
    });
}

pub(crate) fn guide(
    s: &Session<'_>,
    unconditional: &Tensor,
    conditional: &Tensor,
    scale: f64,
    dst: &mut Tensor,
) {
    let count = same_elements(unconditional, dst);
    same_elements(conditional, dst);
    let (from, to) = (s.source(unconditional), s.source(conditional));
    binary(s, count, &from, &to, &s.sink(dst), |x, y| extrapolate(x, y, scale as f32));
}

pub(crate) fn silu(s: &Session<'_>, x: &Tensor, dst: &mut Tensor) {
    let count = same_elements(x, dst);
    let (x, dst) = (s.source(x), s.sink(dst));
    for_chunks(s, count, |chunk, scratch| {
        let values = &mut scratch[..chunk.len()];
        x.load(chunk.start, values);
        silu_of(values);
        dst.store(chunk.start, values);
    });
}

pub(crate) fn gelu_gate(s: &Session<'_>, x: &Tensor, dst: &mut Tensor) {
    let count = same_elements(x, dst);
    let dst = s.sink(dst);
    binary(s, count, &dst.as_source(), &s.source(x), &dst, gelu_times);
}

pub(crate) fn gated_residual(s: &Session<'_>, x: &Tensor, gate: &Tensor, dst: &mut Tensor) {
    same_elements(x, dst);
    let (rows, columns) = (dst.rows(), dst.columns());
    assert_eq!(gate.shape().elements(), columns, "a gate of another width");
    let (x, gate, dst) = (s.source(x), s.source(gate), s.sink(dst));
    for_blocks(s, rows, columns, CHUNK, |block, columns, scratch| {
        let (sum, rest) = scratch.split_at_mut(block.len());
        let (product, rest) = rest.split_at_mut(block.len());
        let factors = &mut rest[..columns.len()];
        dst.as_source().load(block.start, sum);
        x.load(block.start, product);
        gate.load(columns.start, factors);
        add_gated(sum, product, factors);
        dst.store(block.start, sum);
    });
}

fn same_elements(a: &Tensor, b: &Tensor) -> usize {
    let count = a.shape().elements();
    assert_eq!(count, b.shape().elements(), "{a:?} and {b:?}");
    count
}

/// `dst = kernel(a, b)`, where the kernel leaves its result in its first argument.
fn binary(
    s: &Session<'_>,
    count: usize,
    a: &Source,
    b: &Source,
    dst: &Sink,
    kernel: impl Fn(&mut [f32], &[f32]) + Sync,
) {
    for_chunks(s, count, |chunk, scratch| {
        let (x, y) = pair(scratch, chunk.len());
        a.load(chunk.start, x);
        b.load(chunk.start, y);
        kernel(x, y);
        dst.store(chunk.start, x);
    });
}

fn pair(scratch: &mut [f32], length: usize) -> (&mut [f32], &mut [f32]) {
    let (a, b) = scratch.split_at_mut(CHUNK);
    (&mut a[..length], &mut b[..length])
}

multiversion! {
    fn add_to(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
}

multiversion! {
    fn scale(x: &mut [f32], factor: f32) {
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

multiversion! {
    fn add_scaled(x: &mut [f32], y: &[f32], factor: f32) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += factor * y);
    }
}

multiversion! {
    /// `x + scale · (y - x)`.
    fn extrapolate(x: &mut [f32], y: &[f32], scale: f32) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += scale * (y - *x));
    }
}

multiversion! {
    fn silu_of(x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = math::silu(*x));
    }
}

multiversion! {
    fn gelu_times(x: &mut [f32], y: &[f32]) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x = math::gelu_tanh(*x) * y);
    }
}

multiversion! {
    /// Adds rows as long as `gate`, each times `gate`.
    fn add_gated(sum: &mut [f32], x: &[f32], gate: &[f32]) {
        let rows = x.chunks_exact(gate.len());
        for (sum, x) in sum.chunks_exact_mut(gate.len()).zip(rows) {
            for ((sum, x), gate) in sum.iter_mut().zip(x).zip(gate) {
                *sum += gate * x;
            }
        }
    }
}
