//! Operations on each element by itself: `kernels/elementwise.cu`.

use crate::device::Session;
use crate::memory::View;
use vidfit_tensor::Tensor;

const THREADS: u32 = 256;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct CastArguments {
    source: View,
    target: View,
    elements: u64,
}

fn one_to_one(session: &Session<'_>, kernel: &'static str, src: &Tensor, dst: &Tensor) {
    let elements = dst.shape().elements() as u64;
    assert_eq!(src.shape().elements() as u64, elements, "{kernel}: {src:?} to {dst:?}");
    let arguments =
        CastArguments { source: session.view(src), target: session.view(dst), elements };
    session.launch(kernel, [blocks(elements), 1, 1], [THREADS, 1, 1], 0, &arguments, &[src, dst]);
}

/// Blocks for one thread an element.
fn blocks(elements: u64) -> u32 {
    u32::try_from(elements.div_ceil(u64::from(THREADS)))
        .expect("a tensor of less than 2^40 elements")
}

/// `dst = src`.
pub(crate) fn cast(session: &Session<'_>, src: &Tensor, dst: &mut Tensor) {
    one_to_one(session, "cast", src, dst);
}

/// `dst += src`.
pub(crate) fn add(session: &Session<'_>, src: &Tensor, dst: &mut Tensor) {
    one_to_one(session, "add", src, dst);
}

pub(crate) fn combine(_: &Session<'_>, _terms: &[(f64, &Tensor)], _dst: &mut Tensor) {
    unimplemented!("on this branch")
}

pub(crate) fn guide(
    _: &Session<'_>,
    _unconditional: &Tensor,
    _conditional: &Tensor,
    _scale: f64,
    _dst: &mut Tensor,
) {
    unimplemented!("on this branch")
}

pub(crate) fn silu(_: &Session<'_>, _x: &Tensor, _dst: &mut Tensor) {
    unimplemented!("on this branch")
}

pub(crate) fn gelu_gate(_: &Session<'_>, _x: &Tensor, _dst: &mut Tensor) {
    unimplemented!("on this branch")
}

pub(crate) fn gated_residual(_: &Session<'_>, _x: &Tensor, _gate: &Tensor, _dst: &mut Tensor) {
    unimplemented!("on this branch")
}

pub(crate) fn to_unit_range(_: &Session<'_>, _src: &Tensor, _dst: &mut Tensor) {
    unimplemented!("on this branch")
}

pub(crate) fn posterior_sample(
    _: &Session<'_>,
    _moments: &Tensor,
    _noise: &Tensor,
    _factor: f64,
    _dst: &mut Tensor,
) {
    unimplemented!("on this branch")
}
