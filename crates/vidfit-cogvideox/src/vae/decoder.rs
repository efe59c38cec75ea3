//! From latents to frames: chunks in time, tiles in space.

use super::VaeConfig;
use super::caches::Caches;
use super::layers::{CausalConv, Latents, SpatialNorm, resnet, upsample};
use super::tiling::Tiling;
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
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

/// How decoding uses memory. Never changes a bit of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DecodeSchedule {
    /// How many of the causal convolutions, counted from the last, keep what they remember from
    /// chunk to chunk in host memory.
    pub paged_caches: usize,
}

/// How often decoding goes through all blocks: once for each chunk of each tile.
pub fn decoder_passes(
    config: &VaeConfig,
    tiling: Option<Tiling>,
    frames: usize,
    (height, width): (usize, usize),
) -> usize {
    let (rows, columns) = Tiling::strips(tiling, config, height, width);
    chunks(frames).count() * rows.starts(height).count() * columns.starts(width).count()
}

/// Latent pixels of a frame that go through the decoder: those of all tiles, overlaps counted as
/// often as they are decoded.
pub fn decoded_pixels(
    config: &VaeConfig,
    tiling: Option<Tiling>,
    (height, width): (usize, usize),
) -> usize {
    let (rows, columns) = Tiling::strips(tiling, config, height, width);
    let length = |strip: super::tiling::Strip, length: usize| -> usize {
        strip.starts(length).map(|start| strip.tile.min(length - start)).sum()
    };
    length(rows, height) * length(columns, width)
}

/// Values that decoding in tiles keeps of tiles that are done, for the seams to those that follow:
/// the last rows of a row of tiles, and the last columns of the tile before.
pub fn kept_edges(
    config: &VaeConfig,
    tiling: Option<Tiling>,
    frames: usize,
    (height, width): (usize, usize),
) -> usize {
    let (rows, columns) = Tiling::strips(tiling, config, height, width);
    let ratio = config.spatial_ratio();
    let widths = columns.starts(width).map(|left| columns.tile.min(width - left) * ratio);
    let above = if rows.stride < height { rows.blend * widths.sum::<usize>() } else { 0 };
    let before =
        if columns.stride < width { columns.blend * rows.tile.min(height) * ratio } else { 0 };
    (above + before) * frames_of(config, frames) * config.out_channels
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
    schedule: DecodeSchedule,
    give: &mut dyn FnMut(Piece<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let [count, _, height, width] = *latents.dims() else {
        panic!("latents are [F, C, h, w], not {latents:?}");
    };
    let (rows, columns) = Tiling::strips(tiling, config, height, width);
    let ratio = config.spatial_ratio();
    let tiles_across = columns.starts(width).count();

    let total = frames_of(config, count);

    // The last rows of the tile above, for each column, and the last columns of the tile to the
    // left: all frames of a tile in one tensor, in which a frame's edge gives way to the next
    // tile's when it has been blended.
    let mut above: Vec<Option<Tensor>> = vec![None; tiles_across];
    for top in rows.starts(height) {
        let last_row = top + rows.stride >= height;
        let mut before: Option<Tensor> = None;
        for (column, left) in columns.starts(width).enumerate() {
            let last_column = left + columns.stride >= width;
            let size = (rows.tile.min(height - top), columns.tile.min(width - left));
            let (h, w) = (size.0 * ratio, size.1 * ratio);
            let edges = |label: &str, height: usize, width: usize| {
                cx.alloc(label, latents.dtype(), [total, height, width, config.out_channels])
            };
            let (has_above, has_before) = (above[column].is_some(), before.is_some());
            if !last_row && !has_above {
                above[column] = Some(edges("last rows of a tile", rows.blend, w)?);
            }
            if !last_column && !has_before {
                before = Some(edges("last columns of a tile", h, columns.blend)?);
            }
            let mut caches = Caches::new(config.decoder_caches(), schedule.paged_caches);
            let mut frame = 0;
            for chunk in chunks(count) {
                let tile = Tile { corner: (top, left), size };
                caches.begin_chunk(chunk.end == count);
                for mut pixels in
                    decode_chunk(cx, weights, config, latents, chunk, tile, &mut caches)?
                {
                    debug_assert_eq!(pixels.dims()[..2], [h, w]);
                    let above = above[column].as_ref().map(|edges| edges.at(frame));
                    let before = before.as_ref().map(|edges| edges.at(frame));
                    // Vertically first, then horizontally, both with finished neighbours.
                    if let (true, Some(edge)) = (has_above, &above) {
                        let extent = rows.blend.min(h);
                        cx.device.blend(edge, &mut pixels, Axis::Vertical, extent);
                    }
                    if let (true, Some(edge)) = (has_before, &before) {
                        let extent = columns.blend.min(w);
                        cx.device.blend(edge, &mut pixels, Axis::Horizontal, extent);
                    }
                    if let (false, Some(mut edge)) = (last_row, above) {
                        cx.device.crop(&pixels, (h - rows.blend, 0), &mut edge);
                    }
                    if let (false, Some(mut edge)) = (last_column, before) {
                        cx.device.crop(&pixels, (0, w - columns.blend), &mut edge);
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
            debug_assert_eq!(frame, total);
            if last_row {
                above[column] = None;
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

/// The frames that `count` latent ones become: in every chunk, each doubling in time leaves the
/// first of an odd number single.
fn frames_of(config: &VaeConfig, count: usize) -> usize {
    let doublings = config.up_blocks().iter().filter(|up| up.doubles_time && up.upsamples).count();
    let doubled = |frames: usize| 2 * frames - frames % 2;
    chunks(count).map(|chunk| (0..doublings).fold(chunk.len(), |frames, _| doubled(frames))).sum()
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
    let mut conv = CausalConv::resume(cx, &w, "conv_in.conv", caches, "conv_in")?;
    let mut frames = Vec::new();
    for t in chunk {
        let mut dst = cx.alloc("conv_in", dtype, [height, width, config.widest()])?;
        conv.feed(latent(t, true)?, false, &mut dst);
        frames.push(dst);
    }
    conv.suspend(caches, "conv_in")?;
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
    let mut conv = CausalConv::resume(cx, &w, "conv_out.conv", caches, "conv_out")?;
    let mut pictures = Vec::new();
    for (t, frame) in frames.into_iter().enumerate() {
        let padded = norm.apply(t, &frame)?;
        let shape = [frame.dims()[0], frame.dims()[1], config.out_channels];
        drop(frame);
        let mut dst = cx.alloc("picture", dtype, shape)?;
        conv.feed(padded, false, &mut dst);
        pictures.push(dst);
    }
    conv.suspend(caches, "conv_out")?;
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

    #[test]
    fn an_odd_latent_frame_becomes_one_and_each_other_four() {
        let config = VaeConfig::default();
        for count in 1..50 {
            let expected = if count % 2 == 1 { 4 * (count - 1) + 1 } else { 4 * count };
            assert_eq!(frames_of(&config, count), expected, "{count} latent frames");
        }
    }
}
