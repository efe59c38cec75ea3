use crate::device::Session;
use vidfit_tensor::*;

pub(crate) fn patchify(
    _s: &Session<'_>,
    _latents: &[&Tensor],
    _patch: (usize, usize),
    _dst: &mut Tensor,
) {
    todo!()
}

pub(crate) fn unpatchify(
    _s: &Session<'_>,
    _src: &Tensor,
    _patch: (usize, usize),
    _dst: &mut Tensor,
) {
    todo!()
}
