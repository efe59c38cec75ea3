//! From latents to frames: chunks in time, tiles in space.

use super::VaeConfig;
use super::caches::Caches;
use super::layers::{CausalConv, Latents, Norm, Norms, resnet, upsample};
use super::seams::Seams;
use super::tiling::{Grid, Tile, Tiling};
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use vidfit_tensor::{Context, DType, Error, Tensor};

/// The eps of the reference's spatial norms, which no configuration holds.
const SPATIAL_NORM_EPS: f32 = 1e-6;

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
    size: (usize, usize),
) -> usize {
    chunks(frames).count() * Grid::decoding(config, tiling, size).count()
}

/// Latent pixels of a frame that go through the decoder: those of all tiles, overlaps counted as
/// often as they are decoded.
pub fn decoded_pixels(config: &VaeConfig, tiling: Option<Tiling>, size: (usize, usize)) -> usize {
    Grid::decoding(config, tiling, size).pixels()
}

/// Values that decoding in tiles keeps of tiles that are done, for the seams to those that follow:
/// the last rows of a row of tiles, and the last columns of the tile before.
pub fn kept_edges(
    config: &VaeConfig,
    tiling: Option<Tiling>,
    frames: usize,
    size: (usize, usize),
) -> usize {
    let pixels = Grid::decoding(config, tiling, size).edges();
    pixels * frames_of(config, frames) * config.out_channels
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
    let grid = Grid::decoding(config, tiling, (height, width));
    let total = frames_of(config, count);
    let mut seams = Seams::new(cx, grid, latents.dtype(), total, config.out_channels);
    for tile in grid.tiles() {
        seams.begin(tile)?;
        let (top, left) = grid.place(tile);
        let mut caches = Caches::new(config.decoder_caches(), schedule.paged_caches);
        let mut frame = 0;
        for chunk in chunks(count) {
            caches.begin_chunk(chunk.end == count);
            for picture in decode_chunk(cx, weights, config, latents, chunk, tile, &mut caches)? {
                let kept = seams.join(frame, picture)?;
                let mut unit = cx.alloc("pixels", DType::F32, kept.shape())?;
                cx.device.to_unit_range(&kept, &mut unit);
                drop(kept);
                give(Piece { frame, top, left, pixels: &unit })?;
                frame += 1;
            }
        }
        debug_assert_eq!(frame, total);
        seams.end();
    }
    Ok(())
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
    let norms = Norms { groups: config.norm_num_groups, eps: SPATIAL_NORM_EPS, latents: Some(&z) };

    let w = weights.block("decoder.conv_in")?;
    let mut conv = CausalConv::resume(cx, &w, "conv_in.conv", caches, "conv_in")?;
    let mut frames = conv.convolve(false, chunk, |_, t, _| {
        let dst = cx.alloc("conv_in", dtype, [height, width, config.widest()])?;
        Ok((latent(t, true)?, dst))
    })?;
    conv.suspend(caches, "conv_in")?;
    drop(w);

    let mut run_resnet = |name: String, frames: Vec<Tensor>| {
        let w = weights.block(&name)?;
        let frames = cx.scope(&name, || resnet(cx, &w, &name, norms, frames, caches))?;
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
    let norm = Norm::measure(cx, &w, "norm_out", norms, &frames)?;
    let mut conv = CausalConv::resume(cx, &w, "conv_out.conv", caches, "conv_out")?;
    let pictures = conv.convolve(false, frames, |t, frame, _| {
        let padded = norm.apply(t, &frame)?;
        let shape = [frame.dims()[0], frame.dims()[1], config.out_channels];
        drop(frame);
        Ok((padded, cx.alloc("picture", dtype, shape)?))
    })?;
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
