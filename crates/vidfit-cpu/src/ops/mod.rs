//! The operations that are not matrix products.
//!
//! All have one pattern: numbered jobs over rows, or over chunks of a fixed size; a job widens
//! its operands into the worker's scratch, computes there, and rounds on store. The kernels are
//! plain loops that the compiler vectorises; see [`crate::simd`] for why their bits do not depend
//! on the machine.

pub(crate) mod elementwise;
pub(crate) mod frame;
pub(crate) mod group_norm;
pub(crate) mod norm;
pub(crate) mod patch;
pub(crate) mod transfer;

use crate::device::Session;
use std::ops::Range;

/// Elements that a job widens at a time: 64 KiB of f32, so that a few such pieces stay in the
/// second cache level.
const CHUNK: usize = 1 << 14;

/// Calls `body` for consecutive ranges that cover `0..elements`, each at most [`CHUNK`] long.
fn for_chunks(s: &Session<'_>, elements: usize, body: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    s.run(elements.div_ceil(CHUNK), |job, scratch| {
        body(job * CHUNK..elements.min((job + 1) * CHUNK), scratch);
    });
}

/// Calls `body` for blocks that cover `rows` rows of `columns` elements: the block's range of
/// elements, and the columns it has. A block is some whole rows or a piece of one, and at most
/// `at_most` elements long.
fn for_rows(
    s: &Session<'_>,
    rows: usize,
    columns: usize,
    at_most: usize,
    body: impl Fn(Range<usize>, Range<usize>, &mut [f32]) + Sync,
) {
    let at_once = (at_most / columns.max(1)).max(1);
    s.run(rows.div_ceil(at_once), |job, scratch| {
        let (first, end) = (job * at_once, rows.min((job + 1) * at_once));
        for piece in pieces(columns, at_most) {
            let start = first * columns + piece.start;
            // Several rows are one block only if they are whole.
            body(start..start + (end - first) * piece.len(), piece, scratch);
        }
    });
}

/// Consecutive ranges that cover `0..length`, each at most `at_most` long.
fn pieces(length: usize, at_most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length).step_by(at_most).map(move |start| start..length.min(start + at_most))
}
