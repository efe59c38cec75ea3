//! Frames: cut, enlarged, averaged, blended, and turned into latents and brightness.

use crate::device::Session;
use crate::element::Sink;
use crate::ops::{CHUNK, for_chunks, pieces};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use vidfit_tensor::*;

/// A frame's height, width and channels.
pub(super) fn frame_dims(frame: &Tensor) -> [usize; 3] {
    let &[height, width, channels] = frame.dims() else { panic!("a frame of {frame:?}") };
    [height, width, channels]
}

/// Makes the border of row `row` of a padded frame zero. Returns whether that is all of the row.
pub(super) fn clear_border(dst: &Sink, row: usize, [height, width, channels]: [usize; 3]) -> bool {
    let (start, pitch) = (row * width * channels, width * channels);
    if row == 0 || row == height - 1 {
        dst.clear(start, pitch);
        return true;
    }
    dst.clear(start, channels);
    dst.clear(start + pitch - channels, channels);
    false
}

pub(crate) fn latent_frame(
    s: &Session<'_>,
    src: &Tensor,
    corner: (usize, usize),
    factor: f32,
    padded: bool,
    dst: &mut Tensor,
) {
    let &[channels, src_height, src_width] = src.dims() else { panic!("a latent of {src:?}") };
    let dims @ [rows, columns, dst_channels] = frame_dims(dst);
    let border = usize::from(padded);
    let (height, width) = (rows - 2 * border, columns - 2 * border);
    assert_eq!(channels, dst_channels);
    assert!(corner.0 + height <= src_height && corner.1 + width <= src_width);
    let (src, dst) = (s.source(src), s.sink(dst));
    s.run(rows, |row, scratch| {
        if padded && clear_border(&dst, row, dims) {
            return;
        }
        let y = corner.0 + row - border;
        for piece in pieces(width, (CHUNK / channels).max(1)) {
            let (pixels, rest) = scratch.split_at_mut(piece.len() * channels);
            let line = &mut rest[..piece.len()];
            for channel in 0..channels {
                let first = (channel * src_height + y) * src_width + corner.1;
                src.load(first + piece.start, line);
                for (pixel, value) in pixels.chunks_exact_mut(channels).zip(&*line) {
                    pixel[channel] = factor * value;
                }
            }
            dst.store((row * columns + border + piece.start) * channels, pixels);
        }
    });
}

pub(crate) fn store_latent(
    s: &Session<'_>,
    frame: &Tensor,
    corner: (usize, usize),
    dst: &mut Tensor,
) {
    let [height, width, channels] = frame_dims(frame);
    let &[dst_channels, dst_height, dst_width] = dst.dims() else { panic!("a latent of {dst:?}") };
    assert_eq!(channels, dst_channels);
    assert!(corner.0 + height <= dst_height && corner.1 + width <= dst_width);
    let (frame, dst) = (s.source(frame), s.sink(dst));
    s.run(height, |y, scratch| {
        for piece in pieces(width, (CHUNK / channels).max(1)) {
            let (pixels, rest) = scratch.split_at_mut(piece.len() * channels);
            let line = &mut rest[..piece.len()];
            frame.load((y * width + piece.start) * channels, pixels);
            for channel in 0..channels {
                for (value, pixel) in line.iter_mut().zip(pixels.chunks_exact(channels)) {
                    *value = pixel[channel];
                }
                let first = (channel * dst_height + corner.0 + y) * dst_width + corner.1;
                dst.store(first + piece.start, line);
            }
        }
    });
}

pub(crate) fn mean_of_frames(s: &Session<'_>, frames: &[&Tensor], dst: &mut Tensor) {
    let [height, width, channels] = frame_dims(frames[0]);
    let dims = frame_dims(dst);
    assert_eq!(dims, [height + 2, width + 2, channels]);
    assert!(frames.iter().all(|frame| frame_dims(frame) == [height, width, channels]));
    let (first, second) = match frames {
        [only] => (s.source(only), None),
        [first, second] => (s.source(first), Some(s.source(second))),
        _ => panic!("the mean of {} frames", frames.len()),
    };
    let (pitch, dst) = (width * channels, s.sink(dst));
    s.run(dims[0], |row, scratch| {
        if clear_border(&dst, row, dims) {
            return;
        }
        let (from, to) = ((row - 1) * pitch, (row * dims[1] + 1) * channels);
        let Some(second) = &second else {
            return dst.copy(to, &first, from, pitch, &mut scratch[..CHUNK]);
        };
        for piece in pieces(pitch, CHUNK) {
            let (mean, other) = scratch.split_at_mut(CHUNK);
            let (mean, other) = (&mut mean[..piece.len()], &mut other[..piece.len()]);
            first.load(from + piece.start, mean);
            second.load(from + piece.start, other);
            for (mean, other) in mean.iter_mut().zip(other) {
                *mean = (*mean + *other) / 2.0;
            }
            dst.store(to + piece.start, mean);
        }
    });
}

pub(crate) fn upsample(s: &Session<'_>, frame: &Tensor, dst: &mut Tensor) {
    let [height, width, channels] = frame_dims(frame);
    let dims = frame_dims(dst);
    assert_eq!(dims, [2 * height + 2, 2 * width + 2, channels]);
    let (frame, dst) = (s.source(frame), s.sink(dst));
    s.run(dims[0], |row, scratch| {
        if clear_border(&dst, row, dims) {
            return;
        }
        let from = (row - 1) / 2 * width * channels;
        let to = (row * dims[1] + 1) * channels;
        for x in 0..width {
            let from = from + x * channels;
            for twice in 0..2 {
                let to = to + (2 * x + twice) * channels;
                dst.copy(to, &frame, from, channels, &mut scratch[..CHUNK]);
            }
        }
    });
}

pub(crate) fn crop(s: &Session<'_>, src: &Tensor, corner: (usize, usize), dst: &mut Tensor) {
    let [src_height, src_width, channels] = frame_dims(src);
    let [height, width, dst_channels] = frame_dims(dst);
    assert_eq!(channels, dst_channels);
    assert!(corner.0 + height <= src_height && corner.1 + width <= src_width);
    let (src, dst) = (s.source(src), s.sink(dst));
    s.run(height, |row, scratch| {
        let from = ((corner.0 + row) * src_width + corner.1) * channels;
        let pitch = width * channels;
        dst.copy(row * pitch, &src, from, pitch, &mut scratch[..CHUNK]);
    });
}

pub(crate) fn blend(
    s: &Session<'_>,
    before: &Tensor,
    tile: &mut Tensor,
    axis: Axis,
    extent: usize,
) {
    let [before_height, before_width, channels] = frame_dims(before);
    let [height, width, tile_channels] = frame_dims(tile);
    assert_eq!(channels, tile_channels);
    let (before, tile) = (s.source(before), s.sink(tile));
    let mix = |line: usize, from: usize, to: usize, scratch: &mut [f32], count: usize| {
        let share = line as f64 / extent as f64;
        for piece in pieces(count, CHUNK) {
            let (old, new) = scratch.split_at_mut(CHUNK);
            let (old, new) = (&mut old[..piece.len()], &mut new[..piece.len()]);
            before.load(from + piece.start, old);
            tile.as_source().load(to + piece.start, new);
            for (new, old) in new.iter_mut().zip(old) {
                *new = *old * (1.0 - share) as f32 + *new * share as f32;
            }
            tile.store(to + piece.start, new);
        }
    };
    match axis {
        Axis::Vertical => {
            assert_eq!(before_width, width);
            assert!(extent <= before_height && extent <= height);
            let pitch = width * channels;
            s.run(extent, |y, scratch| {
                mix(y, (before_height - extent + y) * pitch, y * pitch, scratch, pitch);
            });
        }
        Axis::Horizontal => {
            assert_eq!(before_height, height);
            assert!(extent <= before_width && extent <= width);
            s.run(height, |y, scratch| {
                let from = (y * before_width + before_width - extent) * channels;
                for x in 0..extent {
                    let (from, to) = (from + x * channels, (y * width + x) * channels);
                    mix(x, from, to, scratch, channels);
                }
            });
        }
    }
}

pub(crate) fn to_unit_range(s: &Session<'_>, src: &Tensor, dst: &mut Tensor) {
    assert_eq!(src.shape(), dst.shape());
    let count = src.shape().elements();
    let (src, dst) = (s.source(src), s.sink(dst));
    for_chunks(s, count, |chunk, scratch| {
        let values = &mut scratch[..chunk.len()];
        src.load(chunk.start, values);
        // Halves are exact but for the smallest numbers, whose sum with 1/2 is 1/2 all the same,
        // and clamping commutes with rounding: the sum is the only place where rounding shows.
        for value in &mut *values {
            *value = (*value / 2.0 + 0.5).clamp(0.0, 1.0);
        }
        round_to(src.dtype(), values);
        dst.store(chunk.start, values);
    });
}

/// Rounds to `dtype` and back.
pub(super) fn round_to(dtype: DType, values: &mut [f32]) {
    const BLOCK: usize = 256;
    for values in values.chunks_mut(BLOCK) {
        match dtype {
            DType::F32 => {}
            DType::F16 => {
                let mut rounded = [f16::ZERO; BLOCK];
                let rounded = &mut rounded[..values.len()];
                rounded.convert_from_f32_slice(values);
                rounded.convert_to_f32_slice(values);
            }
            DType::BF16 => {
                let mut rounded = [bf16::ZERO; BLOCK];
                let rounded = &mut rounded[..values.len()];
                rounded.convert_from_f32_slice(values);
                rounded.convert_to_f32_slice(values);
            }
        }
    }
}
