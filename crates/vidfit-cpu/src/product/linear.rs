//! Linear layers.
//!
//! A job is a block of rows times a block of columns. For each slice of the inner dimension it
//! widens its rows into scratch once, then packs the weight panel by panel: a panel stays in the
//! first-level cache while all rows of the block pass by. The chains wait in scratch, in f32,
//! from slice to slice.

use super::isa::Isa;
use super::kernel::{PANEL, PanelProduct, TILE};
use super::math::{gelu_tanh, silu};
use super::pack::Block;
use super::prefetch;
use crate::device::Session;
use crate::element::{Sink, Source};
use crate::simd::multiversion;
use crate::workers::SCRATCH_ELEMENTS;
use std::ops::Range;
use vidfit_tensor::*;

/// Rows of a job: its slice of x, 0.5 MB, lies in the second-level cache.
const ROWS: usize = 480;
/// A slice of the inner dimension: a panel's slice is 32 KB.
const DEPTH: usize = 256;
/// Between rows of a slice of x. Rows a power of two apart would share few cache sets.
const STRIDE: usize = DEPTH + 16;
/// Panels of a job: what the chains have room for.
const PANELS: usize = 48;
/// Jobs for each thread, at least, so that none waits long for the last.
const JOBS: usize = 8;

const _: () =
    assert!(ROWS * STRIDE + DEPTH * PANEL + ROWS * PANELS * PANEL + PANEL <= SCRATCH_ELEMENTS);

pub(crate) fn run(session: &Session<'_>, op: Linear<'_>, dst: &mut Tensor) {
    let (rows, depth) = (op.x.rows(), op.x.columns());
    let columns = op.weight.rows();
    assert_eq!(op.weight.columns(), depth, "{:?} times {:?}", op.x, op.weight);
    assert_eq!((dst.rows(), dst.columns()), (rows, columns), "{:?} times {:?}", op.x, op.weight);
    if let Some(bias) = op.bias {
        assert_eq!(bias.shape().elements(), columns);
    }
    let layer = Layer {
        isa: Isa::best(),
        x: session.source(op.x),
        weight: session.source(op.weight),
        bias: op.bias.map(|bias| session.source(bias)),
        activation: op.activation,
        dst: session.sink(dst),
        depth,
        columns,
    };
    let row_blocks = rows.div_ceil(ROWS);
    let panels = columns.div_ceil(PANEL);
    let wanted = (JOBS * session.threads()).div_ceil(row_blocks.max(1));
    let panel_blocks = wanted.max(panels.div_ceil(PANELS)).min(panels);
    session.run(row_blocks * panel_blocks, |job, scratch| {
        // Neighbouring jobs share rows of x.
        let rows = part(rows, row_blocks, job / panel_blocks);
        let panels = part(panels, panel_blocks, job % panel_blocks);
        layer.job(rows, panels, scratch);
    });
}

/// Part `index` of `0..length` in `parts` even ones.
pub(super) fn part(length: usize, parts: usize, index: usize) -> Range<usize> {
    let start = |index: usize| length / parts * index + (length % parts).min(index);
    start(index)..start(index + 1)
}

struct Layer {
    isa: Isa,
    x: Source,
    weight: Source,
    bias: Option<Source>,
    activation: Activation,
    dst: Sink,
    depth: usize,
    columns: usize,
}

impl Layer {
    fn job(&self, rows: Range<usize>, panels: Range<usize>, scratch: &mut [f32]) {
        let (copies, rest) = scratch.split_at_mut(ROWS * STRIDE);
        let (panel, chains) = rest.split_at_mut(DEPTH * PANEL);
        let slices = self.depth.div_ceil(DEPTH);
        // Rows no longer than a slice lie one after the other, f32 ones as the kernel wants them.
        let in_place = self.x.as_f32().filter(|_| slices == 1);
        for slice in 0..slices {
            let inner = part(self.depth, slices, slice);
            let (a, a_stride) = match in_place {
                Some(x) => (&x[rows.start * self.depth..], self.depth),
                None => {
                    for (i, to) in rows.clone().zip(copies.chunks_exact_mut(STRIDE)) {
                        self.x.load(i * self.depth + inner.start, &mut to[..inner.len()]);
                    }
                    (&*copies, STRIDE)
                }
            };
            let last = slice + 1 == slices;
            let weight = |p: usize| self.weight(p, inner.clone());
            for (p, c) in panels.clone().zip(chains.chunks_exact_mut(rows.len() * PANEL)) {
                weight(p).pack_transposed(self.isa, panel);
                let next = if p + 1 < panels.end {
                    weight(p + 1)
                } else {
                    self.weight(panels.start, part(self.depth, slices, (slice + 1) % slices))
                };
                let tiles = rows.len().div_ceil(TILE);
                for tile in 0..tiles {
                    prefetch::rows(&next, tiles, tile);
                    let tile = part(rows.len(), tiles, tile);
                    if in_place.is_some() && p == panels.start {
                        let next = rows.start + tile.end;
                        prefetch::elements(self.x, next * self.depth, TILE * self.depth);
                    }
                    let rows = rows.start + tile.start..rows.start + tile.end;
                    if last {
                        for row in rows.clone() {
                            let at = row * self.columns + p * PANEL;
                            prefetch::elements(self.dst.as_source(), at, PANEL);
                        }
                    }
                    let c = &mut c[tile.start * PANEL..tile.end * PANEL];
                    PanelProduct {
                        rows: tile.len(),
                        depth: inner.len(),
                        a: &a[tile.start * a_stride..],
                        a_stride,
                        b: panel,
                        c: &mut *c,
                        c_stride: PANEL,
                        resume: slice > 0,
                    }
                    .run(self.isa);
                    if last {
                        self.finish(rows, p * PANEL, c);
                    }
                }
            }
        }
    }

    /// A panel's slice of the weight.
    fn weight(&self, panel: usize, inner: Range<usize>) -> Block {
        let first = panel * PANEL;
        Block {
            source: self.weight,
            first: first * self.depth + inner.start,
            stride: self.depth,
            rows: PANEL.min(self.columns - first),
            columns: inner.len(),
        }
    }

    /// Bias, activation and store of some rows of one panel.
    fn finish(&self, rows: Range<usize>, first: usize, chains: &mut [f32]) {
        let width = PANEL.min(self.columns - first);
        let mut bias = [0.0; PANEL];
        if let Some(source) = self.bias {
            source.load(first, &mut bias[..width]);
        }
        match self.activation {
            Activation::None => plus_bias(chains, &bias),
            Activation::Silu => plus_bias_silu(chains, &bias),
            Activation::GeluTanh => plus_bias_gelu(chains, &bias),
        }
        for (i, row) in rows.zip(chains.chunks_exact(PANEL)) {
            self.dst.store(i * self.columns + first, &row[..width]);
        }
    }
}

#[inline(always)]
fn finish_rows(rows: &mut [f32], bias: &[f32; PANEL], function: impl Fn(f32) -> f32) {
    for row in rows.chunks_exact_mut(PANEL) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = function(*value + bias);
        }
    }
}

multiversion! {
    pub(super) fn plus_bias(rows: &mut [f32], bias: &[f32; PANEL]) {
        finish_rows(rows, bias, |x| x);
    }
}

multiversion! {
    fn plus_bias_silu(rows: &mut [f32], bias: &[f32; PANEL]) {
        finish_rows(rows, bias, silu);
    }
}

multiversion! {
    fn plus_bias_gelu(rows: &mut [f32], bias: &[f32; PANEL]) {
        finish_rows(rows, bias, gelu_tanh);
    }
}
