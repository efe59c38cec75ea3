//! Low-rank sums: a weight, and thin products that are added to it.
//!
//! A job is a block of rows times a block of columns of the weight. Rows of `b` are widened into
//! scratch and panels of `a` packed, as for a linear layer; the weight's own values wait in f32 until
//! all products have been added.

use super::isa::Isa;
use super::kernel::{PANEL, PanelProduct};
use super::linear::part;
use super::pack::Block;
use crate::device::Session;
use crate::element::{Sink, Source};
use crate::simd::multiversion;
use crate::workers::SCRATCH_ELEMENTS;
use std::ops::Range;
use vidfit_tensor::*;

/// Rows of a job: its slice of `b` lies in the second-level cache.
const ROWS: usize = 256;
/// A slice of the rank.
const DEPTH: usize = 256;
/// Between rows of a slice of `b`. Rows a power of two apart would share few cache sets.
const STRIDE: usize = DEPTH + 16;
/// Jobs for each thread, at least, so that none waits long for the last.
const JOBS: usize = 8;

const _: () = assert!(ROWS * STRIDE + DEPTH * PANEL + 2 * ROWS * PANEL <= SCRATCH_ELEMENTS);

pub(crate) fn run(session: &Session<'_>, terms: &[LowRank<'_>], weight: &mut Tensor) {
    let (rows, columns) = (weight.rows(), weight.columns());
    let term = |term: &LowRank<'_>| {
        let rank = term.a.rows();
        assert_eq!(term.a.columns(), columns, "{:?} for {weight:?}", term.a);
        assert_eq!((term.b.rows(), term.b.columns()), (rows, rank), "{:?} for {weight:?}", term.b);
        Term { a: session.source(term.a), b: session.source(term.b), rank, factor: term.factor }
    };
    let terms: Vec<Term> = terms.iter().map(term).collect();
    let sum = Sum { isa: Isa::best(), terms, weight: session.sink(weight), columns };
    let row_blocks = rows.div_ceil(ROWS);
    let panels = columns.div_ceil(PANEL);
    let wanted = (JOBS * session.threads()).div_ceil(row_blocks.max(1));
    let panel_blocks = wanted.clamp(1, panels.max(1));
    session.run(row_blocks * panel_blocks, |job, scratch| {
        let rows = part(rows, row_blocks, job / panel_blocks);
        let panels = part(panels, panel_blocks, job % panel_blocks);
        panels.for_each(|panel| sum.panel(rows.clone(), panel, scratch));
    });
}

struct Term {
    a: Source,
    b: Source,
    rank: usize,
    factor: f32,
}

struct Sum {
    isa: Isa,
    terms: Vec<Term>,
    weight: Sink,
    columns: usize,
}

impl Sum {
    /// Some rows of one panel of columns.
    fn panel(&self, rows: Range<usize>, panel: usize, scratch: &mut [f32]) {
        let (copies, rest) = scratch.split_at_mut(ROWS * STRIDE);
        let (packed, rest) = rest.split_at_mut(DEPTH * PANEL);
        let (chains, rest) = rest.split_at_mut(rows.len() * PANEL);
        let sums = &mut rest[..rows.len() * PANEL];
        let first = panel * PANEL;
        let width = PANEL.min(self.columns - first);
        let source = self.weight.as_source();
        for (row, sums) in rows.clone().zip(sums.chunks_exact_mut(PANEL)) {
            source.load(row * self.columns + first, &mut sums[..width]);
            sums[width..].fill(0.0);
        }
        for term in &self.terms {
            let slices = term.rank.div_ceil(DEPTH);
            for slice in 0..slices {
                let inner = part(term.rank, slices, slice);
                for (row, to) in rows.clone().zip(copies.chunks_exact_mut(STRIDE)) {
                    term.b.load(row * term.rank + inner.start, &mut to[..inner.len()]);
                }
                let block = Block {
                    source: term.a,
                    first: inner.start * self.columns + first,
                    stride: self.columns,
                    rows: inner.len(),
                    columns: width,
                };
                block.pack(packed);
                PanelProduct {
                    rows: rows.len(),
                    depth: inner.len(),
                    a: copies,
                    a_stride: STRIDE,
                    b: packed,
                    c: &mut *chains,
                    c_stride: PANEL,
                    resume: slice > 0,
                }
                .run(self.isa);
            }
            add_scaled(sums, chains, term.factor);
        }
        for (row, sums) in rows.zip(sums.chunks_exact(PANEL)) {
            self.weight.store(row * self.columns + first, &sums[..width]);
        }
    }
}

multiversion! {
    fn add_scaled(sums: &mut [f32], products: &[f32], factor: f32) {
        sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += factor * product);
    }
}
