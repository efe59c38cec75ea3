//! Transposing with AVX-512: sixteen rows of sixteen elements at a time, in registers.

use super::kernel::PANEL;
use super::pack::Block;
use half::{bf16, f16};
use std::arch::x86_64::*;
use vidfit_tensor::DType;

/// An element type as it is in memory.
trait Element {
    /// The elements under the mask, widened; the others zero and not read.
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load(from: *const f32, mask: __mmask16) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load(from: *const f16, mask: __mmask16) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, from.cast())) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load(from: *const bf16, mask: __mmask16) -> __m512 {
        // SAFETY: by the caller's contract.
        unsafe {
            let halves = _mm256_maskz_loadu_epi16(mask, from.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
        }
    }
}

/// The transpose of `block` as a panel.
///
/// # Safety
/// The machine has AVX-512 (F, BW, VL), the block lies inside its source, has at most `PANEL` rows,
/// and the panel has `columns · PANEL` elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn avx512(block: &Block, panel: &mut [f32]) {
    // SAFETY: by this function's contract; the pointer has the type of the elements.
    unsafe {
        match block.source.dtype() {
            DType::F32 => typed::<f32>(block, panel),
            DType::F16 => typed::<f16>(block, panel),
            DType::BF16 => typed::<bf16>(block, panel),
        }
    }
}

#[inline(always)]
unsafe fn typed<T: Element>(block: &Block, panel: &mut [f32]) {
    // SAFETY: by the contract of `avx512`.
    unsafe {
        let first = block.source.first().cast::<T>().add(block.first);
        for column in (0..block.columns).step_by(16) {
            let columns = (block.columns - column).min(16);
            for row in (0..PANEL).step_by(16) {
                let rows = block.rows.saturating_sub(row).min(16);
                let from = first.wrapping_add(row * block.stride + column);
                let to = panel.as_mut_ptr().add(column * PANEL + row);
                if rows == 16 && columns == 16 {
                    square::<T, true>(from, block.stride, 16, 16, to);
                } else {
                    square::<T, false>(from, block.stride, rows, columns, to);
                }
            }
        }
    }
}

/// A square of a panel, of which `rows` and `columns` are in the block. All loops have constant
/// bounds, so that the square stays in registers.
#[inline(always)]
unsafe fn square<T: Element, const FULL: bool>(
    from: *const T,
    stride: usize,
    rows: usize,
    columns: usize,
    to: *mut f32,
) {
    // SAFETY: by the contract of `avx512`; masked elements are not touched.
    unsafe {
        let all = if FULL { 0xffff } else { (0xffff_u32 >> (16 - columns)) as __mmask16 };
        let mut square = [_mm512_setzero_ps(); 16];
        for (i, to) in square.iter_mut().enumerate() {
            let mask = if FULL || i < rows { all } else { 0 };
            *to = T::load(from.wrapping_add(i * stride), mask);
        }
        for (j, from) in transpose(square).into_iter().enumerate() {
            if FULL || j < columns {
                _mm512_storeu_ps(to.add(j * PANEL), from);
            }
        }
    }
}

/// Sixteen by sixteen: first within squares of four, then the squares.
#[inline(always)]
unsafe fn transpose(r: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: used only where AVX-512 is.
    unsafe {
        // quads[4 q + i], lane l: column 4 l + i of rows 4 q to 4 q + 3.
        let mut quads = [_mm512_setzero_ps(); 16];
        for q in 0..4 {
            let low01 = _mm512_unpacklo_ps(r[4 * q], r[4 * q + 1]);
            let high01 = _mm512_unpackhi_ps(r[4 * q], r[4 * q + 1]);
            let low23 = _mm512_unpacklo_ps(r[4 * q + 2], r[4 * q + 3]);
            let high23 = _mm512_unpackhi_ps(r[4 * q + 2], r[4 * q + 3]);
            quads[4 * q] = low_pairs(low01, low23);
            quads[4 * q + 1] = high_pairs(low01, low23);
            quads[4 * q + 2] = low_pairs(high01, high23);
            quads[4 * q + 3] = high_pairs(high01, high23);
        }
        let mut out = [_mm512_setzero_ps(); 16];
        for i in 0..4 {
            let even01 = _mm512_shuffle_f32x4::<0b10_00_10_00>(quads[i], quads[4 + i]);
            let odd01 = _mm512_shuffle_f32x4::<0b11_01_11_01>(quads[i], quads[4 + i]);
            let even23 = _mm512_shuffle_f32x4::<0b10_00_10_00>(quads[8 + i], quads[12 + i]);
            let odd23 = _mm512_shuffle_f32x4::<0b11_01_11_01>(quads[8 + i], quads[12 + i]);
            out[i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(even01, even23);
            out[8 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(even01, even23);
            out[4 + i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(odd01, odd23);
            out[12 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(odd01, odd23);
        }
        out
    }
}

#[inline(always)]
unsafe fn low_pairs(a: __m512, b: __m512) -> __m512 {
    // SAFETY: used only where AVX-512 is.
    unsafe { _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))) }
}

#[inline(always)]
unsafe fn high_pairs(a: __m512, b: __m512) -> __m512 {
    // SAFETY: used only where AVX-512 is.
    unsafe { _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))) }
}
