//! Latents to patches and back: `kernels/patch.cu`.

use crate::device::Session;
use vidfit_tensor::Tensor;

pub(crate) fn patchify(
    _: &Session<'_>,
    _latents: &[&Tensor],
    _patch: (usize, usize),
    _dst: &mut Tensor,
) {
    unimplemented!("on this branch")
}

pub(crate) fn unpatchify(
    _: &Session<'_>,
    _src: &Tensor,
    _patch: (usize, usize),
    _dst: &mut Tensor,
) {
    unimplemented!("on this branch")
}
