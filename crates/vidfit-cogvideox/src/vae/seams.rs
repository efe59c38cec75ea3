//! The seams between tiles: each tile is blended with finished neighbours, of which only the edges
//! are kept (`blend_v`, `blend_h`).

use super::tiling::{Grid, Tile};
use vidfit_tensor::{Axis, Context, DType, Error, Tensor};

/// The edges of tiles that are done. All frames of an edge are one tensor, in which a frame's edge
/// gives way to the next tile's when it has been blended.
pub(super) struct Seams<'a> {
    cx: &'a Context<'a>,
    grid: Grid,
    dtype: DType,
    frames: usize,
    channels: usize,
    /// The last rows of the tile above, for each column.
    above: Vec<Option<Tensor>>,
    /// The last columns of the tile to the left.
    before: Option<Tensor>,
    /// The tile at work.
    tile: Option<Neighbours>,
}

/// A tile, and which neighbours it is blended with.
#[derive(Clone, Copy)]
struct Neighbours {
    tile: Tile,
    has_above: bool,
    has_before: bool,
}

impl<'a> Seams<'a> {
    /// For tiles that become `frames` frames of `channels` channels each.
    pub fn new(
        cx: &'a Context<'a>,
        grid: Grid,
        dtype: DType,
        frames: usize,
        channels: usize,
    ) -> Seams<'a> {
        let above = vec![None; grid.columns()];
        Seams { cx, grid, dtype, frames, channels, above, before: None, tile: None }
    }

    /// A tile begins.
    pub fn begin(&mut self, tile: Tile) -> Result<(), Error> {
        let (height, width) = self.grid.result(tile);
        let (rows, columns) = self.grid.blend();
        let (has_above, has_before) = (self.above[tile.column].is_some(), self.before.is_some());
        let edges = |label: &str, height: usize, width: usize| {
            self.cx.alloc(label, self.dtype, [self.frames, height, width, self.channels])
        };
        if !tile.is_last_row && !has_above {
            self.above[tile.column] = Some(edges("last rows of a tile", rows, width)?);
        }
        if !tile.is_last_column && !has_before {
            self.before = Some(edges("last columns of a tile", height, columns)?);
        }
        self.tile = Some(Neighbours { tile, has_above, has_before });
        Ok(())
    }

    /// Blends frame number `frame` of the tile, and returns its contribution.
    pub fn join(&self, frame: usize, mut picture: Tensor) -> Result<Tensor, Error> {
        let (device, grid) = (self.cx.device, self.grid);
        let Neighbours { tile, has_above, has_before } = self.tile.expect("a tile has begun");
        let (height, width) = grid.result(tile);
        debug_assert_eq!(picture.dims()[..2], [height, width]);
        let (rows, columns) = grid.blend();
        let above = self.above[tile.column].as_ref().map(|edges| edges.at(frame));
        let before = self.before.as_ref().map(|edges| edges.at(frame));
        // Vertically first, then horizontally, both with finished neighbours.
        if let (true, Some(edge)) = (has_above, &above) {
            device.blend(edge, &mut picture, Axis::Vertical, rows.min(height));
        }
        if let (true, Some(edge)) = (has_before, &before) {
            device.blend(edge, &mut picture, Axis::Horizontal, columns.min(width));
        }
        if let (false, Some(mut edge)) = (tile.is_last_row, above) {
            device.crop(&picture, (height - rows, 0), &mut edge);
        }
        if let (false, Some(mut edge)) = (tile.is_last_column, before) {
            device.crop(&picture, (0, width - columns), &mut edge);
        }
        let (height, width) = grid.kept(tile);
        if picture.dims()[..2] == [height, width] {
            return Ok(picture);
        }
        let mut kept =
            self.cx.alloc("part of a tile", self.dtype, [height, width, self.channels])?;
        device.crop(&picture, (0, 0), &mut kept);
        Ok(kept)
    }

    /// The tile is done.
    pub fn end(&mut self) {
        let Some(Neighbours { tile, .. }) = self.tile.take() else { return };
        if tile.is_last_row {
            self.above[tile.column] = None;
        }
        if tile.is_last_column {
            self.before = None;
        }
    }
}
