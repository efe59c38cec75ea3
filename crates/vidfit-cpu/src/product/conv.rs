//! Convolutions as matrix products without a copy of the input.
//!
//! In a padded frame the three pixels under a row of the filter lie side by side, so they are one
//! row of A with `3 · channels` columns, and the next pixel's row starts one pixel later. The
//! convolution is the sum of three (nine in 3-D) such products, one for each row of the filter,
//! continued in the same chains. With stride 2 the next pixel's row starts two pixels later.

use super::conv_narrow;
use super::isa::Isa;
use super::kernel::{PANEL, PanelProduct};
use super::linear::{part, plus_bias};
use super::pack::Block;
use super::prefetch;
use crate::device::Session;
use crate::element::{Sink, Source};
use crate::workers::SCRATCH_ELEMENTS;
use std::ops::Range;
use vidfit_tensor::*;

/// Pixels of a job.
const PIXELS: usize = 720;
/// A slice of the inner dimension: a panel's slice is 32 KB.
const DEPTH: usize = 256;
/// Panels of a job: what the chains have room for.
const PANELS: usize = 16;
/// Elements of a copy of a job's pixels, for frames that are not f32.
const COPY: usize = SCRATCH_ELEMENTS - DEPTH * PANEL - PIXELS * PANELS * PANEL;
/// Jobs for each thread, at least, so that none waits long for the last.
const JOBS: usize = 8;

pub(crate) fn run(session: &Session<'_>, op: Conv<'_>, dst: &mut Tensor) {
    let &[height, width, channels_out] = dst.dims() else { panic!("{dst:?} is not a frame") };
    let taps = op.frames.len() * 9;
    let channels_in = op.frames[0].columns();
    assert_eq!(op.weight.dims(), [taps, channels_in, channels_out]);
    assert_eq!(op.bias.shape().elements(), channels_out);
    let stride = op.stride;
    assert!(matches!(stride, 1 | 2), "a stride of {stride}");
    for frame in op.frames {
        assert_eq!(frame.dims(), [stride * height + 2, stride * width + 2, channels_in]);
    }
    let mut frames = [session.source(op.frames[0]); 3];
    for (to, frame) in frames.iter_mut().zip(op.frames) {
        *to = session.source(frame);
    }
    let conv = Filter {
        isa: Isa::best(),
        frames: &frames[..op.frames.len()],
        weight: session.source(op.weight),
        bias: session.source(op.bias),
        accumulate: op.accumulate,
        dst: session.sink(dst),
        width,
        stride,
        channels_in,
        channels_out,
    };
    let narrow = conv_narrow::fits(taps, channels_in, channels_out);
    let most = PIXELS.min((COPY / channels_in - 3) / stride + 1);
    let column_blocks = width.div_ceil(most);
    let block_width = width.div_ceil(column_blocks);
    let most_rows = (PIXELS / block_width).min(COPY / conv.length(block_width));
    let row_blocks = height.div_ceil(most_rows);
    let panels = channels_out.div_ceil(PANEL);
    let wanted = (JOBS * session.threads()).div_ceil(row_blocks * column_blocks);
    let panel_blocks = wanted.max(panels.div_ceil(PANELS)).min(panels);
    session.run(row_blocks * column_blocks * panel_blocks, |job, scratch| {
        let panels = part(panels, panel_blocks, job % panel_blocks);
        let job = job / panel_blocks;
        let columns = part(width, column_blocks, job % column_blocks);
        let rows = part(height, row_blocks, job / column_blocks);
        if narrow {
            conv.narrow_job(rows, columns, scratch);
        } else {
            conv.job(rows, columns, panels, scratch);
        }
    });
}

/// A convolution at work.
pub(super) struct Filter<'a> {
    pub isa: Isa,
    pub frames: &'a [Source],
    pub weight: Source,
    pub bias: Source,
    pub accumulate: bool,
    pub dst: Sink,
    pub width: usize,
    pub stride: usize,
    pub channels_in: usize,
    pub channels_out: usize,
}

impl Filter<'_> {
    /// Elements from one row of a padded frame to the next.
    fn pitch(&self) -> usize {
        (self.stride * self.width + 2) * self.channels_in
    }

    /// Elements of a row of a padded frame that `pixels` of a row are made of.
    fn length(&self, pixels: usize) -> usize {
        (self.stride * (pixels - 1) + 3) * self.channels_in
    }

    /// The first element of a padded frame that a row of the filter, of three, meets for the pixel
    /// in row `y` and column `x`.
    pub(super) fn first(&self, filter_row: usize, y: usize, x: usize) -> usize {
        // With stride 2 the filter begins behind the border.
        let border = self.stride - 1;
        let row = border + self.stride * y + filter_row;
        row * self.pitch() + (border + self.stride * x) * self.channels_in
    }

    fn job(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        panels: Range<usize>,
        scratch: &mut [f32],
    ) {
        let (copies, rest) = scratch.split_at_mut(COPY);
        let (panel, chains) = rest.split_at_mut(DEPTH * PANEL);
        let depth = 3 * self.channels_in;
        let slices = depth.div_ceil(DEPTH);
        let filter_rows = 3 * self.frames.len();
        let row_length = columns.len() * PANEL;
        for (filter_row, frame) in self.frames.iter().flat_map(|f| [f; 3]).enumerate() {
            let first = self.first(filter_row % 3, rows.start, columns.start);
            let next_row = self.stride * self.pitch();
            let (a, a_row) = match frame.as_f32() {
                Some(elements) => (&elements[first..], next_row),
                None => {
                    let a_row = self.length(columns.len());
                    for (y, to) in copies.chunks_exact_mut(a_row).take(rows.len()).enumerate() {
                        frame.load(first + y * next_row, to);
                    }
                    (&*copies, a_row)
                }
            };
            for slice in 0..slices {
                let inner = part(depth, slices, slice);
                for (p, c) in panels.clone().zip(chains.chunks_exact_mut(rows.len() * row_length)) {
                    self.weight(filter_row, inner.clone(), p).pack(panel);
                    let next = if p + 1 < panels.end {
                        self.weight(filter_row, inner.clone(), p + 1)
                    } else if slice + 1 < slices {
                        let inner = part(depth, slices, slice + 1);
                        self.weight(filter_row, inner, panels.start)
                    } else {
                        let inner = part(depth, slices, 0);
                        self.weight((filter_row + 1) % filter_rows, inner, panels.start)
                    };
                    for (y, c) in c.chunks_exact_mut(row_length).enumerate() {
                        prefetch::rows(&next, rows.len(), y);
                        PanelProduct {
                            rows: columns.len(),
                            depth: inner.len(),
                            a: &a[y * a_row + inner.start..],
                            a_stride: self.stride * self.channels_in,
                            b: panel,
                            c,
                            c_stride: PANEL,
                            resume: filter_row + slice > 0,
                        }
                        .run(self.isa);
                    }
                }
            }
        }
        for (p, c) in panels.zip(chains.chunks_exact_mut(rows.len() * row_length)) {
            self.finish(rows.clone(), columns.clone(), p * PANEL, c);
        }
    }

    /// A panel's slice of one row of the filter.
    fn weight(&self, filter_row: usize, inner: Range<usize>, panel: usize) -> Block {
        let first = panel * PANEL;
        Block {
            source: self.weight,
            first: (filter_row * 3 * self.channels_in + inner.start) * self.channels_out + first,
            stride: self.channels_out,
            rows: inner.len(),
            columns: PANEL.min(self.channels_out - first),
        }
    }

    /// Bias, sum and store of one panel.
    fn finish(&self, rows: Range<usize>, columns: Range<usize>, first: usize, chains: &mut [f32]) {
        let channels = PANEL.min(self.channels_out - first);
        let mut bias = [0.0; PANEL];
        self.bias.load(first, &mut bias[..channels]);
        plus_bias(chains, &bias);
        let pixels = rows.flat_map(|y| columns.clone().map(move |x| y * self.width + x));
        for (pixel, row) in pixels.zip(chains.chunks_exact_mut(PANEL)) {
            let at = pixel * self.channels_out + first;
            if self.accumulate {
                let mut before = [0.0; PANEL];
                self.dst.as_source().load(at, &mut before[..channels]);
                for (value, before) in row.iter_mut().zip(before) {
                    *value += before;
                }
            }
            self.dst.store(at, &row[..channels]);
        }
    }
}
