//! Frames: cut, joined, enlarged: `kernels/frame.cu`.

use crate::device::Session;
use crate::memory::View;
use bytemuck::{Pod, Zeroable};
use vidfit_tensor::{Axis, Tensor};

const THREADS: u32 = 256;
/// Up to so many lines, shares of them are the same bits as on the CPU: see `blend` in the kernels.
const BLEND_LINES: usize = 1 << 14;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CropArguments {
    source: View,
    target: View,
    first: u64,
    source_pitch: u64,
    target_pitch: u64,
    units: u32,
    unit: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BlendArguments {
    before: View,
    tile: View,
    first: u64,
    before_pitch: u64,
    tile_pitch: u64,
    units: u32,
    unit: u32,
    extent: u32,
    pixel: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PadArguments {
    frames: [View; 2],
    target: View,
    height: u32,
    width: u32,
    channel_units: u32,
    unit: u32,
    count: u32,
    unused: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LatentArguments {
    latent: View,
    frame: View,
    plane: u64,
    latent_width: u32,
    corner: u32,
    height: u32,
    width: u32,
    channels: u32,
    border: u32,
    factor: f32,
    unused: u32,
}

/// A rectangle of a latent frame, channels last, times `factor`.
pub(crate) fn latent_frame(
    session: &Session<'_>,
    src: &Tensor,
    corner: (usize, usize),
    factor: f32,
    padded: bool,
    dst: &mut Tensor,
) {
    let [rows, columns, channels] = frame_dims(dst);
    let border = usize::from(padded);
    let size = [rows - 2 * border, columns - 2 * border, channels];
    let arguments = LatentArguments {
        border: border as u32,
        factor,
        ..latent_arguments(session, src, corner, size, dst)
    };
    launch(session, "latent_frame", [rows, columns * channels], &arguments, &[src, dst]);
}

/// A frame into a rectangle of a latent frame.
pub(crate) fn store_latent(
    session: &Session<'_>,
    frame: &Tensor,
    corner: (usize, usize),
    dst: &mut Tensor,
) {
    let size @ [height, width, channels] = frame_dims(frame);
    let arguments = latent_arguments(session, dst, corner, size, frame);
    launch(session, "store_latent", [height, width * channels], &arguments, &[frame, dst]);
}

fn latent_arguments(
    session: &Session<'_>,
    latent: &Tensor,
    corner: (usize, usize),
    [height, width, channels]: [usize; 3],
    frame: &Tensor,
) -> LatentArguments {
    let &[latent_channels, latent_height, latent_width] = latent.dims() else {
        panic!("a latent of {latent:?}")
    };
    assert_eq!(channels, latent_channels);
    assert!(corner.0 + height <= latent_height && corner.1 + width <= latent_width);
    LatentArguments {
        latent: session.view(latent),
        frame: session.view(frame),
        plane: (latent_height * latent_width) as u64,
        latent_width: in_32_bits(latent_width),
        corner: in_32_bits(corner.0 * latent_width + corner.1),
        height: in_32_bits(height),
        width: in_32_bits(width),
        channels: in_32_bits(channels),
        border: 0,
        factor: 1.0,
        unused: 0,
    }
}

/// Twice as high and wide, padded.
pub(crate) fn upsample(session: &Session<'_>, frame: &Tensor, dst: &mut Tensor) {
    let [height, width, channels] = frame_dims(frame);
    assert_eq!(frame_dims(dst), [2 * height + 2, 2 * width + 2, channels]);
    let arguments = pad_arguments(session, &[frame], dst);
    let size = [height + 1, (2 * width + 2) * channels / arguments.unit as usize];
    launch(session, "upsample", size, &arguments, &[frame, dst]);
}

/// The mean of one frame or two, padded.
pub(crate) fn mean_of_frames(session: &Session<'_>, frames: &[&Tensor], dst: &mut Tensor) {
    assert!((1..=2).contains(&frames.len()), "the mean of {} frames", frames.len());
    let size @ [height, width, channels] = frame_dims(frames[0]);
    assert!(frames.iter().all(|frame| frame_dims(frame) == size));
    assert_eq!(frame_dims(dst), [height + 2, width + 2, channels]);
    let arguments = pad_arguments(session, frames, dst);
    let size = [height + 2, (width + 2) * channels / arguments.unit as usize];
    let touched: Vec<&Tensor> = frames.iter().copied().chain([&*dst]).collect();
    launch(session, "mean_of_frames", size, &arguments, &touched);
}

fn pad_arguments(session: &Session<'_>, frames: &[&Tensor], dst: &Tensor) -> PadArguments {
    let [height, width, channels] = frame_dims(frames[0]);
    let mut views = [View::NONE; 2];
    for (view, frame) in views.iter_mut().zip(frames) {
        *view = session.view(frame);
    }
    let target = session.view(dst);
    let unit = unit(&[views[0], views[1], target], &[channels]);
    PadArguments {
        frames: views,
        target,
        height: in_32_bits(height),
        width: in_32_bits(width),
        channel_units: in_32_bits(channels / unit),
        unit: unit as u32,
        count: frames.len() as u32,
        unused: 0,
    }
}

/// A rectangle of a frame.
pub(crate) fn crop(session: &Session<'_>, src: &Tensor, corner: (usize, usize), dst: &mut Tensor) {
    let [src_height, src_width, channels] = frame_dims(src);
    let [height, width, dst_channels] = frame_dims(dst);
    assert_eq!(channels, dst_channels);
    assert!(corner.0 + height <= src_height && corner.1 + width <= src_width);
    let (source, target) = (session.view(src), session.view(dst));
    let first = (corner.0 * src_width + corner.1) * channels;
    let (source_pitch, target_pitch) = (src_width * channels, width * channels);
    let unit = unit(&[source, target], &[first, source_pitch, target_pitch]);
    let units = target_pitch / unit;
    let arguments = CropArguments {
        source,
        target,
        first: first as u64,
        source_pitch: source_pitch as u64,
        target_pitch: target_pitch as u64,
        units: in_32_bits(units),
        unit: unit as u32,
    };
    launch(session, "crop", [height, units], &arguments, &[src, dst]);
}

/// The first lines of `tile` with the last ones of `before`.
pub(crate) fn blend(
    session: &Session<'_>,
    before: &Tensor,
    tile: &mut Tensor,
    axis: Axis,
    extent: usize,
) {
    let [before_height, before_width, channels] = frame_dims(before);
    let [height, width, tile_channels] = frame_dims(tile);
    assert_eq!(channels, tile_channels);
    assert!(extent <= BLEND_LINES, "a seam of {extent} lines");
    let (before_pitch, tile_pitch) = (before_width * channels, width * channels);
    // Where `before` begins, and what of the tile is written: rows, and elements of each.
    let (first, [rows, length], pixel) = match axis {
        Axis::Vertical => {
            assert_eq!(before_width, width);
            assert!(extent <= before_height && extent <= height);
            ((before_height - extent) * before_pitch, [extent, tile_pitch], 0)
        }
        Axis::Horizontal => {
            assert_eq!(before_height, height);
            assert!(extent <= before_width && extent <= width);
            ((before_width - extent) * channels, [height, extent * channels], channels)
        }
    };
    let views = [session.view(before), session.view(tile)];
    // A unit has one share.
    let unit = match axis {
        Axis::Vertical => unit(&views, &[tile_pitch]),
        Axis::Horizontal => unit(&views, &[channels]),
    };
    let arguments = BlendArguments {
        before: views[0],
        tile: views[1],
        first: first as u64,
        before_pitch: before_pitch as u64,
        tile_pitch: tile_pitch as u64,
        units: in_32_bits(length / unit),
        unit: unit as u32,
        extent: extent as u32,
        pixel: in_32_bits(pixel),
    };
    launch(session, "blend", [rows, length / unit], &arguments, &[before, tile]);
}

/// Elements that a thread may take at once, where all places and lengths are multiples of `lengths`.
fn unit(views: &[View], lengths: &[usize]) -> usize {
    let is_wide = views.iter().all(|view| view.address.is_multiple_of(16));
    if is_wide && lengths.iter().all(|length| length.is_multiple_of(8)) { 8 } else { 1 }
}

/// Runs a kernel with a row of blocks for each line, and a thread for each unit of it.
fn launch<A: Pod>(
    session: &Session<'_>,
    kernel: &'static str,
    [lines, units]: [usize; 2],
    arguments: &A,
    touched: &[&Tensor],
) {
    let lines = u16::try_from(lines).expect("frames of less than 2^16 lines");
    let blocks = in_32_bits(units).div_ceil(THREADS);
    session.launch(kernel, [blocks, lines.into(), 1], [THREADS, 1, 1], 0, arguments, touched);
}

/// A frame's height, width and channels.
fn frame_dims(frame: &Tensor) -> [usize; 3] {
    let &[height, width, channels] = frame.dims() else { panic!("a frame of {frame:?}") };
    [height, width, channels]
}

/// The kernels count the elements of a line, and places in a latent's plane, in 32 bits.
fn in_32_bits(count: usize) -> u32 {
    assert!(count < 1 << 31, "{count} elements in a line");
    count as u32
}
