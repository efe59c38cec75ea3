//! Convolution: `kernels/conv.cu`.

use crate::device::Session;
use crate::memory::View;
use crate::speed::Unit;
use vidfit_tensor::{Conv, DType, Tensor};

/// A chunk, in bytes and in elements of 16 bits.
const CHUNK_BYTES: u64 = 16;
const CHUNK_ELEMENTS: usize = 8;

/// The most results of a launch (`CONV_TARGETS`).
const TARGETS: usize = 4;

/// Up to so many channels out, the narrow kernels do it.
const NARROW_CHANNELS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ConvArguments {
    frames: [View; TARGETS + 2],
    targets: [View; TARGETS],
    weight: View,
    bias: View,
    frame_count: u32,
    stride: u32,
    height: u32,
    width: u32,
    channels_in: u32,
    channels_out: u32,
    accumulate: u32,
    frames_in_chunks: u32,
    weight_in_chunks: u32,
    target_in_quads: u32,
}

/// What a block makes, as the kernels have it. No choice among these changes the order of a sum
/// in one type, so none changes a bit.
struct Tile {
    kernel: &'static str,
    pixels: Pixels,
    channels: usize,
    threads: u32,
    shared_bytes: u32,
}

/// The pixels of a block.
enum Pixels {
    /// A rectangle, by height and width.
    Rectangle(usize, usize),
    /// So many in the order of memory.
    Run(usize),
}

impl Tile {
    /// The kernel for frames and a weight of `dtype`; f32 stands for every mix of types, and for one
    /// that tensor cores do not multiply.
    fn of(dtype: DType, stride: usize, channels_out: usize) -> Tile {
        let is_narrow = channels_out <= NARROW_CHANNELS;
        let by_type = |f16, bf16| if dtype == DType::F16 { f16 } else { bf16 };
        match (dtype, stride) {
            (DType::F32, _) if is_narrow => Tile {
                kernel: "conv_chain_narrow",
                pixels: Pixels::Run(256),
                channels: 8,
                threads: 256,
                shared_bytes: 34816,
            },
            (DType::F32, _) => Tile {
                kernel: "conv_chain",
                pixels: Pixels::Run(128),
                channels: 128,
                threads: 256,
                shared_bytes: 33792,
            },
            (_, 2) => Tile {
                kernel: by_type("conv_halving_f16", "conv_halving_bf16"),
                pixels: Pixels::Rectangle(8, 8),
                channels: 128,
                threads: 128,
                shared_bytes: 53376,
            },
            _ if is_narrow => Tile {
                kernel: by_type("conv_narrow_f16", "conv_narrow_bf16"),
                pixels: Pixels::Rectangle(16, 16),
                channels: 8,
                threads: 256,
                shared_bytes: 50688,
            },
            _ => Tile {
                kernel: by_type("conv_f16", "conv_bf16"),
                pixels: Pixels::Rectangle(16, 16),
                channels: 128,
                threads: 256,
                shared_bytes: 57856,
            },
        }
    }

    fn blocks(&self, height: usize, width: usize, channels_out: usize) -> u32 {
        let of_pixels = match self.pixels {
            Pixels::Rectangle(rows, columns) => height.div_ceil(rows) * width.div_ceil(columns),
            Pixels::Run(pixels) => (height * width).div_ceil(pixels),
        };
        let blocks = of_pixels * channels_out.div_ceil(self.channels);
        u32::try_from(blocks).expect("a frame of less than 2^32 blocks")
    }
}

/// See [`vidfit_tensor::Device::conv`].
pub(crate) fn conv(session: &Session<'_>, op: Conv<'_>, dst: &mut [Tensor]) {
    let size = Size::of(&op, dst);
    for frame in op.frames {
        assert_eq!(frame.dims(), size.of_frame(op.stride), "{frame:?}");
        assert_eq!(frame.dtype(), op.frames[0].dtype(), "{frame:?}");
    }
    assert!(dst.iter().all(|result| result.dtype() == dst[0].dtype()), "results of several types");

    let dtype = op.weight.dtype();
    let has_tensor_cores = session.has_tensor_cores_for(dtype) && op.frames[0].dtype() == dtype;
    let unit = if has_tensor_cores { Unit::Tensor } else { Unit::F32 };
    let tile = Tile::of(if has_tensor_cores { dtype } else { DType::F32 }, op.stride, size.to);
    let of_row = (size.depth * 9 * size.from * size.to * size.width) as u64;
    let targets = session.parts(unit, of_row * size.height as u64, TARGETS);
    // A part of a frame is a frame of fewer rows.
    let rows = session.parts(unit, of_row, size.height);
    for (first, results) in (0..dst.len()).step_by(targets).zip(dst.chunks(targets)) {
        let frames = &op.frames[first..first + results.len() + size.depth - 1];
        for top in (0..size.height).step_by(rows) {
            let height = rows.min(size.height - top);
            let part = Part { frames, results, top, height };
            let work = of_row * (height * results.len()) as u64;
            part.launch(session, &op, &size, &tile, (work, unit));
        }
    }
}

/// Lengths of a convolution.
struct Size {
    /// Frames that make a result.
    depth: usize,
    /// Of a result.
    height: usize,
    width: usize,
    /// Channels in, channels out.
    from: usize,
    to: usize,
}

impl Size {
    fn of(op: &Conv<'_>, dst: &[Tensor]) -> Size {
        let &[height, width, to] = dst[0].dims() else { panic!("{:?} is not a frame", dst[0]) };
        let (depth, from) = (op.weight.dims()[0] / 9, op.frames[0].columns());
        assert!(matches!(depth, 1 | 3), "a convolution of {depth} frames");
        assert!(matches!(op.stride, 1 | 2), "a stride of {}", op.stride);
        assert_eq!(op.frames.len(), dst.len() + depth - 1, "frames for {} results", dst.len());
        assert_eq!(op.weight.dims(), [depth * 9, from, to]);
        assert_eq!(op.bias.shape().elements(), to);
        assert!(
            dst.iter().all(|result| result.dims() == dst[0].dims()),
            "results of several sizes"
        );
        Size { depth, height, width, from, to }
    }

    /// The shape of a padded frame.
    fn of_frame(&self, stride: usize) -> [usize; 3] {
        [stride * self.height + 2, stride * self.width + 2, self.from]
    }
}

/// What one launch makes: some rows of some results.
struct Part<'a> {
    frames: &'a [&'a Tensor],
    results: &'a [Tensor],
    top: usize,
    height: usize,
}

impl Part<'_> {
    fn launch(
        &self,
        session: &Session<'_>,
        op: &Conv<'_>,
        size: &Size,
        tile: &Tile,
        work: (u64, Unit),
    ) {
        let stride = op.stride;
        let [_, width, from] = size.of_frame(stride);
        let (mut frames, mut targets) = ([View::NONE; TARGETS + 2], [View::NONE; TARGETS]);
        for (view, frame) in frames.iter_mut().zip(self.frames) {
            *view = session.view(frame).from(stride * self.top * width * from, frame.dtype());
        }
        for (view, result) in targets.iter_mut().zip(self.results) {
            *view = session.view(result).from(self.top * size.width * size.to, result.dtype());
        }
        let weight = session.view(op.weight);
        let in_chunks = |view: &View, row: usize| {
            view.address.is_multiple_of(CHUNK_BYTES) && row.is_multiple_of(CHUNK_ELEMENTS)
        };
        let quad_bytes = 4 * self.results[0].dtype().bytes();
        let in_quads = |view: &View| view.address.is_multiple_of(quad_bytes);
        let arguments = ConvArguments {
            frames,
            targets,
            weight,
            bias: session.view(op.bias),
            frame_count: size.depth as u32,
            stride: stride as u32,
            height: self.height as u32,
            width: size.width as u32,
            channels_in: from as u32,
            channels_out: size.to as u32,
            accumulate: op.accumulate.into(),
            frames_in_chunks: frames[..self.frames.len()]
                .iter()
                .all(|frame| in_chunks(frame, from))
                .into(),
            weight_in_chunks: in_chunks(&weight, size.to).into(),
            target_in_quads: (size.to.is_multiple_of(4)
                && targets[..self.results.len()].iter().all(in_quads))
            .into(),
        };
        let touched: Vec<&Tensor> =
            self.frames.iter().copied().chain([op.weight, op.bias]).chain(self.results).collect();
        let blocks = tile.blocks(self.height, size.width, size.to);
        let grid = ([blocks, 1, self.results.len() as u32], [tile.threads, 1, 1]);
        session.launch_work(tile.kernel, grid, tile.shared_bytes, &arguments, &touched, work);
    }
}
