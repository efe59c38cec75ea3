//! Latents to rows of patches and back.

use crate::device::Session;
use crate::ops::{CHUNK, pieces};
use std::ops::Range;
use vidfit_tensor::*;

/// How a row of patches lies in latents.
struct Grid {
    patch_frames: usize,
    patch: usize,
    /// Patches in time, from top to bottom, from left to right.
    counts: [usize; 3],
    features: usize,
}

impl Grid {
    /// For latents of the shape `[F, C, h, w]` with `channels` in all.
    fn new(dims: &[usize], channels: usize, (patch_frames, patch): (usize, usize)) -> Grid {
        let &[frames, _, height, width] = dims else { panic!("latents of shape {dims:?}") };
        let counts = [frames / patch_frames, height / patch, width / patch];
        assert_eq!(
            [counts[0] * patch_frames, counts[1] * patch, counts[2] * patch],
            [frames, height, width]
        );
        let features = channels * patch_frames * patch * patch;
        assert!(features <= CHUNK, "patches of {features} elements");
        Grid { patch_frames, patch, counts, features }
    }

    fn rows(&self) -> usize {
        self.counts.iter().product()
    }

    /// Calls `body` for blocks of adjacent patches: the first row of the patch matrix, the place of
    /// the patches in time and height, and their columns.
    fn for_blocks(
        &self,
        s: &Session<'_>,
        body: impl Fn(usize, [usize; 2], Range<usize>, &mut [f32]) + Sync,
    ) {
        let [times, heights, widths] = self.counts;
        s.run(times * heights, |job, scratch| {
            for columns in pieces(widths, CHUNK / self.features) {
                let place = [job / heights, job % heights];
                body(job * widths + columns.start, place, columns, scratch);
            }
        });
    }

    /// Calls `body` for each piece of a latent's line that a block of patches consists of: the
    /// feature where it begins in each patch, and its first element in a latent of the shape
    /// `dims`, of which the features begin at `first_feature`.
    fn for_lines(
        &self,
        dims: &[usize],
        first_feature: usize,
        place: [usize; 2],
        first_column: usize,
        mut body: impl FnMut(usize, usize),
    ) {
        let mut feature = first_feature;
        for channel in 0..dims[1] {
            for time in 0..self.patch_frames {
                let frame = place[0] * self.patch_frames + time;
                for line in 0..self.patch {
                    let y = place[1] * self.patch + line;
                    let line = (frame * dims[1] + channel) * dims[2] + y;
                    body(feature, line * dims[3] + first_column * self.patch);
                    feature += self.patch;
                }
            }
        }
    }
}

pub(crate) fn patchify(
    s: &Session<'_>,
    latents: &[&Tensor],
    patch: (usize, usize),
    dst: &mut Tensor,
) {
    let channels = latents.iter().map(|latent| latent.dims()[1]).sum();
    let grid = Grid::new(latents[0].dims(), channels, patch);
    assert_eq!((dst.rows(), dst.columns()), (grid.rows(), grid.features));
    for latent in latents {
        let alike = |n: usize| latent.dims()[n] == latents[0].dims()[n];
        assert!(alike(0) && alike(2) && alike(3), "latents of different sizes");
    }
    let dst = s.sink(dst);
    grid.for_blocks(s, |row, place, columns, scratch| {
        let (rows, rest) = scratch.split_at_mut(columns.len() * grid.features);
        let line = &mut rest[..columns.len() * grid.patch];
        let mut first_feature = 0;
        for latent in latents {
            let (dims, latent) = (latent.dims(), s.source(latent));
            grid.for_lines(dims, first_feature, place, columns.start, |feature, start| {
                latent.load(start, line);
                let line = line.chunks_exact(grid.patch);
                for (row, line) in rows.chunks_exact_mut(grid.features).zip(line) {
                    row[feature..feature + grid.patch].copy_from_slice(line);
                }
            });
            first_feature += dims[1] * grid.patch_frames * grid.patch * grid.patch;
        }
        dst.store(row * grid.features, rows);
    });
}

pub(crate) fn unpatchify(s: &Session<'_>, src: &Tensor, patch: (usize, usize), dst: &mut Tensor) {
    let dims = dst.shape();
    let dims = dims.dims();
    let grid = Grid::new(dims, dims[1], patch);
    assert_eq!((src.rows(), src.columns()), (grid.rows(), grid.features));
    let (src, dst) = (s.source(src), s.sink(dst));
    grid.for_blocks(s, |row, place, columns, scratch| {
        let (rows, rest) = scratch.split_at_mut(columns.len() * grid.features);
        let line = &mut rest[..columns.len() * grid.patch];
        src.load(row * grid.features, rows);
        grid.for_lines(dims, 0, place, columns.start, |feature, start| {
            let rows = rows.chunks_exact(grid.features);
            for (line, row) in line.chunks_exact_mut(grid.patch).zip(rows) {
                line.copy_from_slice(&row[feature..feature + grid.patch]);
            }
            dst.store(start, line);
        });
    });
}
