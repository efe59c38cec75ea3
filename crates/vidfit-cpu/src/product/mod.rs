//! Matrix products: linear layers, attention and convolution.

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod linear;
pub(crate) mod math;
