//! Attention, with the softmax computed as the keys go by (Milakov and Gimelshein 2018; Dao et
//! al. 2022), so that scores exist only for a few queries and keys at a time.
//!
//! A job is a block of queries of one head. It takes the keys a tile at a time, always from the
//! first, and each query's numbers depend on that query alone: neither the number of queries in a
//! block nor who computes it changes a bit. Powers are of two, the scale of the scores includes
//! `log2 e`.

use super::isa::Isa;
use super::kernel::{PANEL, PanelProduct};
use super::linear::part;
use super::pack::Block;
use super::prefetch;
use super::softmax::{Row, rescale, soften};
use crate::device::Session;
use crate::element::{Sink, Source};
use crate::workers::SCRATCH_ELEMENTS;
use std::ops::Range;
use vidfit_tensor::*;

/// Keys of a tile: a constant of the numerics.
const KEYS: usize = 256;
/// Queries of a job.
const QUERIES: usize = 768;
/// Queries whose scores are in the first-level cache at once.
const GROUP: usize = 12;
/// What the scratch has room for.
const MAX_HEAD_DIM: usize = 256;

const _: () = assert!(
    QUERIES * (2 * MAX_HEAD_DIM + size_of::<Row>() / 4)
        + 2 * KEYS * MAX_HEAD_DIM
        + GROUP * KEYS
        + KEYS
        <= SCRATCH_ELEMENTS
);

pub(crate) fn run(session: &Session<'_>, op: Attention<'_>, dst: &mut Tensor) {
    let (rows, columns) = (op.q.rows(), op.q.columns());
    for other in [op.k, op.v] {
        assert_eq!((other.rows(), other.columns()), (rows, columns));
    }
    let end = op.first_column + columns;
    assert!(dst.rows() == rows && end <= dst.columns(), "{columns} columns to {end} of {dst:?}");
    let head_dim = columns / op.heads;
    assert!(head_dim * op.heads == columns && head_dim <= MAX_HEAD_DIM, "heads of {head_dim}");
    if let Some(bias) = op.bias {
        assert_eq!((bias.rows(), bias.columns()), (op.heads, 2 * rows - 1));
    }
    let heads = Heads {
        isa: Isa::best(),
        q: session.source(op.q),
        k: session.source(op.k),
        v: session.source(op.v),
        bias: op.bias.map(|bias| session.source(bias)),
        dst_columns: dst.columns(),
        first_column: op.first_column,
        dst: session.sink(dst),
        scale: op.scale * std::f32::consts::LOG2_E,
        rows,
        columns,
        head_dim,
    };
    let blocks = rows.div_ceil(QUERIES);
    // The result may lie over the queries: a job reads only those that it overwrites, and does
    // so first.
    session.run(op.heads * blocks, |job, scratch| {
        heads.job(job / blocks, part(rows, blocks, job % blocks), scratch);
    });
}

struct Heads {
    isa: Isa,
    q: Source,
    k: Source,
    v: Source,
    bias: Option<Source>,
    dst: Sink,
    /// Between rows of `dst`.
    dst_columns: usize,
    /// Of the first head, in `dst`.
    first_column: usize,
    scale: f32,
    rows: usize,
    columns: usize,
    head_dim: usize,
}

impl Heads {
    fn job(&self, head: usize, block: Range<usize>, scratch: &mut [f32]) {
        let (queries, d) = (block.len(), self.head_dim);
        let (q, rest) = scratch.split_at_mut(queries * d);
        let (sums, rest) = rest.split_at_mut(queries * d.next_multiple_of(PANEL));
        let (k, rest) = rest.split_at_mut(KEYS * d);
        let (v, rest) = rest.split_at_mut(KEYS * d.next_multiple_of(PANEL));
        let (scores, rest) = rest.split_at_mut(GROUP * KEYS);
        let (bias, rest) = rest.split_at_mut(KEYS);
        let rows = Row::slice(rest, queries);

        for (i, q) in block.clone().zip(q.chunks_exact_mut(d)) {
            self.q.load(i * self.columns + head * d, q);
            q.iter_mut().for_each(|x| *x *= self.scale);
        }
        rows.fill(Row::EMPTY);
        sums.fill(0.0);
        for first_key in (0..self.rows).step_by(KEYS) {
            let keys = first_key..self.rows.min(first_key + KEYS);
            self.pack(head, keys.clone(), k, v);
            let next = keys.end..self.rows.min(keys.end + KEYS);
            let groups = queries.div_ceil(GROUP);
            for (group, rows) in rows.chunks_mut(GROUP).enumerate() {
                let first = group * GROUP;
                for source in [self.k, self.v] {
                    prefetch::rows(&self.tile(source, head, next.clone()), groups, group);
                }
                self.scores(&q[first * d..], rows.len(), k, keys.len(), scores);
                if let Some(source) = self.bias {
                    for (i, scores) in scores.chunks_exact_mut(KEYS).take(rows.len()).enumerate() {
                        let query = block.start + first + i;
                        let bias = &mut bias[..keys.len()];
                        let at = head * (2 * self.rows - 1) + keys.start + self.rows - 1 - query;
                        source.load(at, bias);
                        for (score, bias) in scores.iter_mut().zip(bias) {
                            *score = bias.mul_add(std::f32::consts::LOG2_E, *score);
                        }
                    }
                }
                soften(scores, KEYS, keys.len(), rows);
                for sums in sums.chunks_exact_mut(queries * PANEL) {
                    rescale(&mut sums[first * PANEL..], rows);
                }
                for (panel, sums) in sums.chunks_exact_mut(queries * PANEL).enumerate() {
                    PanelProduct {
                        rows: rows.len(),
                        depth: keys.len(),
                        a: scores,
                        a_stride: KEYS,
                        b: &v[panel * KEYS * PANEL..],
                        c: &mut sums[first * PANEL..],
                        c_stride: PANEL,
                        resume: true,
                    }
                    .run(self.isa);
                }
            }
        }
        for (i, row) in rows.iter().enumerate() {
            let factor = 1.0 / row.total();
            for (panel, sums) in sums.chunks_exact_mut(queries * PANEL).enumerate() {
                let width = PANEL.min(d - panel * PANEL);
                let sums = &mut sums[i * PANEL..][..width];
                sums.iter_mut().for_each(|x| *x *= factor);
                let column = self.first_column + head * d + panel * PANEL;
                let at = (block.start + i) * self.dst_columns + column;
                self.dst.store(at, sums);
            }
        }
    }

    /// What a head has of some keys or values.
    fn tile(&self, source: Source, head: usize, keys: Range<usize>) -> Block {
        Block {
            source,
            first: keys.start * self.columns + head * self.head_dim,
            stride: self.columns,
            rows: keys.len(),
            columns: self.head_dim,
        }
    }

    /// A tile of keys, transposed, and of values.
    fn pack(&self, head: usize, keys: Range<usize>, k: &mut [f32], v: &mut [f32]) {
        let d = self.head_dim;
        let starts = keys.clone().step_by(PANEL);
        for (first, panel) in starts.zip(k.chunks_exact_mut(d * PANEL)) {
            let keys = first..keys.end.min(first + PANEL);
            self.tile(self.k, head, keys).pack_transposed(self.isa, panel);
        }
        for (n, panel) in v.chunks_exact_mut(KEYS * PANEL).enumerate() {
            let all = self.tile(self.v, head, keys.clone());
            let first = n * PANEL;
            Block { first: all.first + first, columns: PANEL.min(d - first), ..all }.pack(panel);
        }
    }

    fn scores(&self, q: &[f32], rows: usize, k: &[f32], keys: usize, scores: &mut [f32]) {
        let d = self.head_dim;
        for (n, panel) in k.chunks_exact(d * PANEL).take(keys.div_ceil(PANEL)).enumerate() {
            PanelProduct {
                rows,
                depth: d,
                a: q,
                a_stride: d,
                b: panel,
                c: &mut scores[n * PANEL..],
                c_stride: KEYS,
                resume: false,
            }
            .run(self.isa);
        }
    }
}
