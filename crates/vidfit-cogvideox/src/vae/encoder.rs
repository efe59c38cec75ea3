//! From frames to latents: chunks in time, tiles in space.

use super::VaeConfig;
use super::caches::Caches;
use super::layers::{CausalConv, Norm, Norms, downsample, resnet};
use super::seams::Seams;
use super::tiling::{Grid, Tile, Tiling};
use crate::weights::Weights;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use vidfit_tensor::{Context, DType, Error, Tensor};

/// Frames of a chunk; the first has what is left over as well (`num_sample_frames_batch_size`).
const CHUNK: usize = 8;

/// The eps of the last norm, which no configuration holds.
const TAIL_EPS: f32 = 1e-6;

/// A rectangle of one frame of the video that is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// The frame's number.
    pub frame: usize,
    /// Row of the first pixel.
    pub top: usize,
    /// Column of the first pixel.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Writes the pixels of a rectangle to a slice that has room for just them: `[height, width, 3]`
/// in -1..=1. A dry run never asks.
pub type Pixels<'a> = dyn FnMut(Rectangle, &mut [f32]) -> Result<(), Error> + 'a;

/// How encoding uses memory. Never changes a bit of the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EncodeSchedule {
    /// How many of the causal convolutions, counted from the last, keep what they remember from
    /// chunk to chunk in host memory.
    pub paged_caches: usize,
}

/// How often encoding goes through all blocks: once for each chunk of each tile. `size` is the
/// height and width of the frames.
pub fn encoder_passes(
    config: &VaeConfig,
    tiling: Option<Tiling>,
    frames: usize,
    size: (usize, usize),
) -> usize {
    chunks(frames).count() * Grid::encoding(config, tiling, size).count()
}

/// Pixels of a frame that go through the encoder: those of all tiles, overlaps counted as often as
/// they are encoded.
pub fn encoded_pixels(config: &VaeConfig, tiling: Option<Tiling>, size: (usize, usize)) -> usize {
    Grid::encoding(config, tiling, size).pixels()
}

/// Values that encoding in tiles keeps of tiles that are done, for the seams to those that follow,
/// as [`super::kept_edges`].
pub fn kept_latent_edges(
    config: &VaeConfig,
    tiling: Option<Tiling>,
    frames: usize,
    size: (usize, usize),
) -> usize {
    let pixels = Grid::encoding(config, tiling, size).edges();
    pixels * latent_frames(config, frames) * 2 * config.latent_channels
}

/// Bytes of host memory that the pixels of one frame of a tile pass through on their way to the
/// device: as they are given, and with a border.
pub fn encoder_host_bytes(config: &VaeConfig, tiling: Option<Tiling>, size: (usize, usize)) -> u64 {
    let values = |tile: Tile| {
        let (height, width) = tile.size;
        (height * width + (height + 2) * (width + 2)) * config.in_channels
    };
    let most = Grid::encoding(config, tiling, size).tiles().map(values).max();
    most.unwrap_or(0) as u64 * DType::F32.bytes()
}

/// The latent frames that `frames` become: in every chunk, each halving in time leaves the first of
/// an odd number by itself. 4·n+1 frames become n+1, of which a picture is one.
pub fn latent_frames(config: &VaeConfig, frames: usize) -> usize {
    let halvings =
        config.down_blocks().iter().filter(|down| down.halves_time && down.downsamples).count();
    let halved = |frames: usize| frames.div_ceil(2);
    chunks(frames).map(|chunk| (0..halvings).fold(chunk.len(), |frames, _| halved(frames))).sum()
}

/// Encodes a video of `frames` frames of `height` by `width` pixels, or a picture, which is one
/// frame. The result is what the posterior is made of, see [`super::sample`]: `[F, 2·C, h, w]` in
/// `dtype`, with F of [`latent_frames`], means first. Height and width are multiples of
/// [`VaeConfig::spatial_ratio`].
///
/// `pixels` is asked for each frame of each tile once, in the order of chunks, tile by tile.
///
/// # Errors
/// As [`Weights::block`], [`vidfit_tensor::Arena::alloc`], [`Context::unit_done`] and `pixels`.
#[expect(clippy::too_many_arguments, reason = "two descriptions, of the video and of the way")]
pub fn encode(
    cx: &Context<'_>,
    weights: &dyn Weights,
    config: &VaeConfig,
    dtype: DType,
    (frames, height, width): (usize, usize, usize),
    pixels: &mut Pixels<'_>,
    tiling: Option<Tiling>,
    schedule: EncodeSchedule,
) -> Result<Tensor, Error> {
    let ratio = config.spatial_ratio();
    assert!(
        frames > 0 && height % ratio == 0 && width % ratio == 0,
        "{frames} frames of {height}x{width} pixels in steps of {ratio}"
    );
    let grid = Grid::encoding(config, tiling, (height, width));
    let (count, channels) = (latent_frames(config, frames), 2 * config.latent_channels);
    let shape = [count, channels, height / ratio, width / ratio];
    let moments = cx.alloc("moments", dtype, shape)?;
    let mut seams = Seams::new(cx, grid, dtype, count, channels);
    for tile in grid.tiles() {
        seams.begin(tile)?;
        let mut caches = Caches::new(config.encoder_caches(), schedule.paged_caches);
        let mut frame = 0;
        for chunk in chunks(frames) {
            caches.begin_chunk(chunk.end == frames);
            let video = Video { pixels, dtype, tile };
            for latent in encode_chunk(cx, weights, config, video, chunk, &mut caches)? {
                let kept = seams.join(frame, latent)?;
                cx.device.store_latent(&kept, grid.place(tile), &mut moments.at(frame));
                frame += 1;
            }
        }
        debug_assert_eq!(frame, count);
        seams.end();
    }
    Ok(moments)
}

/// Eight frames at a time; the first chunk has what is left over, too.
fn chunks(frames: usize) -> impl Iterator<Item = Range<usize>> {
    let left = frames % CHUNK;
    (0..(frames / CHUNK).max(1)).map(move |n| {
        let start = if n == 0 { 0 } else { CHUNK * n + left };
        start..(CHUNK * (n + 1) + left).min(frames)
    })
}

/// One tile of a video.
struct Video<'a, 'p> {
    pixels: &'a mut Pixels<'p>,
    dtype: DType,
    tile: Tile,
}

impl Video<'_, '_> {
    /// A frame of the tile on the device, padded: `[height + 2, width + 2, channels]`.
    fn padded(&mut self, cx: &Context<'_>, frame: usize, channels: usize) -> Result<Tensor, Error> {
        let Tile { corner: (top, left), size: (height, width), .. } = self.tile;
        let shape = [height + 2, width + 2, channels];
        let mut picture = cx.alloc("picture", self.dtype, shape)?;
        if cx.arena.is_recording() {
            cx.device.upload(&[], &mut picture);
            return Ok(picture);
        }
        let mut values = vec![0.0; height * width * channels];
        (self.pixels)(Rectangle { frame, top, left, height, width }, &mut values)?;
        let mut padded = vec![0.0; picture.shape().elements()];
        let lines = padded.chunks_exact_mut((width + 2) * channels).skip(1);
        for (line, values) in lines.zip(values.chunks_exact(width * channels)) {
            line[channels..][..values.len()].copy_from_slice(values);
        }
        cx.device.upload(&padded, &mut picture);
        Ok(picture)
    }
}

/// Encodes one chunk of one tile: `[h, w, 2·C]` for each latent frame.
fn encode_chunk(
    cx: &Context<'_>,
    weights: &dyn Weights,
    config: &VaeConfig,
    mut video: Video<'_, '_>,
    chunk: Range<usize>,
    caches: &mut Caches,
) -> Result<Vec<Tensor>, Error> {
    let (dtype, (height, width)) = (video.dtype, video.tile.size);
    let w = weights.block("encoder.conv_in")?;
    let mut conv = CausalConv::resume(cx, &w, "conv_in.conv", caches, "conv_in")?;
    let mut frames = conv.convolve(false, chunk, |_, frame, _| {
        let picture = video.padded(cx, frame, config.in_channels)?;
        Ok((picture, cx.alloc("conv_in", dtype, [height, width, config.narrowest()])?))
    })?;
    conv.suspend(caches, "conv_in")?;
    drop(w);

    let norms = Norms { groups: config.norm_num_groups, eps: config.norm_eps, latents: None };
    let mut run_resnet = |name: String, frames: Vec<Tensor>| {
        let w = weights.block(&name)?;
        let frames = cx.scope(&name, || resnet(cx, &w, &name, norms, frames, caches))?;
        cx.unit_done()?;
        Ok::<_, Error>(frames)
    };
    for down in config.down_blocks() {
        for index in 0..down.resnets {
            frames = run_resnet(format!("{}.resnets.{index}", down.name), frames)?;
        }
        if down.downsamples {
            let name = format!("{}.downsamplers.0", down.name);
            let w = weights.block(&name)?;
            frames = cx.scope(&name, || downsample(cx, &w, down.halves_time, frames))?;
        }
    }
    for index in 0..2 {
        frames = run_resnet(format!("encoder.mid_block.resnets.{index}"), frames)?;
    }

    let w = weights.block("encoder.tail")?;
    let norms = Norms { eps: TAIL_EPS, ..norms };
    let norm = Norm::measure(cx, &w, "norm_out", norms, &frames)?;
    let mut conv = CausalConv::resume(cx, &w, "conv_out.conv", caches, "conv_out")?;
    let latents = conv.convolve(false, frames, |t, frame, _| {
        let padded = norm.apply(t, &frame)?;
        let shape = [frame.dims()[0], frame.dims()[1], 2 * config.latent_channels];
        drop(frame);
        Ok((padded, cx.alloc("latent", dtype, shape)?))
    })?;
    conv.suspend(caches, "conv_out")?;
    Ok(latents)
}

/// Draws latents from the posterior that [`encode`] found: `dst`, `[F, C, h, w]`, from `noise`,
/// which is like it and drawn as [`frames_first`] says. `factor` is [`VaeConfig::video_factor`] or
/// [`VaeConfig::image_factor`]. `dst` may be `noise`.
pub fn sample(cx: &Context<'_>, moments: &Tensor, noise: &Tensor, factor: f64, dst: &mut Tensor) {
    cx.device.posterior_sample(moments, noise, factor, dst);
}

/// Noise for [`sample`], `[F, C, h, w]`, from what the reference draws for it, which is
/// `[1, C, F, h, w]`; `plane` is `h · w`.
pub fn frames_first(drawn: &[f32], channels: usize, plane: usize) -> Vec<f32> {
    let frames = drawn.len() / (channels * plane);
    let mut ordered = Vec::with_capacity(drawn.len());
    for frame in 0..frames {
        for channel in 0..channels {
            ordered.extend_from_slice(&drawn[(channel * frames + frame) * plane..][..plane]);
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_belongs_to_the_first_chunk() {
        let of = |n| chunks(n).map(|chunk| (chunk.start, chunk.end)).collect::<Vec<_>>();
        assert_eq!(of(49), [(0, 9), (9, 17), (17, 25), (25, 33), (33, 41), (41, 49)]);
        assert_eq!(of(16), [(0, 8), (8, 16)]);
        assert_eq!(of(23), [(0, 15), (15, 23)]);
        assert_eq!(of(5), [(0, 5)]);
        assert_eq!(of(1), [(0, 1)]);
    }

    #[test]
    fn a_first_frame_and_each_four_that_follow_become_a_latent() {
        let config = VaeConfig::default();
        for latents in 1..50 {
            assert_eq!(latent_frames(&config, 4 * latents - 3), latents);
        }
        // Odd numbers within a chunk, wherever they come up, keep their first by itself.
        assert_eq!(latent_frames(&config, 8), 2);
        assert_eq!(latent_frames(&config, 10), 3);
        assert_eq!(latent_frames(&config, 12), 3);
        assert_eq!(latent_frames(&config, 22), 6);
    }
}
