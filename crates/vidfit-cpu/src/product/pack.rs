//! Panels of B for the kernel, widened to f32.

use super::isa::Isa;
use super::kernel::PANEL;
use crate::element::Source;

/// Part of a row-major matrix: row `i` starts at element `first + i · stride`.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub source: Source,
    pub first: usize,
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
}

impl Block {
    fn check(&self) {
        let last = self.rows.saturating_sub(1) * self.stride;
        assert!(self.first + last + self.columns <= self.source.len());
    }

    /// The block as it is, at most `PANEL` columns, as a panel of depth `rows`.
    pub fn pack(&self, panel: &mut [f32]) {
        assert!(self.columns <= PANEL);
        if let (Some(elements), PANEL) = (self.source.as_f32(), self.columns) {
            for (i, to) in panel.chunks_exact_mut(PANEL).take(self.rows).enumerate() {
                to.copy_from_slice(&elements[self.first + i * self.stride..][..PANEL]);
            }
            return;
        }
        for (i, to) in panel.chunks_exact_mut(PANEL).take(self.rows).enumerate() {
            self.source.load(self.first + i * self.stride, &mut to[..self.columns]);
            to[self.columns..].fill(0.0);
        }
    }

    /// The block's transpose, at most `PANEL` rows, as a panel of depth `columns`.
    pub fn pack_transposed(&self, isa: Isa, panel: &mut [f32]) {
        assert!(self.rows <= PANEL && panel.len() >= self.columns * PANEL);
        self.check();
        #[cfg(target_arch = "x86_64")]
        if isa.level() == super::isa::Level::Avx512 {
            // SAFETY: the instruction set is there, the block lies inside its source by the
            // check, and the panel is large enough by the assertion.
            return unsafe { super::transpose::avx512(self, panel) };
        }
        let _ = isa;
        const STEP: usize = 16;
        for k in (0..self.columns).step_by(STEP) {
            let depth = STEP.min(self.columns - k);
            let mut block = [[0.0; STEP]; PANEL];
            for (i, row) in block.iter_mut().take(self.rows).enumerate() {
                self.source.load(self.first + i * self.stride + k, &mut row[..depth]);
            }
            for (j, to) in panel[k * PANEL..].chunks_exact_mut(PANEL).take(depth).enumerate() {
                for (to, row) in to.iter_mut().zip(&block) {
                    *to = row[j];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Sink;
    use proptest::prelude::*;
    use vidfit_tensor::DType;

    proptest! {
        #[test]
        fn panels_hold_the_block(
            rows in 1usize..33, columns in 1usize..50, extra in 0usize..5, first in 0usize..5,
            dtype in prop::sample::select(vec![DType::F32, DType::F16, DType::BF16]),
        ) {
            let stride = rows.max(columns) + extra;
            let elements = first + 50 * stride;
            let values: Vec<f32> = (0..elements).map(|i| (i % 251) as f32).collect();
            let mut bytes = vec![0u32; elements];
            // SAFETY: four bytes for each element, aligned for every type.
            let sink = unsafe { Sink::new(bytes.as_mut_ptr().cast(), elements, dtype) };
            sink.store(0, &values);
            let source = sink.as_source();
            let at = |i: usize, j: usize| values[first + i * stride + j];
            let block = Block { source, first, stride, rows, columns };
            for isa in Isa::all() {
                let mut panel = vec![f32::NAN; columns * PANEL];
                block.pack_transposed(isa, &mut panel);
                for (n, &value) in panel.iter().enumerate() {
                    let (k, i) = (n / PANEL, n % PANEL);
                    prop_assert_eq!(value, if i < rows { at(i, k) } else { 0.0 });
                }
            }
            let block = Block { source, first, stride, rows: columns, columns: rows };
            let mut panel = vec![f32::NAN; columns * PANEL];
            block.pack(&mut panel);
            for (n, &value) in panel.iter().enumerate() {
                let (k, i) = (n / PANEL, n % PANEL);
                prop_assert_eq!(value, if i < rows { at(k, i) } else { 0.0 });
            }
        }
    }
}
