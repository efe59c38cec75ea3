//! Normalisation of rows: `kernels/norm.cu`.

use crate::device::Session;
use crate::memory::View;
use vidfit_tensor::{DType, LayerNorm, QkNorm, Tensor};

/// Threads of a row's block (`ROW_THREADS` there), which is four warps.
const ROW_THREADS: u32 = 128;

/// Bytes of `RowShared`: a sum of each warp, twice.
const ROW_SHARED_BYTES: u32 = 2 * 4 * 4;

/// Threads of a block of heads (`HEAD_THREADS`).
const HEAD_THREADS: u32 = 256;

/// Elements of a piece (`EIGHT`).
const PIECE: usize = 8;

/// Lanes of a warp: the most that share a head.
const WARP: usize = 32;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RmsNormArguments {
    x: View,
    weight: View,
    target: View,
    columns: u32,
    eps: f32,
}

pub(crate) fn rms_norm(
    session: &Session<'_>,
    x: &Tensor,
    weight: &Tensor,
    eps: f32,
    dst: &mut Tensor,
) {
    assert_eq!(x.shape().elements(), dst.shape().elements(), "rms_norm: {x:?} to {dst:?}");
    assert_eq!(weight.shape().elements(), x.columns(), "rms_norm: {weight:?} for {x:?}");
    let arguments = RmsNormArguments {
        x: session.view(x),
        weight: session.view(weight),
        target: session.view(dst),
        columns: number(x.columns()),
        eps,
    };
    let (grid, block) = (grid_of(x), [ROW_THREADS, 1, 1]);
    session.launch("rms_norm", grid, block, ROW_SHARED_BYTES, &arguments, &[x, weight, dst]);
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct LayerNormArguments {
    x: View,
    weight: View,
    bias: View,
    shift: View,
    scale: View,
    target: View,
    columns: u32,
    eps: f32,
}

pub(crate) fn layer_norm(session: &Session<'_>, op: LayerNorm<'_>, dst: &mut Tensor) {
    let columns = op.x.columns();
    assert_eq!(op.x.shape().elements(), dst.shape().elements(), "{:?} to {dst:?}", op.x);
    let (shift, scale) = op.modulation.unzip();
    let tables = [op.weight, op.bias].into_iter().chain(shift).chain(scale);
    for table in tables.clone() {
        assert_eq!(table.shape().elements(), columns, "layer_norm: {table:?} for {:?}", op.x);
    }
    let arguments = LayerNormArguments {
        x: session.view(op.x),
        weight: session.view(op.weight),
        bias: session.view(op.bias),
        shift: session.view_if(shift),
        scale: session.view_if(scale),
        target: session.view(dst),
        columns: number(columns),
        eps: op.eps,
    };
    let (grid, block) = (grid_of(op.x), [ROW_THREADS, 1, 1]);
    let touched: Vec<_> = tables.chain([op.x, &*dst]).collect();
    session.launch("layer_norm", grid, block, ROW_SHARED_BYTES, &arguments, &touched);
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct QkNormArguments {
    x: View,
    weight: View,
    bias: View,
    cos: View,
    sin: View,
    heads: u32,
    heads_of_row: u32,
    size: u32,
    team: u32,
    first_row: u32,
    eps: f32,
}

pub(crate) fn qk_norm(session: &Session<'_>, op: QkNorm<'_>, x: &mut Tensor) {
    let (rows, columns, size) = (x.rows(), x.columns(), op.weight.columns());
    assert!(size > 0 && size.is_multiple_of(2), "heads of {size}");
    assert!(columns.is_multiple_of(size), "heads of {size} in {x:?}");
    assert_eq!(op.bias.columns(), size, "biases of heads of {size}");
    let (cos, sin) = op.rope.map(|rope| (rope.cos, rope.sin)).unzip();
    let first_row = op.rope.map_or(0, |rope| rope.first_row);
    for angles in cos.into_iter().chain(sin) {
        assert_eq!((angles.dtype(), angles.columns()), (DType::F32, size / 2), "{angles:?}");
        assert!(angles.rows() + first_row >= rows, "{angles:?} for {rows} rows");
    }
    let heads = rows * columns / size;
    let team = size.div_ceil(PIECE).next_power_of_two().min(WARP);
    let arguments = QkNormArguments {
        x: session.view(x),
        weight: session.view(op.weight),
        bias: session.view(op.bias),
        cos: session.view_if(cos),
        sin: session.view_if(sin),
        heads: number(heads),
        heads_of_row: number(columns / size),
        size: number(size),
        team: number(team),
        first_row: number(first_row),
        eps: op.eps,
    };
    let grid = [number(heads.div_ceil(HEAD_THREADS as usize / team)), 1, 1];
    let touched = [op.weight, op.bias].into_iter().chain(cos).chain(sin).chain([&*x]);
    let touched: Vec<_> = touched.collect();
    session.launch("qk_norm", grid, [HEAD_THREADS, 1, 1], 0, &arguments, &touched);
}

/// A block for each row, and none for rows of nothing.
fn grid_of(x: &Tensor) -> [u32; 3] {
    [if x.columns() == 0 { 0 } else { number(x.rows()) }, 1, 1]
}

/// A number of rows, columns or heads. The kernels add to it without looking whether that is too much.
fn number(count: usize) -> u32 {
    u32::try_from(count).ok().filter(|&count| count <= 1 << 31).expect("at most 2^31 of it")
}
