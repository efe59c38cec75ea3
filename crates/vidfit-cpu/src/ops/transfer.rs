//! Values between the host and the arena.

use crate::device::Session;
use crate::element::{Sink, Source};
use crate::ops::{CHUNK, for_chunks};
use vidfit_tensor::*;

pub(crate) fn upload(s: &Session<'_>, values: &[f32], dst: &mut Tensor) {
    assert_eq!(values.len(), dst.shape().elements());
    // SAFETY: a slice of f32, borrowed until the copy is done.
    let from = unsafe { Source::new(values.as_ptr().cast(), values.len(), DType::F32) };
    copy(s, &from, &s.sink(dst), values.len());
}

pub(crate) fn download(s: &Session<'_>, src: &Tensor, values: &mut [f32]) {
    assert_eq!(values.len(), src.shape().elements());
    // SAFETY: a slice of f32, borrowed until the copy is done.
    let to = unsafe { Sink::new(values.as_mut_ptr().cast(), values.len(), DType::F32) };
    copy(s, &s.source(src), &to, values.len());
}

/// The bytes of `source`, as they are.
pub(crate) fn upload_bytes(
    s: &Session<'_>,
    source: &dyn HostSource,
    dst: &mut Tensor,
) -> Result<(), String> {
    assert_eq!(source.len(), dst.bytes());
    source.read(0, s.bytes_mut(dst))
}

/// The bytes of `src`, as they are, to the beginning of `dst`.
pub(crate) fn download_bytes(s: &Session<'_>, src: &Tensor, dst: &mut [u8]) {
    dst[..src.bytes() as usize].copy_from_slice(s.bytes(src));
}

/// `count` elements from the beginning of one run to the beginning of another, rounded.
pub(super) fn copy(s: &Session<'_>, from: &Source, to: &Sink, count: usize) {
    for_chunks(s, count, |chunk, scratch| {
        to.copy(chunk.start, from, chunk.start, chunk.len(), &mut scratch[..CHUNK]);
    });
}
