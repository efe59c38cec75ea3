//! Matrix products: `kernels/linear.cu`.

use crate::device::Session;
use vidfit_tensor::{Linear, LowRank, Tensor};

pub(crate) fn linear(_: &Session<'_>, _op: Linear<'_>, _dst: &mut Tensor) {
    unimplemented!("on this branch")
}

pub(crate) fn low_rank_add(_: &Session<'_>, _terms: &[LowRank<'_>], _weight: &mut Tensor) {
    unimplemented!("on this branch")
}
