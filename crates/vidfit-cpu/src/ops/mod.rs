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
pub(crate) mod posterior;
pub(crate) mod transfer;

use crate::device::Session;
use std::ops::Range;

/// Elements that are widened at a time: 16 KiB of f32, so that two such pieces stay in the first
/// cache level. Rows up to this length, which are all of the models', are read once.
const CHUNK: usize = 1 << 12;

/// Elements of a job, about: enough that many threads do not wait for each other's job numbers.
const JOB: usize = 1 << 16;

/// Calls `body` for consecutive ranges that cover `0..elements`, each at most [`CHUNK`] long.
fn for_chunks(s: &Session<'_>, elements: usize, body: impl Fn(Range<usize>, &mut [f32]) + Sync) {
    s.run(elements.div_ceil(JOB), |job, scratch| {
        let (start, end) = (job * JOB, elements.min((job + 1) * JOB));
        pieces(end - start, CHUNK)
            .for_each(|piece| body(start + piece.start..start + piece.end, scratch));
    });
}

/// Calls `body` for consecutive ranges of rows that are about a job each.
fn for_rows(
    s: &Session<'_>,
    rows: usize,
    columns: usize,
    body: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let at_once = (JOB / columns.max(1)).max(1);
    s.run(rows.div_ceil(at_once), |job, scratch| {
        body(job * at_once..rows.min((job + 1) * at_once), scratch);
    });
}

/// Calls `body` for blocks that cover `rows` rows of `columns` elements: the block's range of
/// elements, and the columns it has. A block is some whole rows or a piece of one, and at most
/// `at_most` elements long.
fn for_blocks(
    s: &Session<'_>,
    rows: usize,
    columns: usize,
    at_most: usize,
    body: impl Fn(Range<usize>, Range<usize>, &mut [f32]) + Sync,
) {
    let at_once = (at_most / columns.max(1)).max(1);
    for_rows(s, rows, columns, |rows, scratch| {
        for block in pieces(rows.len(), at_once) {
            for piece in pieces(columns, at_most) {
                let start = (rows.start + block.start) * columns + piece.start;
                // Several rows are one block only if they are whole.
                body(start..start + block.len() * piece.len(), piece, scratch);
            }
        }
    });
}

/// Consecutive ranges that cover `0..length`, each at most `at_most` long.
fn pieces(length: usize, at_most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length).step_by(at_most).map(move |start| start..length.min(start + at_most))
}
