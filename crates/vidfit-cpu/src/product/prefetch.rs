//! Asking for memory before it is needed. Rows of large matrices lie on many pages, too many
//! streams for the processor to foresee, so a product asks for its next operands while it
//! computes. Never more than a hint: nothing is read, and no bits change.

use super::pack::Block;
use crate::element::Source;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for `count` elements from `first` on, as far as there are so many.
#[inline(always)]
pub(super) fn elements(source: Source, first: usize, count: usize) {
    let size = source.dtype().bytes() as usize;
    let count = count.min(source.len().saturating_sub(first));
    let start = source.first().wrapping_add(first * size);
    let skew = start.addr() % LINE;
    for n in 0..(skew + count * size).div_ceil(LINE) {
        line(start.wrapping_sub(skew).wrapping_add(n * LINE));
    }
}

/// Asks for part `index` of `parts` of a block's rows.
#[inline(always)]
pub(super) fn rows(block: &Block, parts: usize, index: usize) {
    for row in super::linear::part(block.rows, parts, index) {
        elements(block.source, block.first + row * block.stride, block.columns);
    }
}

#[inline(always)]
fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
