//! Convolutions to a few channels, such as a decoder's last one to red, green and blue.
//!
//! Three columns would leave most of a panel empty, so here the sides change: the pixels, under
//! each other in a panel, are B, and the filter is A. Each result is the same chain.

use super::conv::Filter;
use super::kernel::{PANEL, PanelProduct};
use super::linear::part;
use super::pack::Block;
use crate::workers::SCRATCH_ELEMENTS;
use std::ops::Range;

/// The most channels out that are worth it.
pub(super) const CHANNELS: usize = 8;
/// A slice of the inner dimension.
const DEPTH: usize = 256;

/// Whether a filter fits: it is in scratch as a whole.
pub(super) fn fits(taps: usize, channels_in: usize, channels_out: usize) -> bool {
    channels_out <= CHANNELS
        && (taps * channels_in + 1) * channels_out + (DEPTH + CHANNELS) * PANEL <= SCRATCH_ELEMENTS
}

impl Filter<'_> {
    /// Some pixels of some rows.
    pub(super) fn narrow_job(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        scratch: &mut [f32],
    ) {
        let depth = 3 * self.channels_in;
        let filter_length = 3 * self.frames.len() * depth;
        let (filter, rest) = scratch.split_at_mut(filter_length * self.channels_out);
        let (panel, rest) = rest.split_at_mut(DEPTH * PANEL);
        let (chains, rest) = rest.split_at_mut(self.channels_out * PANEL);
        let bias = &mut rest[..self.channels_out];
        self.bias.load(0, bias);
        let mut channels = [0.0; CHANNELS];
        let channels = &mut channels[..self.channels_out];
        for k in 0..filter_length {
            self.weight.load(k * self.channels_out, channels);
            for (n, &value) in channels.iter().enumerate() {
                filter[n * filter_length + k] = value;
            }
        }
        let slices = depth.div_ceil(DEPTH);
        for y in rows {
            for x in columns.clone().step_by(PANEL) {
                let pixels = PANEL.min(columns.end - x);
                for (filter_row, &frame) in self.frames.iter().flat_map(|f| [f; 3]).enumerate() {
                    let first = self.first(filter_row % 3, y, x);
                    for slice in 0..slices {
                        let inner = part(depth, slices, slice);
                        Block {
                            source: frame,
                            first: first + inner.start,
                            stride: self.stride * self.channels_in,
                            rows: pixels,
                            columns: inner.len(),
                        }
                        .pack_transposed(self.isa, panel);
                        PanelProduct {
                            rows: self.channels_out,
                            depth: inner.len(),
                            a: &filter[filter_row * depth + inner.start..],
                            a_stride: filter_length,
                            b: panel,
                            c: chains,
                            c_stride: PANEL,
                            resume: filter_row + slice > 0,
                        }
                        .run(self.isa);
                    }
                }
                for pixel in 0..pixels {
                    let at = (y * self.width + x + pixel) * self.channels_out;
                    if self.accumulate {
                        self.dst.as_source().load(at, channels);
                    } else {
                        // Adding this zero changes no sum, not even the sign of a zero.
                        channels.fill(-0.0);
                    }
                    for (n, (channel, &bias)) in channels.iter_mut().zip(&*bias).enumerate() {
                        *channel += chains[n * PANEL + pixel] + bias;
                    }
                    self.dst.store(at, channels);
                }
            }
        }
    }
}
