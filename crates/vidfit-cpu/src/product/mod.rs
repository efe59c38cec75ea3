//! Matrix products: linear layers, attention and convolution.

pub(crate) mod attention;
pub(crate) mod conv;
mod conv_narrow;
mod isa;
mod kernel;
pub(crate) mod linear;
pub(crate) mod low_rank;
pub(crate) mod math;
mod pack;
mod prefetch;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod transpose;
