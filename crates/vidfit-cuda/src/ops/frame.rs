//! Frames: cut, joined, enlarged: `kernels/frame.cu`.

use crate::device::Session;
use vidfit_tensor::{Axis, Tensor};

pub(crate) fn latent_frame(
    _: &Session<'_>,
    _src: &Tensor,
    _corner: (usize, usize),
    _factor: f32,
    _padded: bool,
    _dst: &mut Tensor,
) {
    unimplemented!("on this branch")
}

pub(crate) fn store_latent(
    _: &Session<'_>,
    _frame: &Tensor,
    _corner: (usize, usize),
    _dst: &mut Tensor,
) {
    unimplemented!("on this branch")
}

pub(crate) fn upsample(_: &Session<'_>, _frame: &Tensor, _dst: &mut Tensor) {
    unimplemented!("on this branch")
}

pub(crate) fn mean_of_frames(_: &Session<'_>, _frames: &[&Tensor], _dst: &mut Tensor) {
    unimplemented!("on this branch")
}

pub(crate) fn crop(_: &Session<'_>, _src: &Tensor, _corner: (usize, usize), _dst: &mut Tensor) {
    unimplemented!("on this branch")
}

pub(crate) fn blend(
    _: &Session<'_>,
    _before: &Tensor,
    _tile: &mut Tensor,
    _axis: Axis,
    _extent: usize,
) {
    unimplemented!("on this branch")
}
