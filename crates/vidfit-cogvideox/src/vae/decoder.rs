//! From latents to frames: chunks in time, tiles in space.

use super::VaeConfig;
use super::layers::{Caches, CausalConv, Latents, SpatialNorm, resnet, upsample};
use super::tiling::Tiling;
use crate::weights::Weights;
use std::ops::Range;
use vidfit_tensor::{Axis, Context, DType, Error, Tensor};

/// A finished part of a frame.
pub struct Piece<'a> {
    /// The frame's number.
    pub frame: usize,
    /// Row of the piece's first pixel.
    pub top: usize,
    /// Column of the piece's first pixel.
    pub left: usize,
    /// `[h, w, 3]`, f32, in 0..=1.
    pub pixels: &'a Tensor,
}

/// Decodes `latents` `[F, C, h, w]` and hands every finished piece to `give`. Without tiles there
/// is one piece a frame; tiles come row by row, all frames of one before the next.
///
/// An odd number of latent frames makes 4·(F-1)+1 frames, an even one 4·F, as in the reference.
///
/// # Errors
/// As [`Weights::block`], [`vidfit_tensor::Arena::alloc`], [`Context::unit_done`] and `give`.
pub fn decode(
    cx: &Context<'_>,
    weights: &dyn Weights,
    config: &VaeConfig,
    latents: &Tensor,
    tiling: Option<Tiling>,
    give: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let [count, _, height, width] = *latents.dims() else {
        panic!("latents are [F, C, h, w], not {latents:?}");
    };
    let (rows, columns) = Tiling::strips(tiling, config, height, width);
    let ratio = config.spatial_ratio();
    let tiles_across = columns.starts(width).count();

    // The last rows of the tiles above, by column and frame; the last columns of the tile to the
    // left, by frame.
    let mut above: Vec<Vec<Tensor>> = vec![Vec::new(); tiles_across];
    for (row, top) in rows.starts(height).enumerate() {
        let mut left_edges: Vec<Tensor> = Vec::new();
        let last_row = rows.starts(height).count() == row + 1;
        for (column, left) in columns.starts(width).enumerate() {
            let last_column = tiles_across == column + 1;
            let size = (rows.tile.min(height - top), columns.tile.min(width - left));
            let above_edges = std::mem::take(&mut above[column]);
            let before_edges = std::mem::take(&mut left_edges);
            let mut caches = Caches::new();
            let mut frame = 0;
            for chunk in chunks(count) {
                let tile = Tile { corner: (top, left), size };
                for mut pixels in
                    decode_chunk(cx, weights, config, latents, chunk, tile, &mut caches)?
                {
                    // Vertically first, then horizontally, both with finished neighbours.
                    if let Some(edge) = above_edges.get(frame) {
                        let extent = edge.dims()[0].min(pixels.dims()[0]);
                        cx.device.blend(edge, &mut pixels, Axis::Vertical, extent);
                    }
                    if let Some(edge) = before_edges.get(frame) {
                        let extent = edge.dims()[1].min(pixels.dims()[1]);
                        cx.device.blend(edge, &mut pixels, Axis::Horizontal, extent);
                    }
                    let (h, w) = (pixels.dims()[0], pixels.dims()[1]);
                    if !last_row {
                        let edge = rows.blend.min(h);
                        above[column].push(cut(cx, &pixels, (h - edge, 0), (edge, w))?);
                    }
                    if !last_column {
                        let edge = columns.blend.min(w);
                        left_edges.push(cut(cx, &pixels, (0, w - edge), (h, edge))?);
                    }
                    let kept = (rows.keep.min(h), columns.keep.min(w));
                    let kept = cut(cx, &pixels, (0, 0), kept)?;
                    drop(pixels);
                    let mut unit = cx.alloc("pixels", DType::F32, kept.shape())?;
                    cx.device.to_unit_range(&kept, &mut unit);
                    drop(kept);
                    let corner =
                        (top / rows.stride * rows.keep, left / columns.stride * columns.keep);
                    debug_assert_eq!(corner, (top * ratio, left * ratio));
                    give(Piece { frame, top: corner.0, left: corner.1, pixels: &unit })?;
                    frame += 1;
                }
            }
        }
    }
    Ok(())
}

/// A tile in latent pixels.
#[derive(Clone, Copy)]
struct Tile {
    corner: (usize, usize),
    size: (usize, usize),
}

/// Copies a rectangle out of a frame.
fn cut(
    cx: &Context<'_>,
    frame: &Tensor,
    corner: (usize, usize),
    size: (usize, usize),
) -> Result<Tensor, Error> {
    if corner == (0, 0) && size == (frame.dims()[0], frame.dims()[1]) {
        return Ok(frame.clone());
    }
    let shape = [size.0, size.1, frame.columns()];
    let mut dst = cx.alloc("part of a tile", frame.dtype(), shape)?;
    cx.device.crop(frame, corner, &mut dst);
    Ok(dst)
}

/// Two latent frames at a time; the first chunk has the odd one, too.
fn chunks(count: usize) -> impl Iterator<Item = Range<usize>> {
    let odd = count % 2;
    (0..(count / 2).max(1)).map(move |n| {
        let start = if n == 0 { 0 } else { 2 * n + odd };
        start..(2 * (n + 1) + odd).min(count)
    })
}

/// Decodes one chunk of one tile: `[h, w, 3]` for each frame.
fn decode_chunk(
    cx: &Context<'_>,
    weights: &dyn Weights,
    config: &VaeConfig,
    latents: &Tensor,
    chunk: Range<usize>,
    tile: Tile,
    caches: &mut Caches,
) -> Result<Vec<Tensor>, Error> {
    let dtype = latents.dtype();
    let (height, width) = tile.size;
    let channels = config.latent_channels;
    let factor = (1.0 / config.scaling_factor) as f32;
    let latent = |t: usize, padded: bool| {
        let border = if padded { 2 } else { 0 };
        let shape = [height + border, width + border, channels];
        let mut dst = cx.alloc("latent frame", dtype, shape)?;
        cx.device.latent_frame(&latents.at(t), tile.corner, factor, padded, &mut dst);
        Ok::<Tensor, Error>(dst)
    };
    let z = chunk.clone().map(|t| latent(t, false)).collect::<Result<_, _>>()?;
    let z = Latents { frames: z };

    let w = weights.block("decoder.conv_in")?;
    let mut conv = CausalConv::resume(cx, &w, "conv_in.conv", caches, "conv_in");
    let mut frames = Vec::new();
    for t in chunk {
        let mut dst = cx.alloc("conv_in", dtype, [height, width, config.widest()])?;
        conv.feed(latent(t, true)?, false, &mut dst);
        frames.push(dst);
    }
    conv.suspend(caches, "conv_in");
    drop(w);

    let mut run_resnet = |name: String, frames: Vec<Tensor>| {
        let w = weights.block(&name)?;
        let groups = config.norm_num_groups;
        let frames = cx.scope(&name, || resnet(cx, &w, &name, groups, frames, &z, caches))?;
        cx.unit_done()?;
        Ok::<_, Error>(frames)
    };
    for index in 0..2 {
        frames = run_resnet(format!("decoder.mid_block.resnets.{index}"), frames)?;
    }
    for up in config.up_blocks() {
        for index in 0..up.resnets {
            frames = run_resnet(format!("{}.resnets.{index}", up.name), frames)?;
        }
        if up.upsamples {
            let name = format!("{}.upsamplers.0", up.name);
            let w = weights.block(&name)?;
            frames = cx.scope(&name, || upsample(cx, &w, up.doubles_time, frames))?;
        }
    }

    let w = weights.block("decoder.tail")?;
    let norm = SpatialNorm::measure(cx, &w, "norm_out", config.norm_num_groups, &frames, &z)?;
    let mut conv = CausalConv::resume(cx, &w, "conv_out.conv", caches, "conv_out");
    let mut pictures = Vec::new();
    for (t, frame) in frames.into_iter().enumerate() {
        let padded = norm.apply(t, &frame)?;
        let shape = [frame.dims()[0], frame.dims()[1], config.out_channels];
        drop(frame);
        let mut dst = cx.alloc("picture", dtype, shape)?;
        conv.feed(padded, false, &mut dst);
        pictures.push(dst);
    }
    conv.suspend(caches, "conv_out");
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_two_latents_and_the_odd_one_comes_first() {
        let of = |n| chunks(n).map(|c| (c.start, c.end)).collect::<Vec<_>>();
        assert_eq!(of(13), [(0, 3), (3, 5), (5, 7), (7, 9), (9, 11), (11, 13)]);
        assert_eq!(of(4), [(0, 2), (2, 4)]);
        assert_eq!(of(1), [(0, 1)]);
        assert_eq!(of(2), [(0, 2)]);
        assert_eq!(of(3), [(0, 3)]);
    }
}
