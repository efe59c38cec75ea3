//! Group normalisation of frames: `kernels/group_norm.cu`.

use crate::device::Session;
use crate::memory::View;
use vidfit_tensor::{DType, GroupNorm, Tensor};

/// Threads of every block (`GROUP_NORM_THREADS` there).
const THREADS: u32 = 256;

/// Frames of one launch (`GROUP_NORM_FRAMES`): more than a chunk of a video has.
const FRAMES: usize = 16;

/// Channels of a piece (`EIGHT`).
const PIECE: usize = 8;

/// Pixels that a thread makes of a row (`GROUP_NORM_SWEEPS * GROUP_NORM_PIXELS`).
const PIXELS: usize = 2 * 4;

/// Bytes of `RowMomentsShared`.
const ROW_SHARED_BYTES: u32 = 2 * 8 * (THREADS + 4) * 4;

/// Bytes of `GroupMomentsShared`.
const GROUP_SHARED_BYTES: u32 = 2 * THREADS * 8;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RowMomentsArguments {
    frames: [View; FRAMES],
    partials: View,
    first_row: u64,
    height: u32,
    width: u32,
    channels: u32,
    groups: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct GroupMomentsArguments {
    partials: View,
    statistics: View,
    rows: u64,
    groups: u32,
    row_values: u32,
    eps: f32,
    unused: u32,
}

pub(crate) fn group_norm_statistics(
    session: &Session<'_>,
    frames: &[&Tensor],
    eps: f32,
    partials: &mut Tensor,
    statistics: &mut Tensor,
) {
    let size @ [height, width, channels] = size_of(frames[0]);
    let groups = statistics.dims()[0];
    assert!(frames.iter().all(|frame| size_of(frame) == size), "frames of different sizes");
    assert_groups(channels, groups);
    assert_eq!(statistics.shape().elements(), 2 * groups, "{statistics:?}");
    assert_eq!(partials.shape().elements(), frames.len() * height * groups * 2, "{partials:?}");
    assert_eq!((partials.dtype(), statistics.dtype()), (DType::F32, DType::F32));

    for (n, chunk) in frames.chunks(FRAMES).enumerate() {
        let mut views = [View::NONE; FRAMES];
        views.iter_mut().zip(chunk).for_each(|(view, frame)| *view = session.view(frame));
        let arguments = RowMomentsArguments {
            frames: views,
            partials: session.view(partials),
            first_row: (n * FRAMES * height) as u64,
            height: number(height),
            width: number(width),
            channels: number(channels),
            groups: number(groups),
        };
        let grid = [number(chunk.len() * height), 1, 1];
        let touched: Vec<_> = chunk.iter().copied().chain([&*partials]).collect();
        let block = [THREADS, 1, 1];
        session.launch("group_norm_rows", grid, block, ROW_SHARED_BYTES, &arguments, &touched);
    }
    let arguments = GroupMomentsArguments {
        partials: session.view(partials),
        statistics: session.view(statistics),
        rows: (frames.len() * height) as u64,
        groups: number(groups),
        row_values: number(width * channels / groups),
        eps,
        unused: 0,
    };
    let (grid, block) = ([number(groups), 1, 1], [THREADS, 1, 1]);
    let touched = [&*partials, &*statistics];
    session.launch("group_norm_groups", grid, block, GROUP_SHARED_BYTES, &arguments, &touched);
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct GroupNormArguments {
    frame: View,
    statistics: View,
    weight: View,
    bias: View,
    factor: View,
    summand: View,
    target: View,
    height: u32,
    width: u32,
    channels: u32,
    groups: u32,
    map_height: u32,
    map_width: u32,
    silu: u32,
    unused: u32,
}

pub(crate) fn group_norm(
    session: &Session<'_>,
    op: GroupNorm<'_>,
    frame: &Tensor,
    dst: &mut Tensor,
) {
    let [height, width, channels] = size_of(frame);
    let groups = op.statistics.dims()[0];
    assert_eq!(size_of(dst), [height + 2, width + 2, channels], "{frame:?} to {dst:?}");
    assert_groups(channels, groups);
    assert_eq!((op.weight.columns(), op.bias.columns()), (channels, channels));
    assert_eq!(op.statistics.dtype(), DType::F32);
    let (factor, summand) = op.modulation.unzip();
    let [map_height, map_width, _] = match (factor, summand) {
        (Some(factor), Some(summand)) => {
            let map = size_of(factor);
            assert_eq!((size_of(summand), map[2]), (map, channels), "maps of different sizes");
            assert!(map[0] <= height && map[1] <= width, "modulation larger than its frame");
            map
        }
        _ => [1, 1, channels],
    };
    let arguments = GroupNormArguments {
        frame: session.view(frame),
        statistics: session.view(op.statistics),
        weight: session.view(op.weight),
        bias: session.view(op.bias),
        factor: session.view_if(factor),
        summand: session.view_if(summand),
        target: session.view(dst),
        height: number(height),
        width: number(width),
        channels: number(channels),
        groups: number(groups),
        map_height: number(map_height),
        map_width: number(map_width),
        silu: u32::from(op.silu),
        unused: 0,
    };
    let at_once = THREADS as usize / channels.div_ceil(PIECE) * PIXELS;
    let rows = number(height + 2);
    assert!(rows <= 65535, "a frame of {height} rows");
    let grid = [number((width + 2).div_ceil(at_once)), rows, 1];
    let tables = [op.statistics, op.weight, op.bias].into_iter().chain(factor).chain(summand);
    let touched: Vec<_> = tables.chain([frame, &*dst]).collect();
    session.launch("group_norm", grid, [THREADS, 1, 1], 0, &arguments, &touched);
}

/// A block has a thread for each piece of a pixel's channels, so there are not more.
fn assert_groups(channels: usize, groups: usize) {
    assert!(channels <= THREADS as usize * PIECE, "{channels} channels");
    assert!(groups > 0 && channels.is_multiple_of(groups), "{groups} groups of {channels}");
}

/// Height, width and channels.
fn size_of(frame: &Tensor) -> [usize; 3] {
    frame.dims().try_into().unwrap_or_else(|_| panic!("a frame, not {frame:?}"))
}

/// A length of a frame. Kernels multiply two of them to less than 2^32.
fn number(count: usize) -> u32 {
    u32::try_from(count).ok().filter(|&count| count <= 1 << 31).expect("at most 2^31 of it")
}
