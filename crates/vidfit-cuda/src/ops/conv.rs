//! Convolution: `kernels/conv.cu`.

use crate::device::Session;
use crate::memory::View;
use vidfit_tensor::{Conv, DType, Tensor};

/// A chunk, in bytes and in elements of 16 bits.
const CHUNK_BYTES: u64 = 16;
const CHUNK_ELEMENTS: usize = 8;

/// Up to so many channels out, the narrow kernels do it.
const NARROW_CHANNELS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct ConvArguments {
    frames: [View; 3],
    weight: View,
    bias: View,
    target: View,
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

/// See [`Conv`].
pub(crate) fn conv(session: &Session<'_>, op: Conv<'_>, dst: &mut Tensor) {
    let &[height, width, channels_out] = dst.dims() else { panic!("{dst:?} is not a frame") };
    let (stride, channels_in) = (op.stride, op.frames[0].columns());
    assert!(matches!(op.frames.len(), 1 | 3), "a convolution of {} frames", op.frames.len());
    assert!(matches!(stride, 1 | 2), "a stride of {stride}");
    assert_eq!(op.weight.dims(), [op.frames.len() * 9, channels_in, channels_out]);
    assert_eq!(op.bias.shape().elements(), channels_out);
    for frame in op.frames {
        assert_eq!(frame.dims(), [stride * height + 2, stride * width + 2, channels_in]);
    }
    let mut frames = [View::NONE; 3];
    for (to, frame) in frames.iter_mut().zip(op.frames) {
        *to = session.view(frame);
    }
    let (weight, target) = (session.view(op.weight), session.view(dst));
    let dtype = op.weight.dtype();
    let has_tensor_cores =
        session.has_tensor_cores_for(dtype) && op.frames.iter().all(|frame| frame.dtype() == dtype);
    let tile = Tile::of(if has_tensor_cores { dtype } else { DType::F32 }, stride, channels_out);
    let in_chunks = |view: &View, row: usize| {
        view.address.is_multiple_of(CHUNK_BYTES) && row.is_multiple_of(CHUNK_ELEMENTS)
    };
    let in_quads =
        target.address.is_multiple_of(4 * dst.dtype().bytes()) && channels_out.is_multiple_of(4);
    let arguments = ConvArguments {
        frames,
        weight,
        bias: session.view(op.bias),
        target,
        frame_count: op.frames.len() as u32,
        stride: stride as u32,
        height: height as u32,
        width: width as u32,
        channels_in: channels_in as u32,
        channels_out: channels_out as u32,
        accumulate: op.accumulate.into(),
        frames_in_chunks: frames[..op.frames.len()]
            .iter()
            .all(|frame| in_chunks(frame, channels_in))
            .into(),
        weight_in_chunks: in_chunks(&weight, channels_out).into(),
        target_in_quads: in_quads.into(),
    };
    let touched: Vec<&Tensor> =
        op.frames.iter().copied().chain([op.weight, op.bias, &*dst]).collect();
    let grid = [tile.blocks(height, width, channels_out), 1, 1];
    let block = [tile.threads, 1, 1];
    session.launch(tile.kernel, grid, block, tile.shared_bytes, &arguments, &touched);
}
