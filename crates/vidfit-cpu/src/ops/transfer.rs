use crate::device::Session;
use vidfit_tensor::*;

pub(crate) fn upload(_s: &Session<'_>, _values: &[f32], _dst: &mut Tensor) {
    todo!()
}

pub(crate) fn upload_bytes(_s: &Session<'_>, _bytes: &[u8], _dst: &mut Tensor) {
    todo!()
}

pub(crate) fn download(_s: &Session<'_>, _src: &Tensor, _values: &mut [f32]) {
    todo!()
}
