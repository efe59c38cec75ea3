use crate::device::Session;
use vidfit_tensor::*;

pub(crate) fn latent_frame(
    _s: &Session<'_>,
    _src: &Tensor,
    _corner: (usize, usize),
    _factor: f32,
    _padded: bool,
    _dst: &mut Tensor,
) {
    todo!()
}

pub(crate) fn upsample(_s: &Session<'_>, _frame: &Tensor, _dst: &mut Tensor) {
    todo!()
}

pub(crate) fn crop(_s: &Session<'_>, _src: &Tensor, _corner: (usize, usize), _dst: &mut Tensor) {
    todo!()
}

pub(crate) fn blend(
    _s: &Session<'_>,
    _before: &Tensor,
    _tile: &mut Tensor,
    _axis: Axis,
    _extent: usize,
) {
    todo!()
}

pub(crate) fn to_unit_range(_s: &Session<'_>, _src: &Tensor, _dst: &mut Tensor) {
    todo!()
}
