use crate::device::Session;
use vidfit_tensor::*;

pub(crate) fn group_norm_statistics(
    _s: &Session<'_>,
    _frames: &[&Tensor],
    _eps: f32,
    _partials: &mut Tensor,
    _statistics: &mut Tensor,
) {
    todo!()
}

pub(crate) fn group_norm(_s: &Session<'_>, _op: GroupNorm<'_>, _frame: &Tensor, _dst: &mut Tensor) {
    todo!()
}
